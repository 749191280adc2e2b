"""Companion tables over the wire: staged, bulk-copied and published as the records are."""

from __future__ import annotations

import pytest

from rubix_token_sync.records.companions import COMPANIONS
from rubix_token_sync.records.schema import RecordTable
from rubix_token_sync.targets.base import Lease
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.targets import companion_contract as contract
from tests.targets.records_made import SESSION, SOURCE

from .engine import SqliteEngine

TABLES = pytest.mark.parametrize("table", COMPANIONS, ids=lambda table: table.name)


@pytest.fixture
def lease(store: SqlTarget) -> Lease:
    lease = Lease(SOURCE, SESSION)
    store.start_session(SESSION, SOURCE, "host", 1, "sync")
    store.acquire_lease(lease, "elsewhere|-|1|1")
    return lease


@TABLES
def test_insert_change_vanish_return(
    store: SqlTarget, lease: Lease, table: RecordTable, engine: SqliteEngine
) -> None:
    store.prepare_load()
    contract.insert_change_vanish_return(store, lease, table)
    assert engine.query(f"SELECT count(*) FROM {table.staging}") == [(0,)]
    assert store.backend.bulk.works


def test_the_mark_counts_them(store: SqlTarget, lease: Lease) -> None:
    contract.the_mark_counts_them(store, lease)


@TABLES
def test_a_refused_row_stands_alone(store: SqlTarget, lease: Lease, table: RecordTable) -> None:
    contract.a_refused_row_stands_alone(store, lease, table)


@TABLES
def test_repaired_rows_are_replaced(store: SqlTarget, lease: Lease, table: RecordTable) -> None:
    contract.repaired_rows_are_replaced(store, lease, table)


def test_a_retired_database_takes_them_along(store: SqlTarget, lease: Lease) -> None:
    contract.a_retired_database_takes_them_along(store, lease)
