"""Reading whole ranges of records from a SQL Server, as Arrow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import sqlalchemy as sa

from rubix_token_sync.records.schema import RecordTable
from rubix_token_sync.targets.mssql import statements
from rubix_token_sync.targets.mssql.connection import driver_cursor

__all__ = ["known_rows", "scan"]

_ARROW_ROWS: Final = 20_000


def known_rows(
    conn: sa.Connection, low: bytes, high: bytes, table: RecordTable
) -> tuple[bytes, bytes]:
    """See `Backend`."""
    keys, digests = bytearray(), bytearray()
    for block in _arrow(conn, statements.Statements(table).known, low, high):
        keys += statements.joined(block.column(0))
        digests += statements.joined(block.column(1))
    return bytes(keys), bytes(digests)


def scan(
    conn: sa.Connection, low: bytes, high: bytes, table: RecordTable
) -> Iterator[pa.RecordBatch]:
    """See `Backend`."""
    for block in _arrow(conn, statements.Statements(table).stored, low, high):
        yield statements.as_records(block, table)


def _arrow(conn: sa.Connection, sql: str, low: bytes, high: bytes) -> Iterator[pa.RecordBatch]:
    with driver_cursor(conn) as cursor:
        cursor.execute(sql, (low, high))
        while (block := cursor.arrow_batch(_ARROW_ROWS)).num_rows:
            yield block
