"""`export`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import (
    Common,
    as_of_option,
    common_options,
    node_option,
    since_option,
    source_option,
    takes,
)
from rubix_token_sync.cli.output import answer, say, unwritable
from rubix_token_sync.cli.terminal import counting, note_unread

if TYPE_CHECKING:
    from rubix_token_sync import Exported

__all__ = ["export"]

Table = Literal["records", "transactions", "pledges", "chains", "findings", "history"]
TABLES: Final = ("records", "transactions", "pledges", "chains", "findings", "history")
FORMATS: Final = ("parquet", "csv", "jsonl")
PARTITIONS: Final = ("kind", "source", "node")


@dataclass(frozen=True, kw_only=True)
class ExportArguments(Common):
    """Options of `export`."""

    what: Table
    to: str
    form: Literal["parquet", "csv", "jsonl"] | None
    partition: Literal["kind", "source", "node"] | None
    sources: tuple[str, ...]
    nodes: tuple[str, ...]
    dids: tuple[str, ...]
    kinds: tuple[str, ...]
    since: timedelta | None
    as_of: str | None


@click.command()
@click.argument("what", metavar="TABLE", type=click.Choice(TABLES))
@click.option(
    "--to",
    required=True,
    metavar="PATH",
    help="A file; a directory, with --partition; - is standard output.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="Default: what the file's name ends in (.csv.gz, .jsonl.zst compress); parquet with "
    "--partition.",
)
@click.option(
    "--partition",
    type=click.Choice(PARTITIONS),
    help="A directory for each value, as DuckDB, polars, Spark and Power BI read them.",
)
@source_option
@node_option
@click.option("--did", "dids", multiple=True, metavar="DID", help="Only this holder; repeat.")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only this kind; repeat.")
@since_option
@as_of_option
@common_options
@takes(ExportArguments)
def export(arguments: ExportArguments) -> int:
    """Write TABLE, as the target holds it in one moment, for other programs.

    TABLE is records, transactions, pledges, chains, findings or history (every version of
    every record); docs/EXPORT.md has the columns. --since counts from when a row last changed
    in the target; records can be had as of a moment. Exit codes: 0; 1
    it is written, but the target allows no snapshots; 2 usage; 3 the target cannot be
    reached.
    """
    configuration = arguments.configured()
    to: Any = arguments.to
    if to == "-":
        if arguments.as_json:
            raise click.UsageError("--json and --to - would both write to standard output.")
        if arguments.form in (None, "parquet") and os.isatty(1):
            raise click.UsageError("Parquet is not for a terminal: redirect it, or name a file.")
        to = sys.stdout.buffer
    with counting("Exporting", quiet=arguments.quiet) as on_progress:
        try:
            done = rts.export_table(
                arguments.what,
                to,
                form=arguments.form,
                partition=arguments.partition,
                sources=arguments.sources,
                nodes=arguments.nodes,
                dids=arguments.dids,
                kinds=arguments.kinds,
                since=arguments.since,
                as_of=arguments.as_of,
                on_progress=on_progress,
                configuration=configuration,
            )
        except BrokenPipeError:  # its reader has gone: the command line ends as others do
            raise
        except OSError as error:
            raise unwritable(error) from error
    code = 0 if done.one_moment else 1
    with rts.open_target(configuration=configuration) as target:
        note_unread(target, sources=arguments.sources, nodes=arguments.nodes, quiet=arguments.quiet)
    if to is not arguments.to:
        return code
    answer(
        as_json=arguments.as_json,
        quiet=arguments.quiet,
        document={"ok": code == 0, "exit_code": code, **vars(done)},
        table=lambda: _show(done),
    )
    return code


def _show(done: Exported) -> None:
    files = done.files[0] if len(done.files) == 1 else rts.counted(len(done.files), "file")
    say(f"{rts.counted(done.rows, 'row')} of {done.table} in {files}.")
    if not done.one_moment:
        say("The target allows no snapshots: they were not read in one moment.", "33")
