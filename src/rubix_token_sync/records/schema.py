"""The one data type on the way: a record batch with the columns of TokenRecords.

Keys and digests are defined here too, because they are part of that type:

* ``record_key`` (24 bytes) identifies a record: 8 bytes for (source, database),
  16 bytes for the token id.  All records of a database are neighbours in key
  order, so a range of keys is a database and inserts stay local.
* ``row_digest`` (16 bytes) changes when anything changes that the source says
  about the token: the row's seven values with their SQLite types, the node's
  name and the repository's path.

Both are BLAKE2b (RFC 7693) and stable for ever: tests pin their values.
"""

from __future__ import annotations

import marshal
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import pyarrow as pa

__all__ = [
    "COLUMN_SIZES",
    "DATABASE_KEY_BYTES",
    "RECORD_KEY_BYTES",
    "RECORD_SCHEMA",
    "ROW_DIGEST_BYTES",
    "SOURCE_COLUMNS",
    "SourceRow",
    "database_key",
    "digest_prefix",
    "record_key",
    "row_digest",
]

SOURCE_COLUMNS: Final = (
    "token_id",
    "did",
    "created_at",
    "updated_at",
    "token_status",
    "parent_token_id",
    "token_value",
)
"""What is read of a node's TokensTable, in this order; missing ones are NULL."""

SqliteValue = str | bytes | int | float | None
SourceRow = tuple[SqliteValue, ...]
"""One row of TokensTable: the values of `SOURCE_COLUMNS` as SQLite has them."""

DATABASE_KEY_BYTES: Final = 8
RECORD_KEY_BYTES: Final = 24
ROW_DIGEST_BYTES: Final = 16

_TIME = pa.timestamp("us")  # UTC without a zone, as DATETIME2 has it

RECORD_SCHEMA: Final = pa.schema(
    [
        pa.field("record_key", pa.binary(RECORD_KEY_BYTES), nullable=False),
        pa.field("row_digest", pa.binary(ROW_DIGEST_BYTES), nullable=False),
        pa.field("source_ip", pa.string(), nullable=False),
        pa.field("node_name", pa.string(), nullable=False),
        pa.field("did", pa.string()),
        pa.field("token_id", pa.string()),
        pa.field("created_at", _TIME),
        pa.field("updated_at", _TIME),
        pa.field("token_status", pa.string()),
        pa.field("parent_token_id", pa.string()),
        pa.field("token_value", pa.string()),
        pa.field("ipfs_data", pa.string()),
        pa.field("ipfs_fetched", pa.bool_(), nullable=False),
        pa.field("ipfs_error", pa.string()),
        pa.field("db_path", pa.string(), nullable=False),
        pa.field("ipfs_path", pa.string()),
        pa.field("db_last_modified", _TIME, nullable=False),
        pa.field("validation_errors", pa.string()),
    ]
)
"""The columns a sync writes.  ``id`` and ``synced_at`` are the target's own."""

COLUMN_SIZES: Final = {
    "source_ip": 45,
    "node_name": 255,
    "did": 1000,
    "token_id": 500,
    "token_status": 50,
    "parent_token_id": 500,
    "ipfs_error": 1000,
    "db_path": 500,
    "ipfs_path": 500,
}
"""Sizes of the guide's NVARCHAR columns, in UTF-16 code units (as SQL Server counts)."""


def database_key(source: str, db_path: str) -> bytes:
    """8 bytes that stand for one database of one source."""
    name = marshal.dumps((source, db_path), 2)
    return blake2b(name, digest_size=DATABASE_KEY_BYTES, person=b"rubix-database").digest()


def record_key(database: bytes, token_id: SqliteValue, occurrence: int = 0) -> bytes:
    """24 bytes that stand for one token of one database.

    ``occurrence`` counts rows without a token id (NULL), in rowid order: they
    have nothing else to be told apart by.
    """
    name = marshal.dumps((token_id, occurrence), 2)
    return database + blake2b(name, digest_size=16, person=b"rubix-token").digest()


def digest_prefix(node_name: str, ipfs_path: str | None) -> bytes:
    """What every row digest of one database starts from."""
    name = marshal.dumps((node_name, ipfs_path), 2)
    return blake2b(name, digest_size=16, person=b"rubix-row-v1").digest()


def row_digest(prefix: bytes, row: SourceRow, occurrence: int = 0) -> bytes:
    """16 bytes that change when anything changes that the source says of a token.

    ``marshal`` version 2 is a plain, canonical, typed encoding (no references,
    no interning flags), unchanged since Python 2.5; a test pins the result.
    """
    data = prefix + marshal.dumps(row, 2)
    if occurrence:
        data += occurrence.to_bytes(8, "big")
    return blake2b(data, digest_size=ROW_DIGEST_BYTES).digest()


def row_digests(prefix: bytes, rows: Sequence[SourceRow]) -> bytes:
    """`row_digest` of many rows, concatenated; occurrence 0 for all."""
    dumps = marshal.dumps
    begin = blake2b(prefix, digest_size=ROW_DIGEST_BYTES).copy
    digests = []
    for row in rows:
        digest = begin()
        digest.update(dumps(row, 2))
        digests.append(digest.digest())
    return b"".join(digests)
