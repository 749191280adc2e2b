"""Upgrade in place of what earlier scripts left: no row lost, duplicates merged."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from rubix_token_sync.records.companions import DIDS
from rubix_token_sync.records.schema import database_key, record_key
from rubix_token_sync.targets.base import SCHEMA_VERSION, Chunk, Lease, TargetOptions
from rubix_token_sync.targets.registry import TargetAddress, open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget

from .records_made import DATABASE, DB_PATH, SESSION, SOURCE, batch_of, mark
from .test_schema import test_every_secondary_index_of_the_guide as has_every_index

# The guide's tables as it prints them, in each target's words.
WORDS = {
    "mssql": {
        "id": "BIGINT IDENTITY(1,1) PRIMARY KEY",
        "text": "NVARCHAR",
        "max": "NVARCHAR(MAX)",
        "time": "DATETIME2(7)",
        "bit": "BIT",
        "now": "GETUTCDATE()",
        "uuid": "UNIQUEIDENTIFIER PRIMARY KEY DEFAULT NEWID()",
    },
    "sqlite": {
        "id": "INTEGER PRIMARY KEY",
        "text": "VARCHAR",
        "max": "TEXT",
        "time": "DATETIME",
        "bit": "BOOLEAN",
        "now": "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))",
        "uuid": "VARCHAR(36) PRIMARY KEY",
    },
    "postgresql": {
        "id": "BIGSERIAL PRIMARY KEY",
        "text": "VARCHAR",
        "max": "TEXT",
        "time": "TIMESTAMP",
        "bit": "BOOLEAN",
        "now": "timezone('utc', now())",
        "uuid": "UUID PRIMARY KEY",
    },
}
GUIDE = """
CREATE TABLE TokenRecords (
    id {id}, source_ip {text}(45) NOT NULL, node_name {text}(255) NOT NULL,
    did {text}(1000) NULL, token_id {text}(500) NULL, created_at {time} NULL,
    updated_at {time} NULL, token_status {text}(50) NULL, parent_token_id {text}(500) NULL,
    token_value {max} NULL, ipfs_data {max} NULL, ipfs_fetched {bit} DEFAULT {false},
    ipfs_error {text}(1000) NULL, db_path {text}(500) NOT NULL, ipfs_path {text}(500) NULL,
    db_last_modified {time} NOT NULL, synced_at {time} DEFAULT {now},
    validation_errors {max} NULL);
CREATE TABLE ProcessedDatabases (
    db_path {text}(500) PRIMARY KEY, last_modified {time} NOT NULL,
    last_processed {time} NOT NULL, record_count INT DEFAULT 0,
    ipfs_success_count INT DEFAULT 0, ipfs_fail_count INT DEFAULT 0,
    validation_error_count INT DEFAULT 0, processing_duration_seconds FLOAT DEFAULT 0);
CREATE TABLE SyncSessions (
    session_id {uuid}, start_time {time} DEFAULT {now}, end_time {time} NULL,
    source_ip {text}(45) NOT NULL, total_databases_found INT DEFAULT 0,
    total_databases_processed INT DEFAULT 0, total_records_processed INT DEFAULT 0,
    total_ipfs_success INT DEFAULT 0, total_ipfs_failures INT DEFAULT 0,
    total_sql_inserts INT DEFAULT 0, total_sql_errors INT DEFAULT 0,
    total_validation_errors INT DEFAULT 0, status {text}(20) DEFAULT 'RUNNING',
    error_summary {max} NULL)
