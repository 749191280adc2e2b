"""How a fleet's run looks: live on a terminal, and its report when it has ended."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import rubix_token_sync as rts
from rubix_token_sync.cli.output import (
    Cell,
    Column,
    by_severity,
    count,
    length,
    per_cent,
    print_table,
    say,
    state,
)
from rubix_token_sync.cli.terminal import print_problems

if TYPE_CHECKING:
    from rich.console import RenderableType

    from rubix_token_sync.cluster import FleetResult, HostOutcome, HostView

__all__ = ["document_of", "show_fleet", "watching"]

_LOG = logging.getLogger(__name__)
_LINE_SECONDS: Final = 30.0
_MOST_ROWS: Final = 40
_ORDER: Final = ("lost", "watched", "working", "waiting", "starting", "ended")
"""Of the rows on a terminal: who needs a look comes first."""
_STYLES: Final = {"lost": "31", "watched": "33", "absent": "31", "left_out": "31"}
_SUMS: Final = (
    "databases", "databases_unchanged", "databases_failed", "records", "inserted", "updated",
    "vanished", "differences",
)  # fmt: skip

Views = Sequence["HostView"]


@contextlib.contextmanager
def watching(*, live: bool) -> Iterator[Callable[[Views], None]]:
    """What shows the hosts while they work: a table on a terminal, else a line now and then."""
    if not live:
        yield _Lines()
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    views: list[HostView] = []

    def update(now: Views) -> None:
        views[:] = now

    def draw() -> RenderableType:
        return _live_table(views)

    with (
        Live(get_renderable=draw, console=console, refresh_per_second=4, transient=True),
        rts.log_through(sys.stderr),
    ):
        yield update


class _Lines:
    """A line of the log, every half minute."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, views: Views) -> None:
        if time.monotonic() - self._last < _LINE_SECONDS:
            return
        self._last = time.monotonic()
        _LOG.info("%s", _in_sum(views))


def _in_sum(views: Views) -> str:
    states = Counter(view.state for view in views)
    parts = ", ".join(f"{states[name]:,} {name}" for name in reversed(_ORDER) if states[name])
    records = sum(view.progress.records for view in views)
    return f"{rts.counted(len(views), 'host')}: {parts}; {rts.counted(records, 'record')} so far"


def _live_table(views: Views) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, title_justify="left")
    for title, right in (
        ("Source", False), ("Host", False), ("State", False), ("Done", True),
        ("Databases", True), ("Records", True), ("Records/s", True),
    ):  # fmt: skip
        table.add_column(title, justify="right" if right else "left", no_wrap=True)
    rows = sorted(views, key=lambda view: (_ORDER.index(view.state), view.member.source))
    for view in rows[:_MOST_ROWS]:
        now = view.progress
        speed = now.records / now.seconds if now.seconds else 0.0
        share = 1.0 if view.report is not None else now.share
        done = now.databases_done if view.report is None else view.report.databases
        records = now.records if view.report is None else view.report.records
        cells = (
            view.member.source, view.member.host, view.state, per_cent(share * 100),
            count(done), count(records), f"{speed:,.0f}" if view.report is None else "",
        )  # fmt: skip
        table.add_row(*(Text(rts.shown(cell)) for cell in cells))
    if len(rows) > _MOST_ROWS:
        table.add_row(f"… and {len(rows) - _MOST_ROWS:,} more")
    table.caption = Text(_in_sum(views)) if views else Text("Waiting for hosts …")
    table.caption_justify = "left"
    return table


def document_of(result: FleetResult) -> dict[str, Any]:
    """For ``--json``; docs/JSON.md has its keys."""
    return {
        "ok": result.ok,
        "exit_code": result.exit_code,
        "command": result.command,
        "run_id": result.run,
        "scheduler": result.scheduler,
        "target": result.place,
        "started_at": result.started_at,
        "duration_seconds": result.seconds,
        "hosts": result.hosts,
        "sums": {name: sum(getattr(host, name) for host in result.hosts) for name in _SUMS},
        "records_held": None
        if result.held is None
        else sum(source.record_count for source in result.held.sources),
        "audit": result.audit,
        "problems": result.problems,
    }


def show_fleet(result: FleetResult) -> None:
    """The report of the whole fleet: hosts, sums, problems."""
    if result.hosts and result.command != "audit":
        _table(result)
        say()
    states = Counter(host.state for host in result.hosts)
    parts = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in states.items())
    say(f"{rts.counted(len(result.hosts), 'host')} in {length(result.seconds)}: {parts or 'none'}.")
    sums = document_of(result)["sums"]
    if result.command == "sync":
        say(
            f"{rts.counted(sums['databases'], 'database')} processed, "
            f"{sums['databases_unchanged']:,} unchanged, {sums['databases_failed']:,} failed; "
            f"{rts.counted(sums['records'], 'record')} processed, {sums['inserted']:,} new."
        )
    if result.command == "verify":
        say(
            f"{rts.counted(sums['records'], 'record')} of "
            f"{rts.counted(sums['databases'], 'database')} compared: "
            f"{rts.counted(sums['differences'], 'difference')}."
        )
    if result.held is not None:
        held = sum(source.record_count for source in result.held.sources)
        say(f"The target holds {rts.counted(held, 'record')} of these sources.")
    if result.audit:
        severities = dict(result.audit.get("open", {}))
        shown = [by_severity(int(severities.get(s, 0)), s) for s in ("error", "warning", "info")]
        say(f"Audit {result.audit.get('audit')}: {', '.join(shown)} open.")
    print_problems(result.problems)
    if result.place:
        say(f"Target: {result.place}")


def _table(result: FleetResult) -> None:
    verifies = result.command == "verify"
    columns = [
        Column("Source"), Column("Host", 3), Column("State"), Column("Databases", 2, right=True),
        Column("Failed", 1, right=True), Column("Records", right=True),
        *(
            [Column("Different", right=True)]
            if verifies
            else [Column("New", 4, right=True), Column("Changed", 4, right=True),
                  Column("Gone", 4, right=True)]
        ),
        Column("Time", 5, right=True),
    ]  # fmt: skip
    print_table(columns, [_row(host, verifies=verifies) for host in result.hosts])


def _row(host: HostOutcome, *, verifies: bool) -> list[str | Cell]:
    said = host.state.replace("_", " ")
    if host.read_from == "target":
        said += " (target)"
    if host.code is not None:
        said += f": {host.code}"
    style = _STYLES.get(host.state) or state(host.state.upper()).style
    seen = host.read_from is not None
    numbers = [host.databases + host.databases_unchanged, host.databases_failed, host.records]
    numbers += [host.differences] if verifies else [host.inserted, host.updated, host.vanished]
    return [
        host.source,
        host.host or "",
        Cell(said, style),
        *(count(number) if seen else "" for number in numbers),
        length(host.seconds),
    ]
