"""A small run against a store on the test server, and what must be there afterwards."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import pyarrow as pa

from rubix_token_sync.process_identity import own_holder
from rubix_token_sync.records.schema import RECORD_SCHEMA, database_key, record_key
from rubix_token_sync.targets.base import Chunk, DatabaseMark, Lease, Published, SessionTotals
from rubix_token_sync.targets.sql.target import SqlTarget

from .engine import SqliteEngine

SOURCE = "10.0.0.7"
DB_PATH = "/mnt/node001/Rubix/rubix.db"
DATABASE = database_key(SOURCE, DB_PATH)
BULK, NEW, MORE, CHANGED, GONE = 600, 300, 40, 30, 5
TIME = datetime(2026, 3, 1, 12, 30, 15, 123456)


def record(number: int, **change: Any) -> dict[str, Any]:
    token = f"Qm{number:044d}"
    made = {
        "record_key": record_key(DATABASE, token),
        "row_digest": hashlib.md5(f"{token}{change}".encode()).digest(),
        "source_ip": SOURCE,
        "node_name": "node001",
        "did": "bafybmi" + "a" * 52,
        "token_id": token,
        "created_at": None,
        "updated_at": TIME,
        "token_status": "0",
        "parent_token_id": None,
        "token_value": "1.0",
        "ipfs_data": f"content ü {number}",
        "ipfs_fetched": True,
        "ipfs_error": None,
        "db_path": DB_PATH,
        "ipfs_path": None,
        "db_last_modified": TIME,
        "validation_errors": None,
        "token_kind": "rbt",
        "network": None,
        "token_state_hash": None,
        "transaction_id": None,
        "attributes": None,
        "verdict": None,
        "verdict_source": None,
        "token_level": None,
        "token_number": None,
    }
    return {**made, **change}


def rows(numbers: range, **change: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [record(number, **change) for number in numbers], schema=RECORD_SCHEMA
    )


def mark(count: int) -> DatabaseMark:
    return DatabaseMark(
        database_key=DATABASE,
        source_ip=SOURCE,
        node_name="node001",
        db_path=DB_PATH,
        ipfs_path=None,
        fingerprint="f",
        repository_fingerprint=None,
        last_modified=TIME,
        record_count=count,
        rejected_count=0,
        processing_duration_seconds=1.0,
    )


def run(store: SqlTarget, session: str) -> Published:
    """Insert new ones in bulk, stage in bulk, change and insert by parameters, let go, mark."""
    total = Published()
    store.ensure_schema()
    lease = Lease(SOURCE, session)
    store.acquire_lease(lease, own_holder())
    store.start_session(session, SOURCE, "host", 1, "sync")
    store.prepare_load()
    store.known_rows(DATABASE)
    new = Chunk(rows=rows(range(NEW)), bulk=True, new=True)
    total.add(store.publish(lease, new))
    total.add(store.publish(lease, Chunk(rows=rows(range(NEW, BULK)), bulk=True)))
    store.heartbeat(lease, SessionTotals(total_records_processed=BULK))
    last = rows(range(BULK - CHANGED, BULK + MORE), token_status="4")
    gone = b"".join(record(number)["record_key"] for number in range(GONE))
    total.add(store.publish(lease, Chunk(rows=last, vanished=gone, mark=mark(BULK + MORE - GONE))))
    store.finish_load()
    store.finish_session(lease, "COMPLETED", SessionTotals(), None)
    return total


def is_exact(engine: SqliteEngine) -> None:
    """Every record once, with its last value; nothing staged; marked and released."""
    (found,) = engine.query(
        "SELECT count(*), count(DISTINCT record_key), sum(token_status = '4'),"
        " sum(source_deleted_at IS NOT NULL), count(synced_at) FROM TokenRecords"
    )
    assert found == (BULK + MORE, BULK + MORE, MORE + CHANGED, GONE, BULK + MORE)
    assert engine.query("SELECT record_count FROM ProcessedDatabases") == [(BULK + MORE - GONE,)]
    assert engine.query("SELECT count(*) FROM TokenRecordStaging") == [(0,)]
    assert engine.query("SELECT count(*) FROM SyncLeases") == [(0,)]
    statuses = {row[0] for row in engine.query("SELECT status FROM SyncSessions")}
    assert "RUNNING" not in statuses
    assert "COMPLETED" in statuses
