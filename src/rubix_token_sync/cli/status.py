"""`status`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import (
    Judging,
    Looking,
    common_options,
    csv_option,
    judging_options,
    max_age_option,
    node_option,
    source_option,
    stuck_after_option,
    takes,
)
from rubix_token_sync.cli.output import (
    Cell,
    Column,
    ago,
    answer,
    by_severity,
    count,
    per_cent,
    print_table,
    rate,
    say,
    state,
    when,
)
from rubix_token_sync.cli.terminal import pausing, print_problems
from rubix_token_sync.documents import status_document

if TYPE_CHECKING:
    from rubix_token_sync import Configuration, OpenFindings, Status, TargetReader

__all__ = ["status"]


@dataclass(frozen=True, kw_only=True)
class StatusArguments(Looking, Judging):
    """Options of `status`."""

    nodes: tuple[str, ...]
    max_age: timedelta | None
    stuck_after: timedelta
    alert: bool
    watch: bool
    interval: float


@click.command()
@common_options
@judging_options
@source_option
@node_option
@max_age_option
@stuck_after_option
@click.option(
    "--alert",
    is_flag=True,
    help="Also send to alert_urls what no run can report itself (stuck, stopped, overdue).",
)
@click.option("--watch", is_flag=True, help="Refresh until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks of --watch.",
)
@csv_option
@takes(StatusArguments)
def status(arguments: StatusArguments) -> int:
    """Show what is wrong, and the runs under way on all machines, stuck ones included.

    Exit codes: 0 all is well, or there are warnings only; 1 something is wrong: a
    run is stuck, the last run of a machine failed or was interrupted, a database
    failed or was not reached, a directory could not be read, content is missing
    that a cure would bring, or (with --max-age) a node is overdue; 2 usage; 3 the
    target cannot be reached.  With --csv the list of problems is printed.
    """
    if arguments.alert and (arguments.sources or arguments.nodes or arguments.watch):
        raise click.UsageError(
            "--alert covers everything: it cannot be combined with --source, --node or --watch."
        )
    if arguments.watch and (arguments.as_json or arguments.as_csv):
        raise click.UsageError("--watch is for people: it cannot be combined with --json or --csv.")
    configuration = arguments.configured()
    max_age = arguments.max_age
    hours = configuration.settings.alert_max_age_hours
    if arguments.alert and max_age is None and hours is not None:
        max_age = timedelta(hours=hours)
    with rts.open_target(configuration=configuration) as target:
        target.require_known(sources=arguments.sources, nodes=arguments.nodes)

        def ask() -> Status:
            return target.status(
                sources=arguments.sources,
                nodes=arguments.nodes,
                max_age=max_age,
                stuck_after=arguments.stuck_after,
            )

        if arguments.watch:
            return _watch(target, ask, arguments.interval)
        found = ask()
        return _answer(arguments, configuration, target, found)


def _answer(
    arguments: StatusArguments, configuration: Configuration, target: TargetReader, found: Status
) -> int:
    if arguments.alert:
        rts.send_status_alerts(configuration, found)
    answer(
        as_json=arguments.as_json,
        as_csv=arguments.as_csv,
        quiet=arguments.quiet and found.ok,
        document=status_document(target, found),
        rows=(rts.Problem, found.problems),
        table=lambda: (
            print_problems(found.problems) if arguments.quiet else _show(found, target.place)
        ),
    )
    return found.exit_code


def _watch(target: TargetReader, ask: Callable[[], Status], interval: float) -> int:
    with pausing() as asked:
        while True:
            found = ask()
            if sys.stdout.isatty():
                sys.stdout.write("\x1b[H\x1b[2J")
            _show(found, target.place)
            sys.stdout.flush()
            if asked(interval):
                return 0


def _show(found: Status, place: str) -> None:
    """Problems first, then runs under way, then every machine."""
    say(f"{place} at {when(found.server_time)} UTC")
    say()
    if not found.problems:
        say("All is well.", "32")
    print_problems(found.problems)
    if found.sources:
        _show_audit(found.audit)
    if found.running:
        say()
        print_table(
            [
                Column("Running on"), Column("Source", 3), Column("Process", 4),
                Column("Progress", right=True), Column("Records", 1, right=True),
                Column("Rate", 2, right=True), Column("Began", 5), Column("Heartbeat", 1),
                Column(""),
            ],
            [
                [
                    run.host or "", run.source_ip, str(run.pid or ""),
                    per_cent(run.progress_percent), count(run.total_records_processed),
                    rate(run.records_per_second), ago(run.duration_seconds),
                    ago(run.heartbeat_age_seconds), state("STUCK" if run.stuck else run.status),
                ]
                for run in found.running
            ],
        )  # fmt: skip
    if found.sources:
        say()
        _show_sources(found)
        if len(found.records_by_kind) > 1:
            say(f"Records: {rts.tokens_by_kind(found.records_by_kind)}.")
        _show_changes(found)


def _show_changes(found: Status) -> None:
    """What the last sync of each machine changed, with what is usual."""
    for source in found.sources:
        changes = source.changes
        if changes is None:
            continue
        parts = []
        for name in ("transfers", "statuses", "new", "vanished", "returned"):
            number, usual = getattr(changes, name), changes.usual.get(name)
            if number or usual:
                parts.append(f"{name} {number:,}" + ("" if usual is None else f" ({usual:,.0f})"))
        if parts:
            beside = " (usual)" if changes.usual else ""
            say(f"Changed by the last sync of {source.source_ip}{beside}: {', '.join(parts)}")


def _show_audit(audit: OpenFindings | None) -> None:
    if audit is None:
        say("No audit has run yet: `rubix-token-sync audit`.")
        return
    parts = [
        by_severity(number, severity)
        for severity, number in (
            ("error", audit.errors), ("warning", audit.warnings), ("info", audit.infos),
        )
        if number
    ]  # fmt: skip
    open_ones = (
        f"open: {', '.join(parts)}; see `rubix-token-sync findings`" if parts else "nothing open"
    )
    failed = "" if audit.complete else "; a rule failed"
    say(f"Audit {audit.last_audit_number} at {when(audit.last_audit_at)} UTC: {open_ones}{failed}.")
    if audit.unaudited_syncs:
        syncs = rts.counted(audit.unaudited_syncs, "sync")
        say(f"What {syncs} changed since then was not audited.")


def _show_sources(found: Status) -> None:
    rows = []
    for source in found.sources:
        last = source.last_run
        rows.append(
            [
                source.source_ip,
                when(last.start_time) if last else "",
                state("STUCK" if last.stuck else last.status) if last else "",
                ago(source.age_seconds),
                count(source.databases),
                Cell(count(source.databases_failed), "31" if source.databases_failed else ""),
                Cell(count(source.databases_pending), "33" if source.databases_pending else ""),
                count(source.record_count),
                per_cent(source.ipfs_success_rate),
                count(source.validation_error_count),
            ]
        )
    print_table(
        [
            Column("Source"), Column("Last run", 5), Column(""), Column("Last success", 4),
            Column("Databases", 3, right=True), Column("Failed", right=True),
            Column("Pending", 1, right=True), Column("Records", right=True),
            Column("Content", 1, right=True), Column("Invalid", 6, right=True),
        ],
        rows,
    )  # fmt: skip
