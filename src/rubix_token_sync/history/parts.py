"""Where changes are found: old versions that runs ended, and records that they added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.history.moments import Runs
from rubix_token_sync.records.schema import RECORDS
from rubix_token_sync.targets.sql.history import VANISHED
from rubix_token_sync.targets.sql.tables import Tables

__all__ = [
    "REPLACED",
    "SPARE_IDS",
    "Axis",
    "ChangeFilters",
    "Part",
    "Parts",
    "among",
    "is_first",
    "limited",
    "unpruned",
    "what_changed",
]

SPARE_IDS: Final = 1_000
"""`check` stores a few records and removes them again, which gives SQLite their ids back."""

REPLACED: Final = ("records_changed", "records_vanished", "records_returned")
"""What together is a run's old versions, as kept with it."""


@dataclass(frozen=True)
class ChangeFilters:
    """Empty means: everything."""

    sources: Sequence[str] = ()
    nodes: Sequence[str] = ()
    databases: Sequence[str] = ()
    columns: frozenset[str] = frozenset()
    """Only changes of one of these columns; what is new or gone is none."""


def unpruned(conn: sa.Connection, tables: Tables, runs: Runs) -> None:
    """
    Raises:
        SettingsError: retention removed versions that runs after these ended.
    """
    c = tables.runs.c
    query = sa.select(sa.func.max(c.number)).where(c.pruned_at.is_not(None), ~runs.holds(c.number))
    last = conn.execute(query).scalar()
    if last is not None:
        raise SettingsError(
            f"History before the end of run {last} was removed.",
            code="history_pruned",
            remedy=f"Ask for run {last} or a later one; `history prune` decides how much is kept.",
        )


def among(run: sa.ColumnElement[int], since: Runs, until: Runs) -> sa.ColumnElement[bool]:
    """The run is one of those that ``until`` has and ``since`` has not."""
    return sa.and_(run.between(since.upto + 1, until.last), until.holds(run), ~since.holds(run))


def is_first(history: sa.Table, version: sa.FromClause) -> sa.ColumnElement[bool]:
    """No older version of its record was replaced by this one: a run added it."""
    before = history.alias("before").c
    return ~sa.exists().where(
        before.record_key == version.c.record_key, before.ended_run == version.c.since_run
    )


@dataclass(frozen=True)
class Part:
    """One of the three places where changes are found."""

    table: sa.FromClause
    run: sa.ColumnElement[int]
    asked: sa.ColumnElement[bool]
    version: sa.FromClause
    """Where the values are: those before a change, or those of a new record."""


@dataclass(frozen=True)
class Axis:
    """The runs after a moment, as far as finding their records takes."""

    since: Runs
    until: Runs
    rows: Sequence[sa.Row[Any]]

    @classmethod
    def read(cls, conn: sa.Connection, tables: Tables, since: Runs, until: Runs) -> Axis:
        """
        Raises:
            SettingsError: history before them was removed.
        """
        unpruned(conn, tables, since)
        c = tables.runs.c
        names = (c.number, c.began_at, c.ended_at, c.last_record_id, *(c[n] for n in REPLACED))
        query = sa.select(*names).where(c.number > since.upto).order_by(c.number)
        return cls(since, until, conn.execute(query).all())

    @property
    def ended(self) -> dict[int, datetime | None]:
        """When each ended."""
        return {row.number: row.ended_at for row in self.rows}

    @property
    def asked(self) -> list[int]:
        """The numbers that ``until`` has and ``since`` has not."""
        numbers = (row.number for row in self.rows)
        return [n for n in numbers if n in self.until and n not in self.since]

    def within(self, most: int, newest_id: int) -> int:
        """The first run from which on they replaced and added ``most`` records each.

        0: all of them.  How many a run replaced is kept with it.
        """
        left = most
        for row in reversed(self.rows):
            left -= sum(row._mapping[name] for name in REPLACED)
            if left < 0 or newest_id - row.last_record_id > most:
                return int(row.number) + 1
        return 0

    def most(self, runs: Sequence[int], newest_id: int) -> int:
        """So many records at most did these runs replace and add."""
        chosen = [row for row in self.rows if row.number in runs]
        replaced = sum(row._mapping[name] for row in chosen for name in REPLACED)
        last_id = self.last_id(runs)
        added = (newest_id if last_id is None else last_id) - min(r.last_record_id for r in chosen)
        return int(replaced + max(0, added))

    def first_id(self, run: int = 0) -> int:
        """What this run and later ones added has higher ids."""
        found = [row.last_record_id for row in self.rows if row.number >= run]
        return min(found, default=0) - SPARE_IDS

    def last_id(self, runs: Sequence[int]) -> int | None:
        """What these runs added has no higher id; None: not known yet."""
        ends = [end for number, end in self.ended.items() if number in runs]
        known = [end for end in ends if end is not None]
        if len(known) < len(ends):
            return None
        later = (row.last_record_id for row in self.rows if row.began_at > max(known))
        return min(later, default=None)


class Parts:
    """Changes of the runs that ``until`` has and ``since`` has not."""

    def __init__(
        self, tables: Tables, since: Runs, until: Runs, first_id: int, last_id: int | None = None
    ) -> None:
        stored = tables.stored[RECORDS.name]
        assert stored.history is not None
        self._since, self._until = since, until
        self._first_id, self._last_id = first_id, last_id
        self.records, self.history = stored.table, stored.history

    def _among(self, run: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
        return among(run, self._since, self._until)

    @property
    def _old(self) -> sa.FromClause:
        keys = self.records.c.record_key == self.history.c.record_key
        return self.history.join(self.records, keys)

    @property
    def replaced(self) -> Part:
        """Old versions that these runs ended."""
        ended = self.history.c.ended_run
        return Part(self._old, ended, self._among(ended), self.history)

    @property
    def added(self) -> tuple[Part, Part]:
        """Records that these runs added: those that are as they were, and those that are not."""
        r, h = self.records.c, self.history.c
        present = sa.and_(
            r.id > self._first_id,
            *([] if self._last_id is None else [r.id <= self._last_id]),
            self._among(r.since_run),
            is_first(self.history, self.records),
        )
        old = sa.and_(
            h.ended_run > self._since.upto,
            self._among(h.since_run),
            is_first(self.history, self.history),
        )
        return (
            Part(self.records, r.since_run, present, self.records),
            Part(self._old, h.since_run, old, self.history),
        )


def limited(
    filters: ChangeFilters, records: sa.FromClause, version: sa.FromClause
) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    for column, wanted in (
        (records.c.source_ip, filters.sources),
        (version.c.node_name, filters.nodes),
        (records.c.db_path, [path[:500] for path in filters.databases]),
    ):
        if wanted:
            conditions.append(column.in_(wanted))
    return conditions


def what_changed(changed: str, here: bool) -> tuple[list[str], str]:
    """The columns that the end of a version changed, and what that was; see `Change.what`."""
    columns = [name for name in changed.split(",") if name]
    if VANISHED not in columns:
        return columns, "changed"
    columns.remove(VANISHED)
    return columns, "vanished" if here else "returned"
