"""Rows of companion tables for the tests of targets: small, whole, and each value its own."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import pyarrow as pa

from rubix_token_sync.records.companions import CHAINS, PLEDGES, TRANSACTIONS, companion_key
from rubix_token_sync.records.schema import RecordTable, database_key, row_digest

from .records_made import DB_PATH, SOURCE

TIME = datetime(2026, 3, 1, 12, 30, 15, 123456)


def row(
    table: RecordTable, number: int, *, source: str = SOURCE, path: str = DB_PATH, **change: Any
) -> dict[str, Any]:
    """One row of ``table``; ``change`` sets columns."""
    key = f"{number:064x}"
    own: dict[str, Any] = {table.label: key}
    if table is TRANSACTIONS:
        own |= {"amount": "0.25", "date_time": TIME, "sender_did": "did ü", "comment": "' ; --"}
    elif table is PLEDGES:
        own |= {"pledge_source": "UnpledgeSequence", "pledged_tokens": "Qm1,Qm2"}
    elif table is CHAINS:
        own |= {
            "token_kind": "ft",
            "block_count": number,
            "hashes_valid": True,
            "links_valid": False,
            "latest_block_time": TIME,
            "signatures_checked": 2**40,
        }
    made = {
        "record_key": companion_key(database_key(source, path), table.name, key),
        "row_digest": row_digest(table.name.encode(), (key, str(sorted(change.items())))),
        "source_ip": source,
        "node_name": "node001",
        "db_path": path,
        "network": "main",
        **own,
    }
    return dict.fromkeys(table.names) | made | change


def batch(table: RecordTable, numbers: Iterable[int], **change: Any) -> pa.RecordBatch:
    """A batch of `row` for each number."""
    rows = [row(table, number, **change) for number in numbers]
    return pa.RecordBatch.from_pylist(rows, schema=table.schema)


def keys(table: RecordTable, numbers: Iterable[int]) -> bytes:
    """The keys of some rows, 24 bytes each."""
    return b"".join(row(table, number)["record_key"] for number in numbers)
