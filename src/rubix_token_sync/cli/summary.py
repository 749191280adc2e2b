"""What a person reads at the end of a run."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from rubix_token_sync.cli.console import stdout_console
from rubix_token_sync.runs.result import RunResult

__all__ = ["print_summary"]

_LISTED = 40


def print_summary(outcome: RunResult, report: dict[str, Any]) -> None:
    """A table of the databases that were touched and a few lines of totals, on stdout."""
    console = stdout_console()
    touched = [d for d in outcome.databases if d.status != "current"]
    if touched:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("Node")
        for name in ("Records", "New", "Changed", "Gone", "Content", "Invalid"):
            table.add_column(name, justify="right")
        table.add_column("Status")
        for d in touched[:_LISTED]:
            # Names come from disk: Text keeps rich from reading markup in them.
            cells = [d.records, d.inserted, d.updated, d.vanished, d.ipfs_success]
            status = d.status if d.status == "processed" else f"{d.status}: {d.reason}"
            table.add_row(
                Text(d.node_name),
                *(f"{cell:,}" for cell in cells),
                f"{d.validation_errors:,}",
                Text(status, style="" if d.status == "processed" else "red"),
            )
        console.print(table)
        if len(touched) > _LISTED:
            console.print(f"… and {len(touched) - _LISTED} more; all of them are in the report.")
        console.print()
    counters = outcome.counters
    console.print(
        f"{outcome.status.title()} in {outcome.seconds:.1f} s: "
        f"{counters.databases_processed} databases processed, "
        f"{counters.databases_current} unchanged, {counters.databases_failed} failed."
    )
    if counters.records_processed:
        console.print(
            f"{counters.records_processed:,} records "
            f"({report['records_per_second']:,.0f} a second), content of "
            f"{counters.ipfs_success:,} proven ({report['ipfs_success_rate']} %)."
        )
    for code, count in report["content_failures"].items():
        console.print(f"  {count:,} without content: {code}")
    console.print(Text(f"Target: {outcome.place}"))
    if "report_file" in report:
        console.print(Text(f"Report: {report['report_file']}"))
