"""A new column of the records is one line of the column table, and its migration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest
import sqlalchemy as sa

from rubix_token_sync.records.schema import RECORD_SCHEMA, RECORDS, Column, RecordTable
from rubix_token_sync.targets.base import Chunk, Lease, TargetOptions
from rubix_token_sync.targets.migrations.guide_tables import add_missing_columns
from rubix_token_sync.targets.mssql.statements import Statements
from rubix_token_sync.targets.registry import TargetAddress, open_target
from rubix_token_sync.targets.sql.target import SqlTarget

from .records_made import DATABASE, SESSION, SOURCE, mark, record

MORE = RecordTable((*RECORDS.columns, Column("region", "text", 20, compared=True)))


@pytest.fixture
def wider(target: TargetAddress) -> Iterator[SqlTarget]:
    """A target of this program's version, to which the column was added."""
    made = open_target(target, TargetOptions())
    made.ensure_schema()
    made.close()
    wider = open_target(target, TargetOptions(), records=MORE)
    for table in wider.tables.all():
        wider.transact(lambda conn, table=table: add_missing_columns(conn, table))
    yield wider
    wider.close()


def batch(numbers: range, region: str | None) -> pa.RecordBatch:
    rows = [{**record(number), "region": region} for number in numbers]
    return pa.RecordBatch.from_pylist(rows, schema=MORE.schema)


def stored(target: SqlTarget) -> list[str | None]:
    (found,) = target.stored_records(DATABASE)
    return found.column("region").to_pylist()


@pytest.mark.parametrize("new", [False, True])
def test_a_column_goes_in_is_compared_and_comes_back(wider: SqlTarget, new: bool) -> None:
    lease = Lease(SOURCE, SESSION)
    wider.start_session(SESSION, SOURCE, "host", 1, "sync")
    wider.acquire_lease(lease, "elsewhere|-|1|1")
    wider.prepare_load()
    chunk = Chunk(batch(range(60), "main"), bulk=True, new=new, mark=mark(60))
    assert wider.publish(lease, chunk).inserted == 60
    wider.finish_load()
    changed = wider.publish(lease, Chunk(batch(range(5), "test")))
    assert (changed.inserted, changed.updated) == (0, 5)
    assert wider.publish(lease, Chunk(batch(range(5), "test"))).updated == 0
    assert sorted(stored(wider)) == ["main"] * 55 + ["test"] * 5
    key = record(0)["record_key"]
    assert wider.records_by_key([key])[key]["region"] == "test"
    again = [next(wider.stored_records(DATABASE)) for _ in range(2)]
    assert again[0].equals(again[1])
    long = replace(chunk, rows=batch(range(1), "x" * 21), new=False, mark=None)
    if wider.kind != "sqlite":  # whose columns hold anything
        assert len(wider.publish(lease, long).rejected) == 1


def test_what_is_derived_from_the_table() -> None:
    assert MORE.schema.names == [*RECORD_SCHEMA.names, "region"]
    assert "region" in Statements(MORE).publish
    assert "region" not in Statements(RECORDS).publish
    assert MORE.sizes["region"] == 20


def test_a_batch_is_what_it_was() -> None:
    """The order and types of a batch, and what an upsert compares: contracts with old targets."""
    assert RECORD_SCHEMA.names == [
        "record_key", "row_digest", "source_ip", "node_name", "did", "token_id", "created_at",
        "updated_at", "token_status", "parent_token_id", "token_value", "ipfs_data",
        "ipfs_fetched", "ipfs_error", "db_path", "ipfs_path", "db_last_modified",
        "validation_errors", "token_kind", "network", "token_state_hash", "transaction_id",
        "attributes", "verdict", "verdict_source", "token_level", "token_number",
    ]  # fmt: skip
    assert RECORDS.source == (
        "token_id", "did", "created_at", "updated_at", "token_status", "parent_token_id",
        "token_value", "token_state_hash", "transaction_id",
    )  # fmt: skip
    assert [column.name for column in RECORDS.compared] == [
        "row_digest", "ipfs_data", "ipfs_fetched", "ipfs_error", "validation_errors",
        "verdict", "verdict_source", "token_level", "token_number",
    ]  # fmt: skip
    assert sa.Unicode(RECORDS.sizes["did"]).length == 1000
