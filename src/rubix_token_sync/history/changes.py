"""What runs changed: every change with both of its sides, and counts of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.history.moments import Runs
from rubix_token_sync.records.schema import RECORDS
from rubix_token_sync.targets.sql.history import VANISHED, was_there
from rubix_token_sync.targets.sql.tables import Tables

__all__ = [
    "Change",
    "ChangeCounts",
    "ChangeFilters",
    "count_changes",
    "read_changes",
    "replaced_by",
    "unpruned",
]

_COLUMNS: Final = tuple(column.name for column in RECORDS.told_apart)
_ROWS: Final = 2_000
_NEW: Final = 2
"""Stands where other changes say whether the record was there before: 1 or 0."""
_SPARE_IDS: Final = 1_000
"""`check` stores a few records and removes them again, which gives SQLite their ids back."""


@dataclass(frozen=True)
class ChangeFilters:
    """Empty means: everything."""

    sources: Sequence[str] = ()
    nodes: Sequence[str] = ()
    databases: Sequence[str] = ()
    columns: frozenset[str] = frozenset()
    """Only changes of one of these columns; what is new or gone is none."""


@dataclass(frozen=True)
class Change:
    """What a run did to a record."""

    run: int
    at: datetime | None
    """When that run ended, by the target's clock."""
    what: str
    """``new``, ``changed``, ``vanished`` or ``returned``."""
    source_ip: str
    node_name: str
    db_path: str
    token_id: str | None
    token_kind: str
    columns: list[str]
    """Those with another value; empty where no column shows it."""
    old: dict[str, Any]
    """Their values before; empty for what is new."""
    new: dict[str, Any]
    """Their values after; of a new record, all that it has."""


@dataclass
class ChangeCounts:
    """What runs did to one node's records: how many of them, each time they changed."""

    source_ip: str
    node_name: str
    run: int | None
    """One run; None: all that were asked for."""
    at: datetime | None
    """When that run ended."""
    new: int = 0
    changed: int = 0
    vanished: int = 0
    returned: int = 0
    columns: dict[str, int] = field(default_factory=dict)
    """Column → how often it has another value."""


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


@dataclass(frozen=True)
class _Part:
    """One of the three places where changes are found."""

    table: sa.FromClause
    run: sa.ColumnElement[int]
    asked: sa.ColumnElement[bool]
    version: sa.FromClause
    """Where the values are: those before a change, or those of a new record."""


