"""What runs changed: every change with both of its sides."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.history.moments import Runs
from rubix_token_sync.history.parts import Axis, ChangeFilters, Parts, limited, what_changed
from rubix_token_sync.records.schema import RECORDS
from rubix_token_sync.targets.sql.history import was_there
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["Change", "read_changes"]

_COLUMNS: Final = tuple(column.name for column in RECORDS.told_apart)
_ROWS: Final = 2_000
_MOST_SORTED: Final = 30_000
"""Records that the first changes of several runs may wait for: 0.1 s of a processor or less."""
_NEW: Final = 2
"""Stands where other changes say whether the record was there before: 1 or 0."""


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


def read_changes(
    conn: sa.Connection,
    tables: Tables,
    since: Runs,
    until: Runs,
    filters: ChangeFilters,
    *,
    block: int = _ROWS,
    first: int | None = None,
) -> Generator[Change]:
    """Every change of the runs that ``until`` has and ``since`` has not, run by run.

    Read in blocks of so many: memory holds one of them.  The first run is a statement of its own,
    which gives what it finds as it finds it: the first changes do not wait for the last.  Each
    statement after it is of twice as many runs, since each looks at all later old versions.

    Who wants only the ``first`` so many waits for no more than `_MOST_SORTED` records to be put
    into the order of runs: runs that may have changed more are read one by one, those of nodes or
    databases that have fewer records at once.

    Raises:
        SettingsError: history before them was removed.
    """
    axis = Axis.read(conn, tables, since, until)
    ended, number = axis.ended, 1
    asked = _without_others(conn, tables, axis, filters)
    if first is not None:
        newest_id = conn.execute(sa.select(sa.func.max(tables.records.c.id))).scalar() or 0
        held = _held(conn, tables, filters)
        if held is not None and held <= _MOST_SORTED:
            number = len(asked)
    while asked:
        runs = asked[:number]
        while first is not None and len(runs) > 1:
            most = axis.most(runs, newest_id)
            if min(most, most if held is None else held) <= _MOST_SORTED:
                break
            runs = runs[: len(runs) // 2]
        asked, number = asked[len(runs) :], 2 * len(runs)
        parts = Parts(
            tables, since | Runs(runs[0] - 1), until.cut(runs[-1]),
            axis.first_id(runs[0]), axis.last_id(runs),
        )  # fmt: skip
        query = _both_sides(parts, filters)
        if len(runs) > 1:
            query = query.order_by("run")
            if first is not None and not filters.columns:
                query = query.limit(first)
        with conn.execute(query, execution_options={"yield_per": block}) as rows:
            for row in rows:
                change = _change(row._mapping, ended[row.run])
                if not filters.columns or filters.columns & set(change.columns):
                    yield change


def _without_others(
    conn: sa.Connection, tables: Tables, axis: Axis, filters: ChangeFilters
) -> list[int]:
    """The runs that are asked for, but for those of machines whose records are not."""
    if not filters.sources or not axis.asked:
        return axis.asked
    runs, marks = tables.runs.c, tables.databases.c
    of_another = sa.exists().where(
        marks.source_ip == runs.source_ip, marks.source_ip.not_in(filters.sources)
    )
    query = sa.select(runs.number).where(runs.number >= axis.asked[0], ~of_another)
    kept = set(conn.execute(query).scalars())
    return [number for number in axis.asked if number in kept]


def _held(conn: sa.Connection, tables: Tables, filters: ChangeFilters) -> int | None:
    """So many records have the nodes or databases that are asked for; None: all may be."""
    marks = tables.databases.c
    wanted = []
    if filters.nodes:
        wanted.append(marks.node_name.in_(filters.nodes))
    if filters.databases:
        wanted.append(marks.db_path.in_([path[:500] for path in filters.databases]))
    if not wanted:
        return None
    total = sa.func.sum(sa.cast(marks.record_count, sa.BigInteger()))
    return int(conn.execute(sa.select(total).where(*wanted)).scalar() or 0)


def _both_sides(parts: Parts, filters: ChangeFilters) -> sa.Select[Any] | sa.CompoundSelect[Any]:
    """What was before each change, and after it."""
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
        .where(replaced.asked, *limited(filters, r, h))
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
            .where(part.asked, *limited(filters, r, part.version))
        )
    return sa.union_all(*queries) if len(queries) > 1 else queries[0]


def _change(row: sa.RowMapping, ended_at: datetime | None) -> Change:
    columns, what = (
        ([], "new") if row["here"] == _NEW else what_changed(row["changed"], bool(row["here"]))
    )
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
