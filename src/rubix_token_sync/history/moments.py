"""Moments on the axis of history: sets of runs, which is what a target held after them.

Numbers are given out when runs begin, and runs of several machines end in any order.  So a
moment is not one number but a set of them, and a cursor into the changes is such a set, too:
``120`` is every run up to 120, ``120,122-130`` all of those but 121, which had not ended.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.targets.sql.tables import Tables
from rubix_token_sync.text import parse_age

__all__ = ["Runs", "WhenText", "ended_runs", "parse_when", "runs_until"]

_NUMBERS: Final = re.compile(r"\d{1,18}(?:,\d{1,18}(?:-\d{1,18})?)*")
_UNUSED_AFTER: Final = timedelta(hours=1)
"""A number without a run that is older belongs to nobody; a younger one may be on its way."""

WhenText = int | str | timedelta | datetime
"""A run, a cursor, an age, or a time (UTC)."""


@dataclass(frozen=True)
class Runs:
    """Some runs: all up to ``upto``, and those of ``more`` (first and last), in order."""

    upto: int
    more: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        parts = [f"{low}-{high}" if high > low else str(low) for low, high in self.more]
        return ",".join([str(self.upto), *parts])

    @property
    def last(self) -> int:
        """The highest number."""
        return self.more[-1][1] if self.more else self.upto

    def __contains__(self, number: int) -> bool:
        return any(low <= number <= high for low, high in self._parts())

    def holds(self, column: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
        """The number in a column is one of them; 0, before history began, always is."""
        return sa.or_(column <= self.upto, *(column.between(*pair) for pair in self.more))

    def cut(self, last: int) -> Runs:
        """Those up to ``last``."""
        return _of([(low, min(high, last)) for low, high in self._parts() if low <= last])

    def __or__(self, other: Runs) -> Runs:
        return _of([*self._parts(), *other._parts()])

    def _parts(self) -> list[tuple[int, int]]:
        return [(0, self.upto), *self.more]


def _of(parts: list[tuple[int, int]]) -> Runs:
    joined = [(0, 0)]
    for low, high in sorted(parts):
        if low <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(joined[-1][1], high)
        else:
            joined.append((low, high))
    return Runs(joined[0][1], tuple(joined[1:]))


def parse_when(text: str) -> Runs | datetime | timedelta | None:
    """A run or cursor, an age, a date or time (UTC); None: it is none of these."""
    if _NUMBERS.fullmatch(text):
        first, *rest = text.split(",")
        pairs = [part.partition("-") for part in rest]
        more = tuple((int(low), int(high or low)) for low, _, high in pairs)
        edges = [int(first), *(edge for pair in more for edge in pair)]
        return Runs(int(first), more) if edges == sorted(edges) else None
    with contextlib.suppress(ValueError):
        return parse_age(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found


def runs_until(conn: sa.Connection, tables: Tables, when: WhenText, now: datetime) -> Runs:
    """The runs that a moment of that name has behind it.

    Raises:
        SettingsError: it names no moment, or one to come.
    """
    moment: Runs | datetime | timedelta | None
    if isinstance(when, int):
        moment = Runs(when)
    else:
        moment = parse_when(when) if isinstance(when, str) else when
    if isinstance(moment, timedelta):
        moment = now - moment
    if moment is None:
        raise SettingsError(
            f"{when!r} is not a moment.",
            code="not_a_moment",
            remedy="Write a run's number or a cursor (120), an age (24h, 7d) or a time in UTC "
            "(2026-11-24, 2026-11-24T06:00).",
        )
    if isinstance(moment, datetime):
        return ended_runs(conn, tables, moment, now)
    newest = conn.execute(sa.select(sa.func.max(tables.runs.c.number))).scalar() or 0
    if moment.last > newest:
        raise SettingsError(
            f"No run has the number {moment.last}: the newest one is {newest}.",
            code="no_such_run",
            remedy="`rubix-token-sync changes` shows the numbers of runs.",
        )
    return moment


def ended_runs(conn: sa.Connection, tables: Tables, when: datetime, now: datetime) -> Runs:
    """The runs that had ended then."""
    runs = tables.runs.c
    last = conn.execute(sa.select(sa.func.max(runs.number)).where(runs.ended_at <= when)).scalar()
    if last is None:
        return Runs(0)
    not_ended = sa.select(runs.number).where(
        runs.number < last, sa.or_(runs.ended_at.is_(None), runs.ended_at > when)
    )
    # To its end: a connection to SQL Server has one result at a time.
    open_ones = conn.execute(not_ended).scalars().all()
    before = sa.func.lag(runs.number, 1, 0).over(order_by=runs.number)
    numbered = sa.select(runs.number, runs.began_at, before.label("before")).subquery().c
    unused = conn.execute(
        sa.select(numbered.before, numbered.number).where(
            numbered.number > numbered.before + 1,
            numbered.number <= last,
            numbered.began_at > now - _UNUSED_AFTER,
        )
    )
    holes = [(number, number) for number in open_ones]
    holes += [(low + 1, high - 1) for low, high in unused]
    return _without(last, holes)


def _without(last: int, holes: Iterable[tuple[int, int]]) -> Runs:
    parts: list[tuple[int, int]] = []
    start = 0
    for low, high in sorted(holes):
        parts.append((start, low - 1))
        start = high + 1
    return _of([(low, high) for low, high in (*parts, (start, last)) if high >= low])
