"""Records for the store tests: small, whole, and each value its own."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow as pa

from rubix_token_sync.records.schema import RECORD_SCHEMA, database_key, record_key, row_digest
from rubix_token_sync.targets.base import DatabaseMark

SOURCE = "10.0.0.7"
SESSION = "00000000-0000-4000-8000-000000000001"
OTHER_SESSION = "00000000-0000-4000-8000-000000000002"
DB_PATH = "/mnt/node001/Rubix/rubix.db"
DATABASE = database_key(SOURCE, DB_PATH)


def record(number: int, *, source: str = SOURCE, path: str = DB_PATH, **change: Any) -> dict:
    """One record; ``change`` sets columns."""
    token = f"Qm{number:044d}"
    made = {
        "record_key": record_key(database_key(source, path), token),
        "row_digest": row_digest(b"test", (token, str(change))),
        "source_ip": source,
        "node_name": "node001",
        "did": "bafybmi" + "a" * 52,
        "token_id": token,
        "created_at": None,
        "updated_at": datetime(2026, 3, 1, 12, 30, 15, 123456),
        "token_status": "0",
        "parent_token_id": None,
        "token_value": "1.0",
        "ipfs_data": f"content {number}",
        "ipfs_fetched": True,
        "token_kind": "rbt",
        "ipfs_error": None,
        "db_path": path,
        "ipfs_path": "/mnt/node001/.ipfs",
        "db_last_modified": datetime(2026, 3, 2, 1, 2, 3),
        "validation_errors": None,
        "network": "main",
        "token_state_hash": None,
        "transaction_id": f"{number:064x}",
        "attributes": None,
        "verdict": "genuine",
        "verdict_source": None,
        "token_level": 1,
        "token_number": number,
    }
    return {**made, **change}


def batch(*records: dict[str, Any]) -> pa.RecordBatch:
    """A batch with RECORD_SCHEMA."""
    return pa.RecordBatch.from_pylist(list(records), schema=RECORD_SCHEMA)


def batch_of(numbers: Any, **change: Any) -> pa.RecordBatch:
    """A batch of `record` for each number."""
    return batch(*(record(number, **change) for number in numbers))


def mark(count: int, **change: Any) -> DatabaseMark:
    """The mark of the test's database."""
    made = {
        "database_key": DATABASE,
        "source_ip": SOURCE,
        "node_name": "node001",
        "db_path": DB_PATH,
        "ipfs_path": "/mnt/node001/.ipfs",
        "fingerprint": "f1",
        "repository_fingerprint": "r1",
        "last_modified": datetime(2026, 3, 2, 1, 2, 3, 4),
        "record_count": count,
        "rejected_count": 0,
        "processing_duration_seconds": 1.5,
    }
    return DatabaseMark(**{**made, **change})


def root_of_evidence(rows: pa.RecordBatch) -> bytes:
    """The root that evidence of these records has, on every target."""
    from rubix_token_sync.evidence.leaves import CONTENT_DIGEST, content_digests, leaves
    from rubix_token_sync.evidence.tree import BlockTree

    keys = rows.column("record_key").to_pylist()
    ordered = rows.take(pa.array(sorted(range(len(keys)), key=keys.__getitem__)))
    digests = content_digests(ordered.column("ipfs_data"))
    tree = BlockTree()
    made = leaves(ordered.append_column(CONTENT_DIGEST, digests))
    tree.extend([leaf.encode() for leaf in made.to_pylist()])
    return tree.root()
