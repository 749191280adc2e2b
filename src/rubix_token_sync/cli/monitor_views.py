"""What a person sees of `status`, `sessions`, `databases` and `errors`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from rubix_token_sync.cli.tables import (
    ago,
    console,
    count,
    length,
    new_table,
    per_cent,
    plain,
    shown_rate,
    spark,
)
from rubix_token_sync.monitor import DatabaseRow, FailureReport, RunRow, Status, Trend
from rubix_token_sync.monitor.failures import Reason

__all__ = ["show_databases", "show_failures", "show_runs", "show_status"]

_STYLES = {
    "COMPLETED": "green",
    "RUNNING": "cyan",
    "FAILED": "red",
    "INTERRUPTED": "yellow",
    "STUCK": "bold red",
    "current": "green",
    "failed": "red",
    "overdue": "yellow",
}
_LONGEST = 200


def _state(text: str) -> Text:
    return Text(text, style=_STYLES.get(text, ""))


def _run_state(run: RunRow) -> Text:
    return _state("STUCK" if run.stuck else run.status)


def _when(value: datetime | None) -> str:
    return "" if value is None else value.strftime("%Y-%m-%d %H:%M:%S")


def _short(text: str | None) -> Text:
    text = text or ""
    return plain(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


def show_status(status: Status, place: str) -> None:
    """Problems first, then runs under way, then every machine."""
    out = console()
    out.print(plain(f"{place} at {_when(status.server_time)} UTC"))
    out.print()
    if status.ok:
        out.print(Text("All is well.", style="green"))
    for problem in status.problems:
        out.print(Text("✗ ", style="red") + _short(problem.message))
    if status.running:
        out.print()
        _print_running(status.running)
    if status.sources:
        out.print()
        _print_sources(status)


def _print_running(running: Sequence[RunRow]) -> None:
    table = new_table(
        "Running on", "Source", "Process", "Progress", "Records", "Rate", "Began", "Heartbeat", "",
        right=("Progress", "Records", "Rate"),
    )  # fmt: skip
    for run in running:
        table.add_row(
            plain(run.host),
            plain(run.source_ip),
            plain(run.pid),
            per_cent(run.progress_percent),
            count(run.total_records_processed),
            shown_rate(run.records_per_second),
            ago(run.duration_seconds),
            ago(run.heartbeat_age_seconds),
            _run_state(run),
        )
    console().print(table)


def _print_sources(status: Status) -> None:
    table = new_table(
        "Source", "Last run", "", "Last success", "Databases", "Failed", "Records", "Content",
        "Invalid", right=("Databases", "Failed", "Records", "Content", "Invalid"),
    )  # fmt: skip
    for source in status.sources:
        last = source.last_run
        table.add_row(
            plain(source.source_ip),
            _when(last.start_time) if last else "",
            _run_state(last) if last else Text(""),
            ago(source.age_seconds),
            count(source.databases),
            plain(count(source.databases_failed), "red" if source.databases_failed else ""),
            count(source.record_count),
            per_cent(source.ipfs_success_rate),
            count(source.validation_error_count),
        )
    console().print(table)


def show_runs(runs: Sequence[RunRow], told: Trend) -> None:
    """One line a run, then what they say together."""
    out = console()
    if not runs:
        out.print("No runs.")
        return
    table = new_table(
        "Session", "Source", "Command", "Began (UTC)", "Took", "", "Databases", "Records", "Rate",
        "Content", "SQL errors", "Invalid", "Summary",
        right=("Databases", "Records", "Rate", "Content", "SQL errors", "Invalid"),
    )  # fmt: skip
    for run in runs:
        table.add_row(
            plain(run.session_id[:8]),
            plain(run.source_ip),
            plain(run.command),
            _when(run.start_time),
            length(run.duration_seconds),
            _run_state(run),
            f"{run.total_databases_processed}/{run.total_databases_found}",
            count(run.total_records_processed),
            shown_rate(run.records_per_second),
            per_cent(run.ipfs_success_rate),
            count(run.total_sql_errors),
            count(run.total_validation_errors),
            _short(run.error_summary),
        )
    out.print(table)
    out.print()
    line = f"{told.runs} runs: {told.completed} completed, {told.failed} failed"
    line += f", {told.interrupted} interrupted, {told.running} under way."
    if told.median_records_per_second is not None:
        line += f" Median {told.median_records_per_second:,.0f} records a second"
        line += f" {spark(told.rates)}"
    out.print(line)


def show_databases(rows: Sequence[DatabaseRow]) -> None:
    """One line a database, then why content is missing and what failed."""
    out = console()
    if not rows:
        out.print("No databases.")
        return
    table = new_table(
        "Source", "Node", "Records", "Content", "Missing", "Invalid", "Rejected", "Last success",
        "", "Why", right=("Records", "Content", "Missing", "Invalid", "Rejected"),
    )  # fmt: skip
    for row in rows:
        reasons = ", ".join(f"{code} {n:,}" for code, n in row.content_failures.items())
        why = row.error.message if row.error is not None else reasons
        table.add_row(
            plain(row.source_ip),
            plain(row.node_name),
            count(row.record_count),
            per_cent(row.ipfs_success_rate),
            count(row.ipfs_fail_count),
            count(row.validation_error_count),
            count(row.rejected_count),
            ago(row.age_seconds),
            _state(row.state),
            _short(why),
        )
    out.print(table)
    out.print()
    records = sum(row.record_count for row in rows)
    failed = sum(row.state == "failed" for row in rows)
    out.print(f"{len(rows)} databases, {failed} failed, {records:,} records.")


def show_failures(found: FailureReport) -> None:
    """The guide's error summary, then each kind of error with an example."""
    out = console()
    if not (found.nodes or found.content or found.validation or found.events):
        out.print("No errors.")
        return
    if found.nodes:
        table = new_table(
            "Source", "Node", "Records", "Content", "Missing", "Invalid",
            right=("Records", "Content", "Missing", "Invalid"),
        )  # fmt: skip
        for node in found.nodes:
            table.add_row(
                plain(node.source_ip),
                plain(node.node_name),
                count(node.total_records),
                count(node.ipfs_success),
                count(node.ipfs_failures),
                count(node.validation_errors),
            )
        out.print(table)
    for title, reasons in (
        ("Records without content", found.content),
        ("Records with validation errors", found.validation),
        ("Events of runs", found.events),
    ):
        if reasons:
            out.print()
            _print_reasons(title, reasons)


def _print_reasons(title: str, reasons: Sequence[Reason]) -> None:
    table = new_table(title, "Count", "Last (UTC)", "Node", "Example", right=("Count",))
    for reason in reasons:
        example = reason.example
        token = f"{_short(example.token_id)}: " if example and example.token_id else ""
        table.add_row(
            plain(f"{reason.category}/{reason.code}"),
            count(reason.count),
            _when(reason.last_at),
            plain(example.node_name if example else ""),
            plain(token + _sentence(reason) if example else ""),
        )
    console().print(table)


def _sentence(reason: Reason) -> str:
    """The example's message without what the table says already."""
    message = reason.example.message if reason.example else ""
    if reason.category == "validation" and message.startswith("["):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            found = [e for e in json.loads(message) if e["code"] == reason.code]
            message = " ".join(str(entry["message"]) for entry in found)
    return str(_short(message.removeprefix(f"{reason.code}: ")))