"""
OLDER_POSTGRESQL = """
CREATE TABLE tokenrecords (
    id SERIAL PRIMARY KEY, source_ip TEXT, node_name TEXT, did TEXT, token_id TEXT,
    created_at TIMESTAMP, updated_at TIMESTAMP, token_status TEXT, parent_token_id TEXT,
    token_value TEXT, ipfs_data TEXT, ipfs_fetched BOOLEAN DEFAULT FALSE, ipfs_error TEXT,
    db_path TEXT, ipfs_path TEXT, db_last_modified TIMESTAMP,
    synced_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE processeddatabases (
    db_path TEXT PRIMARY KEY, last_modified TIMESTAMP, last_processed TIMESTAMP,
    record_count INTEGER);
CREATE TABLE syncsessions (
    session_id TEXT PRIMARY KEY, start_time TIMESTAMP, source_ip TEXT, status TEXT)
"""
T1, T2 = datetime(2026, 1, 1), datetime(2026, 1, 2)


def run(target: TargetAddress, *statements: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    store = open_target(target, TargetOptions())

    def work(conn: sa.Connection) -> None:
        for statement in statements:
            conn.exec_driver_sql(statement)
        for table, values in rows.items():
            for value in values:
                # sqlite3's own way with times is deprecated since Python 3.12.
                columns = [
                    sa.column(name, sa.DateTime() if isinstance(given, datetime) else None)
                    for name, given in value.items()
                ]
                conn.execute(sa.insert(sa.table(table, *columns)).values(value))

    try:
        store.transact(work)
    finally:
        store.close()


def old(number: int | None, at: datetime | None, source: str = SOURCE, **more: Any) -> dict:
    return {
        "source_ip": source,
        "node_name": "node001",
        "token_id": None if number is None else f"Qm{number:044d}",
        "db_path": DB_PATH,
        "db_last_modified": T1,
        "synced_at": at,
        "token_status": "0",
        **more,
    }


def values(store: SqlTarget, table: sa.Table) -> list[dict[str, Any]]:
    query = sa.select(table).order_by(*table.primary_key)
    return [dict(row._mapping) for row in store.read(lambda conn: conn.execute(query).all())]


def test_targets_without_the_nodes_dids(target: TargetAddress) -> None:
    """A target of revision 0003 gets them, and each database is read once."""
    store = open_target(target, TargetOptions())
    try:
        store.ensure_schema()
        tables = store.tables
        fresh = [tables.databases.c.did_count, tables.audit.evidence.c.did_of]

        def earlier(conn: sa.Connection) -> None:
            seen = {"db_path": DB_PATH, "source_ip": SOURCE, "fingerprint": "as it was"}
            times = dict.fromkeys(("last_modified", "last_processed"), T1)
            conn.execute(
                sa.insert(tables.databases).values(database_key=b"\x01" * 8, **seen, **times)
            )
            tables.stored[DIDS.name].table.drop(conn)
            tables.runs.drop(conn)
            for column in fresh:
                conn.exec_driver_sql(f"ALTER TABLE {column.table.name} DROP COLUMN {column.name}")
            conn.exec_driver_sql("UPDATE alembic_version SET version_num = '0003'")

        if target.kind == "mssql":
            pytest.skip("a column with a default needs more than this to go there")
        store.transact(earlier)
    finally:
        store.close()
    store = open_target(target, TargetOptions())
    try:
        store.ensure_schema()
        assert store.schema_version() == SCHEMA_VERSION
        for column in fresh:
            store.read(lambda conn, c=column: conn.execute(sa.select(c)).all())
        assert values(store, tables.stored[DIDS.name].table) == []
        (row,) = values(store, tables.databases)
        assert (row["fingerprint"], row["did_count"]) == (None, 0)
    finally:
        store.close()


@pytest.fixture
def guide_filled(target: TargetAddress) -> TargetAddress:
    """The guide's bare tables with duplicates, rows without ids, and two machines."""
    words = WORDS[target.kind] | {"false": "false" if target.kind == "postgresql" else "0"}
    name = str.lower if target.kind == "postgresql" else str
    records = [
        old(1, T1, token_status="first"),
        old(2, T1),
        old(1, T2, token_status="newest"),
        old(1, T1, token_status="second"),
        old(None, T1),
        old(None, T1),
        old(1, T1, source="10.0.0.8"),
        old(3, None, token_status="never"),
        old(3, T1, token_status="timed"),
        old(4, T1, token_status="same time"),
        old(4, T1, token_status="same time, later"),
    ]
    run(
        target,
        *GUIDE.format(**words).split(";"),
        rows={
            name("TokenRecords"): records,
            name("ProcessedDatabases"): [
                {"db_path": DB_PATH, "last_modified": T1, "last_processed": T2, "record_count": 7},
                {"db_path": "/gone/rubix.db", "last_modified": T1, "last_processed": T1},
            ],
            name("SyncSessions"): [{"session_id": SESSION, "source_ip": SOURCE}],
        },
    )
    return target


def test_the_guides_bare_tables(
    guide_filled: TargetAddress, opened: Callable[..., SqlTarget]
) -> None:
    store = opened()
    assert store.ensure_schema()
    kept = values(store, store.tables.records)
    aside = values(store, store.tables.duplicates)
    assert [(r["id"], r["token_status"]) for r in kept] == [
        (2, "0"),
        (3, "newest"),
        (5, "0"),
        (6, "0"),
        (7, "0"),
        (9, "timed"),
        (11, "same time, later"),
    ]
    assert [(r["original_id"], r["token_status"]) for r in aside] == [
        (1, "first"),
        (4, "second"),
        (8, "never"),
        (10, "same time"),
    ]
    assert all(bytes(r["record_key"]) in {bytes(k["record_key"]) for k in kept} for r in aside)
    by_id = {r["id"]: bytes(r["record_key"]) for r in kept}
    assert by_id[3] == record_key(DATABASE, f"Qm{1:044d}")
    assert (by_id[5], by_id[6]) == (record_key(DATABASE, None), record_key(DATABASE, None, 1))
    assert by_id[7] == record_key(database_key("10.0.0.8", DB_PATH), f"Qm{1:044d}")
    has_every_index(store)

    states = store.database_states(None)
    assert {(s.source_ip, s.db_path) for s in states} == {
        ("", "/gone/rubix.db"),
        (SOURCE, DB_PATH),
        ("10.0.0.8", DB_PATH),
    }
    assert {s.fingerprint for s in states} == {None}  # the next sync reads each of them
    assert {s.record_count for s in states if s.db_path == DB_PATH} == {7}
    assert values(store, store.tables.sessions)[0]["status"] == "RUNNING"
    assert not opened().ensure_schema()


def test_and_then_it_is_a_target_like_any_other(
    guide_filled: TargetAddress, opened: Callable[..., SqlTarget]
) -> None:
    store = opened()
    store.ensure_schema()
    lease = Lease(SOURCE, SESSION)
    store.acquire_lease(lease, "elsewhere|-|1|1")
    known = store.known_rows(DATABASE)[0]
    assert len(known) == 6 * 24
    gone = record_key(DATABASE, None) + record_key(DATABASE, None, 1)
    published = store.publish(lease, Chunk(rows=batch_of(range(1, 7)), vanished=gone, mark=mark(6)))
    assert (published.inserted, published.updated, published.vanished) == (2, 4, 2)


@pytest.fixture
def older_filled(postgres_url: str) -> TargetAddress:
    """The older system's tables: SERIAL, TEXT, BOOLEAN, TIMESTAMP, lower case."""
    target = parse_target(postgres_url)
    long_path = "/very" + "/long" * 200
    run(
        target,
        *OLDER_POSTGRESQL.split(";"),
        rows={
            "tokenrecords": [
                old(1, T1, ipfs_data="a", ipfs_fetched=True),
                old(1, T2, ipfs_data="b", ipfs_fetched=None),
                old(2, T1, did="e" * 2000, node_name=None),
                old(2, T2, did="d" * 2000, node_name=None),
                old(3, T1, db_path=long_path, db_last_modified=None),
            ],
            "processeddatabases": [
                {"db_path": DB_PATH, "last_modified": T1, "record_count": None},
                {"db_path": long_path, "last_modified": None},
            ],
            "syncsessions": [{"session_id": SESSION, "source_ip": SOURCE, "start_time": T1}],
        },
    )
    return target


def test_the_older_systems_postgresql_in_place(older_filled: TargetAddress) -> None:
    store = open_target(older_filled, TargetOptions())
    try:
        assert store.ensure_schema()
        kept = values(store, store.tables.records)
        assert [(r["id"], r["ipfs_data"]) for r in kept] == [(2, "b"), (4, None), (5, None)]
        assert kept[1]["did"] == "d" * 2000  # not cut: the old column is still TEXT
        aside = values(store, store.tables.duplicates)
        assert [(r["original_id"], r["did"]) for r in aside] == [(1, None), (3, "e" * 2000)]
        assert len(store.database_states(SOURCE)) == 2
        lease = Lease(SOURCE, SESSION)
        store.start_session(SESSION, SOURCE, "host", 1, "sync")
        store.acquire_lease(lease, "elsewhere|-|1|1")
        published = store.publish(lease, Chunk(rows=batch_of(range(1, 5)), mark=mark(4)))
        assert (published.inserted, published.updated) == (2, 2)
        kinds = {
            c["name"]: str(c["type"])
            for c in store.read(lambda conn: sa.inspect(conn).get_columns("tokenrecords"))
        }
        assert kinds["id"] == "BIGINT"
        beyond = 2**31 + 5
        store.transact(
            lambda conn: conn.exec_driver_sql(f"SELECT setval('tokenrecords_id_seq', {beyond})")
        )
        more = store.publish(lease, Chunk(rows=batch_of([9])))
        assert more.inserted == 1
        assert values(store, store.tables.records)[-1]["id"] > beyond
    finally:
        store.close()
