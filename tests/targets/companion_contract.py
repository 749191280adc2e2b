"""What every target must do with companion tables, whichever server stands behind it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from rubix_token_sync.errors import ReportMismatch
from rubix_token_sync.records.companions import COMPANIONS, PLEDGES
from rubix_token_sync.records.schema import RecordTable
from rubix_token_sync.targets.base import Chunk, Lease
from rubix_token_sync.targets.sql.target import SqlTarget

from .companions_made import batch, keys, row
from .records_made import DATABASE, SOURCE, batch_of, mark, record


def stored(store: SqlTarget, table: RecordTable) -> dict[bytes, dict[str, Any]]:
    """Live rows, as a scan gives them."""
    found = pa.Table.from_batches(store.stored_records(DATABASE, table), table.schema).to_pylist()
    return {one["record_key"]: one for one in found}


def made(table: RecordTable, numbers: range) -> dict[bytes, dict[str, Any]]:
    """Rows by their keys, as `stored` gives them."""
    rows = [row(table, number) for number in numbers]
    return {one["record_key"]: one for one in rows}


def vanished(store: SqlTarget, table: RecordTable) -> int:
    """Rows that are there and marked as deleted."""
    rows = store.tables.stored[table.name].table
    query = sa.select(sa.func.count()).where(rows.c.source_deleted_at.is_not(None))
    return store.read(lambda conn: int(conn.execute(query).scalar_one()))


def insert_change_vanish_return(store: SqlTarget, lease: Lease, table: RecordTable) -> None:
    """A row's life; the tokens' table stays as it is."""
    name = table.name
    for new in (True, False):  # a first load, in bulk where there is one; and again
        chunk = Chunk(batch(table, range(60)), bulk=True, new=new, table=name)
        assert store.publish(lease, chunk).inserted == (60 if new else 0)
    assert stored(store, table) == made(table, range(60))
    changed = Chunk(batch(table, range(50, 65), node_name="renamed"), table=name)
    published = store.publish(lease, changed)
    assert (published.inserted, published.updated) == (5, 10)
    published = store.publish(lease, changed)
    assert (published.inserted, published.updated) == (0, 0)
    gone = Chunk(batch(table, ()), vanished=keys(table, range(3)), table=name)
    assert store.publish(lease, gone).vanished == 3
    assert store.publish(lease, gone).vanished == 0
    assert (len(stored(store, table)), vanished(store, table)) == (62, 3)
    back = store.publish(lease, Chunk(batch(table, range(1)), table=name))
    assert (back.inserted, back.updated) == (0, 1)
    found = stored(store, table)
    assert (len(found), vanished(store, table)) == (63, 2)
    assert found[row(table, 0)["record_key"]] == row(table, 0)
    known, digests = store.known_rows(DATABASE, table)
    pairs = {known[24 * i : 24 * i + 24]: digests[16 * i : 16 * i + 16] for i in range(63)}
    assert pairs == {key: one["row_digest"] for key, one in found.items()}
    one = row(table, 1)["record_key"]  # vanished ones, too
    assert store.records_by_key([one], table)[one] == row(table, 1)
    assert store.known_rows(DATABASE) == (b"", b"")


def the_mark_counts_them(store: SqlTarget, lease: Lease) -> None:
    """A table that does not hold what the node has is not marked as processed."""
    for table in COMPANIONS:
        store.publish(lease, Chunk(batch(table, range(4)), table=table.name))
    wrong = {table.name: 4 for table in COMPANIONS} | {PLEDGES.name: 5}
    with pytest.raises(ReportMismatch, match=PLEDGES.name):
        store.publish(lease, Chunk(batch_of(range(2)), mark=mark(2, companions=wrong)))
    assert store.database_states(SOURCE) == []
    assert store.known_rows(DATABASE) == (b"", b"")
    right = dict.fromkeys(wrong, 4)
    store.publish(lease, Chunk(batch_of(range(2)), mark=mark(2, companions=right)))
    (state,) = store.database_states(SOURCE)
    assert {name: state.companions[name] for name in right} == right
    live = store.count_live([DATABASE])[DATABASE]
    assert live == state.counts
    # A mark that says nothing of a table leaves its count as it is; None: as many as there are.
    store.publish(lease, Chunk(batch(PLEDGES, (9,)), table=PLEDGES.name))
    store.publish(lease, Chunk(batch_of(()), mark=mark(2)))
    assert store.database_states(SOURCE)[0].counts == live
    store.publish(lease, Chunk(batch_of(()), mark=mark(2, companions={PLEDGES.name: None})))
    assert store.database_states(SOURCE)[0].counts == live | {PLEDGES.name: 5}


def a_refused_row_stands_alone(store: SqlTarget, lease: Lease, table: RecordTable) -> None:
    """The others go in."""
    rows = [row(table, number) for number in range(9)]
    rows[4]["node_name"] = None  # which no target takes
    chunk = Chunk(_unchecked(rows, table), table=table.name)
    published = store.publish(lease, chunk)
    assert [(r.record_key, r.token_id) for r in published.rejected] == [
        (rows[4]["record_key"], rows[4][table.label])
    ]
    assert len(stored(store, table)) == 8


def _unchecked(rows: list[dict[str, Any]], table: RecordTable) -> pa.RecordBatch:
    nullable = pa.schema([field.with_nullable(True) for field in table.schema])
    return pa.RecordBatch.from_pylist(rows, schema=nullable)


def repaired_rows_are_replaced(store: SqlTarget, lease: Lease, table: RecordTable) -> None:
    """What was changed behind the program's back, in a column that no upsert compares."""
    store.publish(lease, Chunk(batch(table, range(3)), table=table.name))
    rows = store.tables.stored[table.name].table
    store.transact(lambda conn: conn.execute(sa.update(rows).values(network="changed")))
    assert store.publish(lease, Chunk(batch(table, range(3)), table=table.name)).updated == 0
    store.publish(lease, Chunk(batch(table, range(3)), replace=True, table=table.name))
    assert stored(store, table) == made(table, range(3))


def a_retired_database_takes_them_along(store: SqlTarget, lease: Lease) -> None:
    """Marked with its records; strays of every table are found; removed for good by `check`."""
    store.publish(lease, Chunk(batch_of(range(2)), mark=mark(2)))
    for table in COMPANIONS:
        store.publish(lease, Chunk(batch(table, range(4)), table=table.name))
    strays = store.stray_records(SOURCE, [])
    assert len(strays) == 2 + 4 * len(COMPANIONS)
    assert {(s.table, s.token_id) for s in strays if s.table == COMPANIONS[0].name} == {
        (COMPANIONS[0].name, row(COMPANIONS[0], n)["transaction_id"]) for n in range(4)
    }
    assert store.stray_records(SOURCE, [DATABASE]) == []
    assert store.retire_database(lease, DATABASE) == 2
    for table in COMPANIONS:
        assert (stored(store, table), vanished(store, table)) == ({}, 4)
    store.remove_records(lease, DATABASE)
    assert [vanished(store, table) for table in COMPANIONS] == [0] * len(COMPANIONS)
    assert store.records_by_key([record(0)["record_key"]]) == {}
