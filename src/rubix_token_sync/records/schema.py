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
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "COLUMN_SIZES",
    "DATABASE_KEY_BYTES",
    "RECORDS",
    "RECORD_KEY_BYTES",
    "RECORD_SCHEMA",
    "ROW_DIGEST_BYTES",
    "SOURCE_COLUMNS",
    "Column",
    "RecordTable",
    "SourceRow",
    "database_key",
    "digest_prefix",
    "record_key",
    "row_digest",
]

SqliteValue = str | bytes | int | float | None
SourceRow = tuple[SqliteValue, ...]
"""One row of TokensTable: the values of `SOURCE_COLUMNS` as SQLite has them."""

DATABASE_KEY_BYTES: Final = 8
RECORD_KEY_BYTES: Final = 24
ROW_DIGEST_BYTES: Final = 16

Kind = Literal["bytes", "text", "time", "flag"]


@dataclass(frozen=True)
class Column:
    """One column of TokenRecords: everything that the program says of it, said once."""

    name: str
    kind: Kind
    size: int | None = None
    """Bytes, or the UTF-16 code units of a text (as SQL Server counts); None: unbounded."""
    required: bool = False
    """Every record that a sync writes has a value."""
    default: Literal["now", "false"] | None = None
    """What the target's table fills in; it then allows NULL, as the guide's table does."""
    by_target: bool = False
    """The target's own: not part of a batch."""
    source: int | None = None
    """Its place in the node's row, from which the digest is made; None: not the node's."""
    by_key: bool = False
    """Records with the same key have the same value: an update need not set it."""
    compared: bool = False
    """Can differ where the row digest does not: an upsert compares it, too."""
    indexed: bool = False
    """Has one of the guide's secondary indexes, which a first load builds at its end."""

    @property
    def arrow(self) -> pa.DataType:
        """Its type in a record batch."""
        import pyarrow as pa

        types = {
            "bytes": pa.binary(self.size or -1),
            "text": pa.string(),
            "time": pa.timestamp("us"),  # UTC without a zone, as DATETIME2 has it
            "flag": pa.bool_(),
        }
        return types[self.kind]


@dataclass(frozen=True)
class RecordTable:
    """The columns of TokenRecords, in the guide's order, and what is derived from them.

    ``id`` in front and ``source_deleted_at`` behind are the target's, the same everywhere.
    """

    columns: tuple[Column, ...]

    def __getitem__(self, name: str) -> Column:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}

    @cached_property
    def staged(self) -> tuple[Column, ...]:
        """The columns of a batch, in its order: key and digest first."""
        batch = [column for column in self.columns if not column.by_target]
        return tuple(sorted(batch, key=lambda column: column.kind != "bytes"))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of `staged`."""
        return tuple(column.name for column in self.staged)

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema of a batch."""
        import pyarrow as pa

        fields = [pa.field(c.name, c.arrow, nullable=not c.required) for c in self.staged]
        return pa.schema(fields)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """UTF-16 code units of the bounded texts."""
        return {c.name: c.size for c in self.columns if c.kind == "text" and c.size is not None}

    @cached_property
    def source(self) -> tuple[str, ...]:
        """What is read of a node's TokensTable, in this order; missing ones are NULL."""
        read = [(c.source, c.name) for c in self.columns if c.source is not None]
        return tuple(name for _, name in sorted(read))

    @cached_property
    def compared(self) -> tuple[Column, ...]:
        """What an upsert compares, the digest first."""
        return tuple(column for column in self.staged if column.compared)

    @cached_property
    def indexed(self) -> tuple[str, ...]:
        """Columns with a secondary index."""
        return tuple(column.name for column in self.columns if column.indexed)


RECORDS: Final = RecordTable(
    (
        Column("source_ip", "text", 45, required=True, by_key=True, indexed=True),
        Column("node_name", "text", 255, required=True, indexed=True),
        Column("did", "text", 1000, source=1, indexed=True),
        Column("token_id", "text", 500, source=0, by_key=True, indexed=True),
        Column("created_at", "time", source=2),
        Column("updated_at", "time", source=3),
        Column("token_status", "text", 50, source=4),
        Column("parent_token_id", "text", 500, source=5),
        Column("token_value", "text", source=6),
        Column("ipfs_data", "text", compared=True),
        Column("ipfs_fetched", "flag", required=True, default="false", compared=True, indexed=True),
        Column("ipfs_error", "text", 1000, compared=True),
        Column("db_path", "text", 500, required=True, by_key=True, indexed=True),
        Column("ipfs_path", "text", 500),
        Column("db_last_modified", "time", required=True),
        Column("synced_at", "time", default="now", by_target=True, indexed=True),
        Column("validation_errors", "text", compared=True),
        # Added to the guide's: identity and change.
        Column("record_key", "bytes", RECORD_KEY_BYTES, required=True, by_key=True),
        Column("row_digest", "bytes", ROW_DIGEST_BYTES, required=True, compared=True),
    )
)
"""The one list of columns: a new one is one line here and a migration."""

if TYPE_CHECKING:
    RECORD_SCHEMA: pa.Schema
"""The columns a sync writes, as Arrow has them; made when it is asked for first (0.1 s)."""


def __getattr__(name: str) -> pa.Schema:
    if name != "RECORD_SCHEMA":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return RECORDS.schema


COLUMN_SIZES: Final = RECORDS.sizes
"""Sizes of the guide's NVARCHAR columns, in UTF-16 code units."""

SOURCE_COLUMNS: Final = RECORDS.source


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
