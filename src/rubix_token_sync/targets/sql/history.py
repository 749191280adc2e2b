"""Old versions of records, and the runs that end them: what every target does alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from rubix_token_sync.records.schema import Column, RecordTable
from rubix_token_sync.targets.sql.history_tables import RUN_COUNTS
from rubix_token_sync.targets.sql.tables import StoredTable, Tables

__all__ = [
    "VANISHED",
    "begin_run",
    "count_run",
    "end_run",
    "keep",
    "keep_sql",
    "later_run",
    "was_there",
]

VANISHED = "source_deleted_at"
"""The column that a record's vanishing, and its return, change."""


def later_run(records: sa.Table, number: int) -> sa.ColumnElement[int]:
    """The run in which a version begins that ``number`` writes.

    Its own, or that of a run with a higher number which has changed the same record
    meanwhile (an audit its verdict): versions never overlap, and none is between the two.
    """
    since = records.c.since_run
    return sa.case((since > number, since), else_=number)


def keep(
    conn: sa.Connection,
    stored: StoredTable,
    number: int,
    changed: str,
    *where: sa.ColumnElement[bool],
) -> None:
    """Keep the records that ``where`` chooses as they are: the caller changes all of them next.

    ``changed`` names the columns, with commas between.
    """
    if stored.history is None:
        return
    records, history = stored.table, stored.history
    names = ["record_key", "since_run", *(c.name for c in stored.columns.kept), VANISHED]
    query = (
        sa.select(
            sa.literal(number, sa.BigInteger()),
            sa.literal(changed, history.c.changed.type),
            *(records.c[name] for name in names),
        )
        .where(records.c.since_run < number, *where)
        .with_hint(records, "WITH (UPDLOCK)", "mssql")
        .with_for_update(of=records)
    )
    conn.execute(sa.insert(history).from_select(["ended_run", "changed", *names], query))


def keep_sql(
    columns: RecordTable,
    *,
    run: str,
    found: str,
    differs: Callable[[Column], str],
    replaced: str,
    joined: Callable[[list[str]], str] = " || ".join,
    cut: str = "substr",
) -> str:
    """Keep records that are replaced next by what is staged, as they are: one statement.

    ``run`` is the number, ``found`` names the records as ``r`` beside what is staged (all
    between FROM and WHERE), ``differs`` compares a column of both, ``replaced`` is the
    condition of the UPDATE that follows, ``joined`` joins texts and ``cut`` takes a part of one.
    """
    kept = [column.name for column in columns.kept]
    named = [
        f"CASE WHEN {differs(column)} THEN ',{column.name}' ELSE '' END"
        for column in columns.told_apart
    ]
    named.append(f"CASE WHEN r.{VANISHED} IS NOT NULL THEN ',{VANISHED}' ELSE '' END")
    names = ("record_key", "since_run", *kept, VANISHED)
    return (
        f"INSERT INTO {columns.history} (ended_run, changed, {', '.join(names)})"  # noqa: S608 - our names
        f" SELECT {run}, {cut}({joined(named)}, 2, 1000),"
        f" {', '.join('r.' + name for name in names)}"
        f" FROM {found} WHERE r.since_run < {run} AND ({replaced})"
    )


def begin_run(conn: sa.Connection, tables: Tables, session_id: str, source: str, now: Any) -> int:
    """A number for what is about to be written under a lease, higher than all before."""
    last = conn.execute(sa.select(sa.func.max(tables.records.c.id))).scalar() or 0
    values = {"session_id": session_id, "source_ip": source, "began_at": now}
    inserted = conn.execute(sa.insert(tables.runs).values(**values, last_record_id=last))
    key = inserted.inserted_primary_key
    assert key is not None
    return int(key[0])


def end_run(conn: sa.Connection, tables: Tables, session_id: str, when: Any) -> None:
    """Nothing more can be written under the session's lease; says what was."""
    runs = tables.runs
    number = conn.execute(
        sa.select(runs.c.number).where(runs.c.session_id == session_id, runs.c.ended_at.is_(None))
    ).scalar()
    if number is not None:
        counts = count_run(conn, tables, number)
        conn.execute(sa.update(runs).where(runs.c.number == number).values(ended_at=when, **counts))


def was_there(history: sa.FromClause) -> sa.ColumnElement[int]:
    """1 where the node had the record, else 0.

    Numbers in the text: parameters would be two expressions to SELECT and GROUP BY.
    """
    one, none = (sa.literal_column(text, sa.Integer()) for text in ("1", "0"))
    return sa.case((history.c.source_deleted_at.is_(None), one), else_=none)


def count_run(conn: sa.Connection, tables: Tables, number: int) -> dict[str, int]:
    """What a run replaced, by the names of `RUN_COUNTS`."""
    counts: Counter[str] = Counter(dict.fromkeys(RUN_COUNTS, 0))
    for stored in tables.stored.values():
        if stored.history is None:
            continue
        history = stored.history
        here = was_there(history)
        grouped = (
            sa.select(history.c.changed, here.label("here"), sa.func.count().label("records"))
            .where(history.c.ended_run == number)
            .group_by(history.c.changed, here)
        )
        for row in conn.execute(grouped):
            columns = row.changed.split(",")
            counts["owners_changed"] += row.records * ("did" in columns)
            counts["statuses_changed"] += row.records * ("token_status" in columns)
            what = "records_changed"
            if VANISHED in columns:
                what = "records_vanished" if row.here else "records_returned"
            counts[what] += row.records
    return dict(counts)
