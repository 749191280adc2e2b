"""`migrate`."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import Common, takes
from rubix_token_sync.cli.output import Column, answer, count, length, print_table, say

if TYPE_CHECKING:
    from rubix_token_sync import MigrationReport, MovedDatabase

__all__ = ["migrate"]

_LOG = logging.getLogger(__name__)

_STATES = {
    "moved": "moved and proven",
    "unchanged": "moved by an earlier call, unchanged since",
    "verified": "equal",
    "different": "DIFFERENT",
    "kept": "left alone: the target had records of it already",
    "synced": "not compared: a sync has written to it since",
    "would_move": "would be moved",
}


@dataclass(frozen=True, kw_only=True)
class MigrateArguments(Common):
    """Options of `migrate`."""

    source: str | None
    source_file: str | None
    source_timezone: str | None
    only: tuple[str, ...]
    dry_run: bool
    verify_only: bool
    start_over: bool
    batch_size: int | None
    connection_pool_size: int | None
    retry_attempts: int | None
    source_ip: None = None
    profile: None = None
    no_default_target: bool = False


@click.command()
@click.option("--from", "source", metavar="URL", help="The database to move from; only read.")
@click.option(
    "--from-file", "source_file", metavar="FILE", help="A file (mode 600) that holds that URL."
)
@click.option("--to", "target", metavar="URL", help="The target to move to.")
@click.option(
    "--to-file",
    "target_file",
    metavar="FILE",
    help="A file (mode 600) with the target's connection string or URL.",
)
@click.option(
    "--source-timezone",
    metavar="ZONE",
    help="What the source's times were written in, for example Europe/Berlin. Asked for once; "
    "default: UTC.",
)
@click.option(
    "--database",
    "only",
    multiple=True,
    metavar="PATTERN",
    help="Only databases whose path matches (shell pattern); repeat. For a first sample.",
)
@click.option("--dry-run", is_flag=True, help="Read all, write nothing, say what would happen.")
@click.option("--verify-only", is_flag=True, help="Compare both ends again; write nothing.")
@click.option("--start-over", is_flag=True, help="Give up an unfinished migration; begin anew.")
@click.option(
    "--allow-insecure-target-file",
    is_flag=True,
    default=None,
    help="Accept connection files that others can read.",
)
@click.option("--batch-size", type=int, metavar="N", help="Records written together.")
@click.option("--connection-pool-size", type=int, metavar="N", help="Connections at most.")
@click.option("--retry-attempts", type=int, metavar="N", help="Attempts after transient failures.")
@click.option("--config", metavar="FILE", help="Settings file (TOML); see init.")
@click.option("--log-file", metavar="FILE", help="Where the log goes as well.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Form of the log.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--quiet", "-q", is_flag=True, help="Warnings and errors only.")
@click.option("--verbose", "-v", is_flag=True, help="More detail; tracebacks of errors.")
@takes(MigrateArguments)
def migrate(arguments: MigrateArguments) -> int:
    """Move all records of the older system's PostgreSQL, or of any target, to a target.

    The source is only read.  An interrupted migration goes on when called
    again; its state is in the target.  Every row is accounted for: stored,
    merged with its duplicates, or set aside in full; both ends are compared by
    digest.  See docs/MIGRATION.md.

    Exit codes: 0 done; 1 rows could not be stored (they are set aside);
    2 usage; 3 a database refuses us; 4 a sync is running; 5 both ends differ.
    """
    if not arguments.target and not arguments.target_file:
        raise rts.SettingsError(
            "The target is missing.",
            code="no_target",
            remedy="Name the target by --to or --to-file.",
        )
    interactive = sys.stdin.isatty() and not arguments.as_json and not arguments.quiet
    report = rts.migrate_records(
        source=arguments.source,
        source_file=arguments.source_file,
        source_timezone=arguments.source_timezone,
        databases=arguments.only,
        dry_run=arguments.dry_run,
        verify_only=arguments.verify_only,
        start_over=arguments.start_over,
        ask_timezone=_ask_timezone if interactive else None,
        on_database=_log_database,
        configuration=arguments.configured(),
    )
    answer(
        as_json=arguments.as_json,
        quiet=arguments.quiet and not report.exit_code,
        document=report.document(),
        table=lambda: _show(report),
    )
    return report.exit_code


def _log_database(outcome: MovedDatabase, number: int, total: int) -> None:
    _LOG.info(
        "Migration: %d of %d | %s %s | rows %s | %s",
        number, total, outcome.source_ip, outcome.db_path,
        f"{outcome.rows_read:,}", _STATES[outcome.state],
    )  # fmt: skip


def _ask_timezone() -> str:
    answered: str = click.prompt(
        "The source's times have no time zone. In which one were they written?",
        default="UTC",
        err=True,
    )
    return answered


def _show(report: MigrationReport) -> None:
    print_table(
        [
            Column("source", 3), Column("database"), Column("rows", 1, right=True),
            Column("stored", right=True), Column("content", 2, right=True),
            Column("to fetch", 5, right=True), Column("merged", 6, right=True),
            Column("changed", 7, right=True), Column("refused", 4, right=True),
            Column("time", 8, right=True), Column("state"),
        ],
        [
            [
                one.source_ip, one.db_path, count(one.rows_read), count(one.rows_stored),
                count(one.contents_adopted), count(one.rows_stored - one.contents_adopted),
                count(one.duplicates_merged), count(one.rows_changed), count(one.rows_refused),
                length(one.seconds), _STATES[one.state],
            ]
            for one in report.databases
        ],
    )  # fmt: skip
    say(
        f"{rts.counted(report.total('rows_read'), 'row')} of "
        f"{rts.counted(len(report.databases), 'database')} in "
        f"{report.seconds:.1f} s: {rts.counted(report.total('rows_stored'), 'record')}, "
        f"{report.total('contents_adopted'):,} with proven content, "
        f"{rts.counted(report.total('duplicates_merged'), 'duplicate')} merged, "
        f"{report.total('rows_changed'):,} stored in another form and set aside in full, "
        f"{report.total('rows_refused') + report.rows_without_database:,} not stored and set "
        "aside in full."
    )
    for path in report.databases_without_rows:
        say(f"{path} was processed, but the source holds no record of it.")
    if report.mode == "migrate":
        say(
            "The migration is complete."
            if report.complete
            else "The migration goes on with the next call."
        )
