"""The round under way: runs of several machines that overlap in time.

The target knows sessions, not who asked for them: one command for the whole fleet and timers on
each machine leave the same traces.  What belongs together is what ran at the same time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rubix_token_sync.monitor.answers import Answers
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.monitor.runs import STUCK_SECONDS, RunRow, list_runs

__all__ = ["Round", "read_round", "round_of"]

_MOST_RUNS: Final = 1_000
_LONGEST: Final = timedelta(days=2)
"""Runs that began earlier and have ended are of another round."""
_ORDER: Final = ("STUCK", "RUNNING", "FAILED", "INTERRUPTED", "COMPLETED")
"""Who needs a look comes first."""


@dataclass(frozen=True)
class Round:
    """What machines did, and do, at the same time."""

    began_at: datetime
    """By the target's clock, UTC."""
    runs: list[RunRow]
    """The newest of each machine, those first that need a look."""

    @property
    def states(self) -> Counter[str]:
        """How many runs are in each state; ``STUCK`` is RUNNING and silent."""
        return Counter(_state(run) for run in self.runs)

    @property
    def records(self) -> int:
        """Processed so far."""
        return sum(run.total_records_processed for run in self.runs)

    @property
    def records_per_second(self) -> float:
        """Of those that work now."""
        working = (run for run in self.runs if _state(run) == "RUNNING")
        return sum(run.records_per_second or 0.0 for run in working)


def read_round(
    store: Answers, now: datetime, *, stuck_seconds: float = STUCK_SECONDS
) -> Round | None:
    """The round under way; None: no machine works."""
    asked = Filters(statuses=("RUNNING",), limit=_MOST_RUNS)
    running = list_runs(store, asked, now, stuck_seconds=stuck_seconds)
    if not running:
        return None
    recent = list_runs(store, Filters(since=_LONGEST, limit=_MOST_RUNS), now)
    return round_of([*running, *(run for run in recent if not run.running)], now)


def round_of(runs: Iterable[RunRow], now: datetime) -> Round | None:
    """What overlaps with the runs under way, and with what overlaps with those, and so on.

    A silent run is shown and takes nothing else in: it may have died weeks ago.
    """
    everything = list(runs)
    found = [run for run in everything if run.running]
    if not found:
        return None
    began = min((r.start_time for r in found if r.start_time and not r.stuck), default=now)
    ended = [(run.end_time, run) for run in everything if run.end_time and not run.running]
    for end, run in sorted(ended, key=lambda pair: pair[0], reverse=True):
        if end < began:
            break
        found.append(run)
        began = min(began, run.start_time or end)
    newest: dict[str, RunRow] = {}
    for run in sorted(found, key=lambda one: one.start_time or now):
        newest[run.source_ip] = run
    rows = sorted(newest.values(), key=lambda run: (_ORDER.index(_state(run)), run.source_ip))
    return Round(began, rows)


def _state(run: RunRow) -> str:
    state = "STUCK" if run.stuck else run.status
    return state if state in _ORDER else "FAILED"
