"""`sessions`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import (
    Looking,
    common_options,
    csv_option,
    limit_option,
    since_option,
    source_option,
    stuck_after_option,
    takes,
)
from rubix_token_sync.cli.output import (
    Column,
    answer,
    count,
    length,
    per_cent,
    print_table,
    rate,
    say,
    spark,
    state,
    when,
)
from rubix_token_sync.documents import sessions_document

if TYPE_CHECKING:
    from rubix_token_sync import RunRow, Trend

__all__ = ["sessions"]

_STATUSES = ("RUNNING", "COMPLETED", "FAILED", "INTERRUPTED")


@dataclass(frozen=True, kw_only=True)
class SessionsArguments(Looking):
    """Options of `sessions`."""

    since: timedelta | None
    statuses: tuple[str, ...]
    failed: bool
    limit: int
    stuck_after: timedelta


@click.command()
@common_options
@since_option
@source_option
@click.option(
    "--status",
    "statuses",
    type=click.Choice(_STATUSES, case_sensitive=False),
    multiple=True,
    help="Only runs that ended so, or are under way; repeat.",
)
@click.option("--failed", is_flag=True, help="Only runs that failed or were interrupted.")
@limit_option(20)
@stuck_after_option
@csv_option
@takes(SessionsArguments)
def sessions(arguments: SessionsArguments) -> int:
    """Show runs, the newest first, with their rates and the trend.

    Exit codes: 0; 2 usage; 3 the target cannot be reached.
    """
    statuses = ("FAILED", "INTERRUPTED") if arguments.failed else arguments.statuses
    with rts.open_target(configuration=arguments.configured()) as target:
        target.require_known(sources=arguments.sources)
        found = target.sessions(
            since=arguments.since,
            sources=arguments.sources,
            statuses=statuses,
            limit=arguments.limit,
            stuck_after=arguments.stuck_after,
        )
        trend = target.trend(found)
        answer(
            as_json=arguments.as_json,
            as_csv=arguments.as_csv,
            quiet=arguments.quiet,
            document=sessions_document(target, found, trend),
            rows=(rts.RunRow, found),
            table=lambda: _show(found, trend),
        )
    return 0


def _show(runs: list[RunRow], trend: Trend) -> None:
    if not runs:
        say("No runs.")
        return
    print_table(
        [
            Column("Session", 6), Column("Source", 2), Column("Command", 7), Column("Began (UTC)"),
            Column("Took", 3), Column(""), Column("Databases", 5, right=True),
            Column("Records", right=True), Column("Rate", 4, right=True),
            Column("Content", 8, right=True), Column("SQL errors", 9, right=True),
            Column("Invalid", 9, right=True), Column("Summary", 1, wraps=True),
        ],
        [
            [
                run.session_id[:8], run.source_ip, run.command or "", when(run.start_time),
                length(run.duration_seconds), state("STUCK" if run.stuck else run.status),
                f"{run.total_databases_processed:,}/{run.total_databases_found:,}",
                count(run.total_records_processed), rate(run.records_per_second),
                per_cent(run.ipfs_success_rate), count(run.total_sql_errors),
                count(run.total_validation_errors), (run.error_summary or "")[:200],
            ]
            for run in runs
        ],
    )  # fmt: skip
    say()
    line = f"{rts.counted(trend.runs, 'run')}: {trend.completed} completed, {trend.failed} failed"
    line += f", {trend.interrupted} interrupted, {trend.running} under way."
    if trend.median_records_per_second is not None:
        line += f" Median {trend.median_records_per_second:,.0f} records/s {spark(trend.rates)}"
    say(line)
