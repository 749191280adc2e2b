"""Reading whole ranges of records from SQLite, past SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from rubix_token_sync.records.schema import RecordTable
from rubix_token_sync.targets.sql.questions import as_batch
from rubix_token_sync.targets.sqlite.connection import driver

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["known_rows", "scan"]

_LIVE: Final = "WHERE record_key BETWEEN ? AND ? AND source_deleted_at IS NULL"


def known_rows(
    conn: sa.Connection, low: bytes, high: bytes, table: RecordTable
) -> tuple[bytes, bytes]:
    """See `Backend`."""
    query = f"SELECT record_key, row_digest FROM {table.name} {_LIVE}"  # noqa: S608 - our names
    rows = driver(conn).execute(query, (low, high))
    keys, digests = bytearray(), bytearray()
    while block := rows.fetchmany(10_000):
        keys += b"".join([row[0] for row in block])
        digests += b"".join([row[1] for row in block])
    return bytes(keys), bytes(digests)


def scan(
    conn: sa.Connection, low: bytes, high: bytes, table: RecordTable
) -> Iterator[pa.RecordBatch]:
    """See `Backend`."""
    names = ", ".join(table.names)
    query = f"SELECT {names} FROM {table.name} {_LIVE} ORDER BY record_key"  # noqa: S608
    rows = driver(conn).execute(query, (low, high))
    while block := rows.fetchmany(5_000):
        yield as_batch(block, table)
