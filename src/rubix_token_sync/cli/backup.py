"""`backup`: a copy of an embedded target."""

from __future__ import annotations

from dataclasses import dataclass

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import Common, common_options, takes
from rubix_token_sync.cli.output import answer, say

__all__ = ["backup"]


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

    A sync may write meanwhile.  To restore, put FILE where the target was, while nothing
    runs.  Exit codes: 0; 1 the copy is damaged; 2 usage, FILE exists or cannot be
    written; 3 the target cannot be read, or is a server, which makes its own backups.
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
