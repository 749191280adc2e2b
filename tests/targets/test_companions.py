"""Companion tables in every target: the contracts of the records."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from rubix_token_sync.records.companions import COMPANIONS
from rubix_token_sync.records.schema import RecordTable
from rubix_token_sync.targets.base import Chunk, Lease
from rubix_token_sync.targets.sql.target import SqlTarget

from . import companion_contract as contract
from .companions_made import batch, row

TABLES = pytest.mark.parametrize("table", COMPANIONS, ids=lambda table: table.name)


@TABLES
def test_insert_change_vanish_return(store: SqlTarget, lease: Lease, table: RecordTable) -> None:
    contract.insert_change_vanish_return(store, lease, table)


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


@TABLES
def test_the_target_enforces_the_key(store: SqlTarget, lease: Lease, table: RecordTable) -> None:
    store.publish(lease, Chunk(batch(table, range(1)), table=table.name))
    rows = store.tables.stored[table.name].table
    with pytest.raises(sa.exc.IntegrityError), store.engine.begin() as conn:
        conn.execute(sa.insert(rows).values(row(table, 0)))


def test_an_upgrade_makes_them_once(store: SqlTarget) -> None:
    """A target of the second version gets the tables, and its databases are read again."""
    names = {stored.table.name for stored in store.tables.companions}

    def back(conn: sa.Connection) -> None:
        for stored in store.tables.companions:
            stored.table.drop(conn)
            if stored.staging is not None:
                stored.staging.drop(conn)
        conn.execute(sa.text("UPDATE alembic_version SET version_num = '0002'"))

    store.transact(back)
    assert store.ensure_schema()
    there = store.read(lambda conn: set(sa.inspect(conn).get_table_names()))
    assert names <= there
    assert not store.ensure_schema()
