"""`backup` and `restore`: a copy of an embedded target, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import Common, common_options, takes
from rubix_token_sync.cli.output import answer, say

__all__ = ["backup", "restore"]


@dataclass(frozen=True, kw_only=True)
class BackupArguments(Common):
    """Options of `backup`."""

    file: str
    force: bool


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=str))
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@common_options
@takes(BackupArguments)
def backup(arguments: BackupArguments) -> int:
    """Copy an embedded target, as of one moment, into FILE (mode 600), and check the copy.

    A sync may write meanwhile.  `restore` is the way back.  Exit codes: 0; 1 the copy is
    damaged; 2 usage, FILE exists or cannot be written; 3 the
    target cannot be read, or is a server, which makes its own backups.
    """
    made = rts.back_up(
        arguments.file, replace=arguments.force, configuration=arguments.configured()
    )
    answer(
        as_json=arguments.as_json,
        quiet=arguments.quiet,
        document={"file": str(made.file), "bytes": made.bytes, "records": made.records},
        table=lambda: say(
            f"Wrote {made.file}: {rts.counted(made.records, 'record')}, {made.bytes:,} bytes."
        ),
    )
    return 0


@dataclass(frozen=True, kw_only=True)
class RestoreArguments(Common):
    """Options of `restore`."""

    file: str


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=str))
@common_options
@takes(RestoreArguments)
def restore(arguments: RestoreArguments) -> int:
    """Put the backup FILE where the embedded target is, or was.

    FILE is checked first, and stays.  The target of before is kept under another name.
    Then sync each machine: what changed since the backup comes in.  Exit codes: 0; 1 FILE
    is damaged; 2 usage, or the directory cannot be written; 3 the target is a server;
    4 a run writes into the target.
    """
    done = rts.restore(arguments.file, configuration=arguments.configured())

    def show() -> None:
        say(f"Restored {done.file}: {rts.counted(done.records, 'record')}.")
        if done.kept is not None:
            say(f"The file of before is {done.kept}; remove it when all is well.")

    answer(
        as_json=arguments.as_json,
        quiet=arguments.quiet,
        document={
            "file": str(done.file),
            "records": done.records,
            "kept": None if done.kept is None else str(done.kept),
        },
        table=show,
    )
    return 0