class _Parts:
    """Changes of the runs that ``until`` has and ``since`` has not."""

    def __init__(self, conn: sa.Connection, tables: Tables, since: Runs, until: Runs) -> None:
        unpruned(conn, tables, since)
        stored = tables.stored[RECORDS.name]
        assert stored.history is not None
        self._since, self._until = since, until
        self.records, self.history = stored.table, stored.history
        runs = tables.runs.c
        first = sa.select(sa.func.min(runs.last_record_id)).where(runs.number > since.upto)
        self._last_id = (conn.execute(first).scalar() or 0) - _SPARE_IDS
        ends = sa.select(runs.number, runs.ended_at).where(runs.number > since.upto)
        self.ended: dict[int, datetime | None] = {row[0]: row[1] for row in conn.execute(ends)}

    def _among(self, run: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
        within = run.between(1, self._until.last)
        return sa.and_(within, self._until.holds(run), ~self._since.holds(run))

    def _is_first(self, key: Any, since: Any) -> sa.ColumnElement[bool]:
        before = self.history.alias("before").c
        return ~sa.exists().where(before.record_key == key, before.ended_run == since)

    @property
    def _old(self) -> sa.FromClause:
        keys = self.records.c.record_key == self.history.c.record_key
        return self.history.join(self.records, keys)

    @property
    def replaced(self) -> _Part:
        """Old versions that these runs ended."""
        ended = self.history.c.ended_run
        return _Part(self._old, ended, self._among(ended), self.history)

    @property
    def added(self) -> tuple[_Part, _Part]:
        """Records that these runs added: those that are as they were, and those that are not."""
        r, h = self.records.c, self.history.c
        present = sa.and_(
            r.id > self._last_id,
            self._among(r.since_run),
            self._is_first(r.record_key, r.since_run),
        )
        old = sa.and_(
            h.ended_run > self._since.upto,
            self._among(h.since_run),
            self._is_first(h.record_key, h.since_run),
        )
        return (
            _Part(self.records, r.since_run, present, self.records),
            _Part(self._old, h.since_run, old, self.history),
        )


def count_changes(
    conn: sa.Connection,
    tables: Tables,
    since: Runs,
    until: Runs,
    filters: ChangeFilters,
    *,
    by_run: bool = False,
) -> list[ChangeCounts]:
    """Changes by node, of the runs that ``until`` has and ``since`` has not.

    ``by_run``: of each run by itself, in their order.

    Raises:
        SettingsError: history before them was removed.
    """
    return _counted(conn, _Parts(conn, tables, since, until), filters, by_run=by_run)


def replaced_by(conn: sa.Connection, tables: Tables, run: int) -> list[ChangeCounts]:
    """Changes of one run by node, without what is new: that takes looking at records."""
    only = _Parts(conn, tables, Runs(run - 1), Runs(run))
    return _counted(conn, only, ChangeFilters(), by_run=False, added=False)


def _counted(
    conn: sa.Connection,
    parts: _Parts,
    filters: ChangeFilters,
    *,
    by_run: bool,
    added: bool = True,
) -> list[ChangeCounts]:
    found: dict[tuple[int, str, str], ChangeCounts] = {}

    def rows(part: _Part, **more: sa.ColumnElement[Any]) -> Iterator[tuple[ChangeCounts, Any]]:
        groups = [parts.records.c.source_ip, part.version.c.node_name, *more.values()]
        groups += [part.run] if by_run else []
        run = part.run if by_run else sa.func.max(part.run)
        query = (
            sa.select(
                parts.records.c.source_ip, part.version.c.node_name, run.label("run"),
                sa.func.count().label("records"), *(c.label(n) for n, c in more.items()),
            )
            .select_from(part.table)
            .where(part.asked, *_limited(filters, parts.records, part.version))
            .group_by(*groups)
        )  # fmt: skip
        for row in conn.execute(query):
            run_number = row.run if by_run else None
            place = (run_number or 0, row.source_ip, row.node_name)
            counts = ChangeCounts(*place[1:], run_number, parts.ended.get(run_number or 0))
            yield found.setdefault(place, counts), row

    history = parts.history.c
    for counts, row in rows(parts.replaced, what=history.changed, here=was_there(parts.history)):
        columns, what = _what(row.what, bool(row.here))
        if filters.columns and not filters.columns & set(columns):
            continue
        setattr(counts, what, getattr(counts, what) + row.records)
        totals = Counter(counts.columns)
        totals.update(dict.fromkeys(columns, row.records))
        counts.columns = dict(sorted(totals.items()))
    for part in parts.added if added and not filters.columns else ():
        for counts, row in rows(part):
            counts.new += row.records
    every = (found[place] for place in sorted(found))
    return [one for one in every if one.new or one.changed or one.vanished or one.returned]


def read_changes(
    conn: sa.Connection, tables: Tables, since: Runs, until: Runs, filters: ChangeFilters
) -> Iterator[Change]:
    """Every change of the runs that ``until`` has and ``since`` has not, run by run.

    Read in blocks: memory holds one of them.

    Raises:
        SettingsError: history before them was removed.
    """
    parts = _Parts(conn, tables, since, until)
    r, h = parts.records, parts.history
    after = h.alias("following")
    keyed = [r.c[name] for name in ("source_ip", "db_path", "token_id", "token_kind")]
    replaced = parts.replaced
    followed = replaced.table.outerjoin(
        after, sa.and_(after.c.record_key == h.c.record_key, after.c.since_run == h.c.ended_run)
    )
    there = after.c.record_key.is_not(None)
    queries: list[sa.Select[Any]] = [
        sa.select(
            replaced.run.label("run"),
            h.c.record_key.label("key"),
            h.c.changed.label("changed"),
            was_there(h).label("here"),
            *keyed,
            *(h.c[name].label(f"old_{name}") for name in _COLUMNS),
            *(
                sa.case((there, after.c[name]), else_=r.c[name]).label(f"new_{name}")
                for name in _COLUMNS
            ),
        )
        .select_from(followed)
        .where(replaced.asked, *_limited(filters, r, h))
    ]
    nothing: sa.ColumnElement[str] = sa.literal_column("''")
    is_new: sa.ColumnElement[int] = sa.literal_column(str(_NEW))
    for part in () if filters.columns else parts.added:
        values = [part.version.c[name] for name in _COLUMNS]
        queries.append(
            sa.select(
                part.run.label("run"),
                r.c.record_key.label("key"),
                nothing.label("changed"),
                is_new.label("here"),
                *keyed,
                *(value.label(f"old_{value.name}") for value in values),
                *(value.label(f"new_{value.name}") for value in values),
            )
            .select_from(part.table)
            .where(part.asked, *_limited(filters, r, part.version))
        )
    query = sa.union_all(*queries) if len(queries) > 1 else queries[0]
    result = conn.execution_options(yield_per=_ROWS).execute(query.order_by("run", "key"))
    for row in result:
        change = _change(row._mapping, parts.ended.get(row.run))
        if not filters.columns or filters.columns & set(change.columns):
            yield change


def _change(row: sa.RowMapping, ended_at: datetime | None) -> Change:
    columns, what = ([], "new") if row["here"] == _NEW else _what(row["changed"], bool(row["here"]))
    old = {name: _plain(name, row[f"old_{name}"]) for name in columns}
    shown = _COLUMNS if what == "new" else columns
    new = {name: _plain(name, row[f"new_{name}"]) for name in shown}
    if what == "new":
        new = {name: value for name, value in new.items() if value is not None}
    return Change(
        run=row["run"],
        at=ended_at,
        what=what,
        source_ip=row["source_ip"],
        node_name=row["new_node_name"],
        db_path=row["db_path"],
        token_id=row["token_id"],
        token_kind=row["token_kind"],
        columns=columns,
        old=old,
        new=new,
    )


def _plain(name: str, value: Any) -> Any:
    """A flag is one, however the target has it."""
    return bool(value) if value is not None and RECORDS[name].kind == "flag" else value


def _limited(
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


def _what(changed: str, here: bool) -> tuple[list[str], str]:
    columns = [name for name in changed.split(",") if name]
    if VANISHED not in columns:
        return columns, "changed"
    columns.remove(VANISHED)
    return columns, "vanished" if here else "returned"
