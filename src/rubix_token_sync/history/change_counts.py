"""How many changes runs made, node by node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.history.moments import Runs
from rubix_token_sync.history.parts import (
    Axis,
    ChangeFilters,
    Part,
    Parts,
    limited,
    unpruned,
    what_changed,
)
from rubix_token_sync.targets.sql.functions import cased
from rubix_token_sync.targets.sql.history import was_there
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["ChangeCounts", "CountedChanges", "count_changes", "count_newest_changes", "replaced_by"]

_MOST_ROWS: Final = 30_000
"""Old versions, and new records, that are looked at: 0.1 s of a processor or two."""


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


@dataclass(frozen=True)
class CountedChanges:
    """Counts of the newest runs, as many as can be counted at once."""

    counts: list[ChangeCounts]
    counted_from: int
    """The first run that is counted; those before it changed so much that counting would take
    long.  0: every run that was asked for is."""


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
    axis = Axis.read(conn, tables, since, until)
    if not axis.asked:
        return []
    parts = Parts(tables, since, until, axis.first_id())
    return _counted(conn, parts, axis.ended, filters, by_run=by_run)


def count_newest_changes(
    conn: sa.Connection,
    tables: Tables,
    since: Runs,
    until: Runs,
    filters: ChangeFilters,
    *,
    most: int = _MOST_ROWS,
) -> CountedChanges:
    """Changes by node of the newest of these runs: ``most`` old versions and new records.

    Raises:
        SettingsError: history before them was removed.
    """
    axis = Axis.read(conn, tables, since, until)
    newest_id = conn.execute(sa.select(sa.func.max(tables.records.c.id))).scalar() or 0
    counted_from = axis.within(most, newest_id)
    if not any(number >= counted_from for number in axis.asked):
        return CountedChanges([], counted_from)
    part = since | Runs(counted_from - 1) if counted_from else since
    parts = Parts(tables, part, until, axis.first_id(counted_from))
    counts = _counted(conn, parts, axis.ended, filters, by_run=False)
    return CountedChanges(counts, counted_from)


def replaced_by(conn: sa.Connection, tables: Tables, run: int) -> list[ChangeCounts]:
    """Changes of one run by node, without what is new: that takes looking at records."""
    unpruned(conn, tables, Runs(run - 1))
    only = Parts(tables, Runs(run - 1), Runs(run), 0)
    return _counted(conn, only, {}, ChangeFilters(), by_run=False, added=False)


def _counted(
    conn: sa.Connection,
    parts: Parts,
    ended: Mapping[int, datetime | None],
    filters: ChangeFilters,
    *,
    by_run: bool,
    added: bool = True,
) -> list[ChangeCounts]:
    found: dict[tuple[int, str, str], ChangeCounts] = {}

    def rows(part: Part, **more: sa.ColumnElement[Any]) -> Iterator[tuple[ChangeCounts, Any]]:
        node = cased(parts.records.c.source_ip), cased(part.version.c.node_name)
        groups = [*node, *more.values()]
        groups += [part.run] if by_run else []
        run = part.run if by_run else sa.func.max(part.run)
        query = (
            sa.select(
                node[0].label("source_ip"), node[1].label("node_name"), run.label("run"),
                sa.func.count().label("records"), *(c.label(n) for n, c in more.items()),
            )
            .select_from(part.table)
            .where(part.asked, *limited(filters, parts.records, part.version))
            .group_by(*groups)
        )  # fmt: skip
        for row in conn.execute(query):
            run_number = row.run if by_run else None
            place = (run_number or 0, row.source_ip, row.node_name)
            counts = ChangeCounts(*place[1:], run_number, ended.get(run_number or 0))
            yield found.setdefault(place, counts), row

    history = parts.history.c
    for counts, row in rows(parts.replaced, what=history.changed, here=was_there(parts.history)):
        columns, what = what_changed(row.what, bool(row.here))
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
