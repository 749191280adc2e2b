"""Old versions of records, and the runs that end them: what every target does alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from rubix_token_sync.records.schema import Column, RecordTable
from rubix_token_sync.targets.sql.history_tables import RUN_COUNTS
from rubix_token_sync.targets.sql.tables import StoredTable, Tables

__all__ = [
    "VANISHED",
    "beginning_run",
    "count_run",
    "ending_run",
    "keep_sql",
    "keeping",
    "later_run",
    "open_run",
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


def keeping(
    stored: StoredTable, number: int, changed: str, *where: sa.ColumnElement[bool]
) -> list[sa.Executable]:
    """The statement, if any, that keeps the records that ``where`` chooses as they are.

    The caller changes all of them next; ``changed`` names the columns, with commas between.
    """
    if stored.history is None:
        return []
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
    return [sa.insert(history).from_select(["ended_run", "changed", *names], query)]


def keep_sql(
    columns: RecordTable,
    *,
    run: str,
    found: str,
    differs: Callable[[Column], str],
    replaced: str,
    joined: Callable[[list[str]], str] = " || ".join,
    cut: str = "substr",
    unchanged: str = " ELSE ''",
) -> str:
    """Keep records that are replaced next by what is staged, as they are: one statement.

    ``run`` is the number, ``found`` names the records as ``r`` beside what is staged (all
    between FROM and WHERE), ``differs`` compares a column of both, ``replaced`` is the
    condition of the UPDATE that follows, ``joined`` joins texts and ``cut`` takes a part of one;
    ``unchanged`` makes a text of a column that does not differ, where ``joined`` needs one.
    """
    kept = [column.name for column in columns.kept]
    named = [
        f"CASE WHEN {differs(column)} THEN ',{column.name}'{unchanged} END"
        for column in columns.told_apart
    ]
    named.append(f"CASE WHEN r.{VANISHED} IS NOT NULL THEN ',{VANISHED}'{unchanged} END")
    names = ("record_key", "since_run", *kept, VANISHED)
    return (
        f"INSERT INTO {columns.history} (ended_run, changed, {', '.join(names)})"  # noqa: S608 - our names
        f" SELECT {run}, {cut}({joined(named)}, 2, 1000),"
        f" {', '.join('r.' + name for name in names)}"
        f" FROM {found} WHERE r.since_run < {run} AND ({replaced})"
    )


def beginning_run(tables: Tables, session_id: str, source: str, now: Any) -> sa.Executable:
    """The statement that gives a number to what is about to be written under a lease.

    It is higher than all before; `open_run` finds it.
    """
    last = sa.select(sa.func.coalesce(sa.func.max(tables.records.c.id), 0)).scalar_subquery()
    values = {"session_id": session_id, "source_ip": source, "began_at": now}
    return sa.insert(tables.runs).values(**values, last_record_id=last).inline()


def open_run(tables: Tables, session_id: str) -> sa.ScalarSelect[int]:
    """The number of a session's run that has not ended; there is one at most."""
    number = sa.select(sa.func.max(tables.runs.c.number))
    return number.where(*_is_open(tables, session_id)).scalar_subquery()


def ending_run(
    tables: Tables, session_id: str, when: Any, counts: Mapping[str, int]
) -> sa.Executable:
    """The statement that ends a session's run, under whose lease nothing more can be written.

    ``counts`` are those of `count_run`.
    """
    return (
        sa.update(tables.runs).where(*_is_open(tables, session_id)).values(ended_at=when, **counts)
    )


def _is_open(tables: Tables, session_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return tables.runs.c.session_id == session_id, tables.runs.c.ended_at.is_(None)


def was_there(history: sa.FromClause) -> sa.ColumnElement[int]:
    """1 where the node had the record, else 0.

    Numbers in the text: parameters would be two expressions to SELECT and GROUP BY.
    """
    one, none = (sa.literal_column(text, sa.Integer()) for text in ("1", "0"))
    return sa.case((history.c.source_deleted_at.is_(None), one), else_=none)


def count_run(conn: sa.Connection, tables: Tables, session_id: str) -> dict[str, int]:
    """What a session's run, which has not ended, replaced; by the names of `RUN_COUNTS`."""
    number = open_run(tables, session_id)
    histories = [one.history for one in tables.stored.values() if one.history is not None]
    grouped = [_replaced(history, number) for history in histories]
    counts: Counter[str] = Counter(dict.fromkeys(RUN_COUNTS, 0))
    for row in conn.execute(sa.union_all(*grouped)):
        columns = row.changed.split(",")
        counts["owners_changed"] += row.records * ("did" in columns)
        counts["statuses_changed"] += row.records * ("token_status" in columns)
        what = "records_changed"
        if VANISHED in columns:
            what = "records_vanished" if row.here else "records_returned"
        counts[what] += row.records
    return dict(counts)


def _replaced(history: sa.Table, number: sa.ScalarSelect[int]) -> sa.Select[tuple[str, int, int]]:
    """The old versions that a run ended, by what it changed and whether the node had them."""
    here = was_there(history)
    return (
        sa.select(history.c.changed, here.label("here"), sa.func.count().label("records"))
        .where(history.c.ended_run == number)
        .group_by(history.c.changed, here)
    )
