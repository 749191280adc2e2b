"""Reading whole ranges of records from PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from rubix_token_sync.records.schema import RecordTable
from rubix_token_sync.targets.postgresql.connection import driver
from rubix_token_sync.targets.sql.questions import as_batch

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["known_rows", "scan"]

_LIVE: Final = "WHERE record_key BETWEEN %s AND %s AND source_deleted_at IS NULL"


def known_rows(
    conn: sa.Connection, low: bytes, high: bytes, table: RecordTable
) -> tuple[bytes, bytes]:
    """See `Backend`."""
    from rubix_token_sync.targets.postgresql.copy_format import KnownRows

    known = KnownRows()
    asked = f"SELECT record_key, row_digest FROM {table.name} {_LIVE}"  # noqa: S608 - our names
    query = f"COPY ({asked}) TO STDOUT (FORMAT BINARY)"
    with driver(conn).cursor() as cursor, cursor.copy(query, (low, high)) as copy:
        for data in copy:
            known.feed(data)
    return known.columns()


def scan(
    conn: sa.Connection, low: bytes, high: bytes, table: RecordTable
) -> Iterator[pa.RecordBatch]:
    """See `Backend`."""
    names = ", ".join(table.names)
    query = f"SELECT {names} FROM {table.name} {_LIVE} ORDER BY record_key"  # noqa: S608
    result = conn.execution_options(yield_per=5_000).exec_driver_sql(query, (low, high))
    for block in result.partitions():
        yield as_batch(block, table)
