"""The one data type on the way: a record batch with the columns of TokenRecords.

Keys and digests are defined here too, because they are part of that type:

* ``record_key`` (24 bytes) identifies a record: 8 bytes for (source, database),
  16 bytes for kind and token id.  All records of a database are neighbours in key
  order, so a range of keys is a database and inserts stay local.
* ``row_digest`` (16 bytes) changes when anything changes that the source says
  about the token: the row's values with their SQLite types, the kind, the network,
  the node's name and the repository's path.

Both are BLAKE2b (RFC 7693) and stable for ever: tests pin their values.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Sequence
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
    "record_keys",
    "row_digest",
]

SqliteValue = str | bytes | int | float | None
SourceRow = tuple[SqliteValue, ...]
"""One row of a node's table, as SQLite has it: `SOURCE_COLUMNS`, then what only its kind has."""

DATABASE_KEY_BYTES: Final = 8
RECORD_KEY_BYTES: Final = 24
ROW_DIGEST_BYTES: Final = 16

Kind = Literal["bytes", "text", "time", "flag", "integer"]


@dataclass(frozen=True)
class Column:
    """One column of a table of records: everything that the program says of it, said once."""

    name: str
    kind: Kind
    size: int | None = None
    """Bytes, or the UTF-16 code units of a text (as SQL Server counts); None: unbounded."""
    required: bool = False
    """Every record that a sync writes has a value."""
    default: Literal["now", "false", "rbt"] | None = None
    """What the target's table fills in, and what records of earlier editions get."""
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
    kept: bool = True
    """An old version keeps its value; content is immutable, so none keeps that."""

    @property
    def arrow(self) -> pa.DataType:
        """Its type in a record batch."""
        import pyarrow as pa

        types = {
            "bytes": pa.binary(self.size or -1),
            "text": pa.string(),
            "time": pa.timestamp("us"),  # UTC without a zone, as DATETIME2 has it
            "flag": pa.bool_(),
            "integer": pa.int64(),
        }
        return types[self.kind]


@dataclass(frozen=True)
class RecordTable:
    """The columns of one of the target's tables, in its order, and what is derived from them.

    ``id`` in front and ``source_deleted_at`` behind are the target's, the same everywhere.
    Every such table has ``record_key``, ``row_digest``, ``source_ip`` and ``db_path``.
    """

    columns: tuple[Column, ...]
    name: str = "TokenRecords"
    counted_as: str = "record_count"
    """The column of ProcessedDatabases that says how many live rows a database has in it."""
    label: str = "token_id"
    """The column by which people know a row."""
    covered: tuple[str, ...] = ("row_digest", "source_deleted_at")
    """What is asked of many rows at once: an index on the key carries it."""

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
        """What is read of a node's tables, in this order; missing ones are NULL."""
        read = [(c.source, c.name) for c in self.columns if c.source is not None]
        return tuple(name for _, name in sorted(read))

    @cached_property
    def compared(self) -> tuple[Column, ...]:
        """What an upsert compares, the digest first."""
        return tuple(column for column in self.staged if column.compared)

    @cached_property
    def versioned(self) -> bool:
        """Old versions of its rows are kept."""
        return "since_run" in self._by_name

    @cached_property
    def history(self) -> str:
        """The table of old versions, where they are kept."""
        return f"{self.name.removesuffix('s')}History"

    @cached_property
    def kept(self) -> tuple[Column, ...]:
        """What an old version keeps; what the key says is the same in all of them."""
        return tuple(c for c in self.columns if c.kept and not c.by_key)

    @cached_property
    def told_apart(self) -> tuple[Column, ...]:
        """By what versions differ: what is kept, but for the times of file and sync."""
        return tuple(c for c in self.kept if c.kind != "time" or c.source is not None)

    @cached_property
    def staging(self) -> str:
        """The table in which rows wait for their publication, where a target needs one."""
        return f"{self.name.removesuffix('s')}Staging"

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
        Column("ipfs_data", "text", compared=True, kept=False),
        Column("ipfs_fetched", "flag", required=True, default="false", compared=True, indexed=True),
        Column("ipfs_error", "text", 1000, compared=True),
        Column("db_path", "text", 500, required=True, by_key=True, indexed=True),
        Column("ipfs_path", "text", 500),
        Column("db_last_modified", "time", required=True),
        Column("synced_at", "time", default="now", by_target=True, indexed=True),
        Column("validation_errors", "text", compared=True),
        # Added to the guide's: identity and change.
        Column("record_key", "bytes", RECORD_KEY_BYTES, required=True, by_key=True),
        Column("row_digest", "bytes", ROW_DIGEST_BYTES, required=True, compared=True, kept=False),
        # Added: the kinds of token.  All that the first edition stored were of the kind rbt.
        Column("token_kind", "text", 20, required=True, default="rbt", by_key=True),
        Column("network", "text", 10),
        Column("token_state_hash", "text", 500, source=7),
        Column("transaction_id", "text", 500, source=8),
        Column("attributes", "text"),
        # Added: what is judged of the token, from its id and content.
        Column("verdict", "text", 30, compared=True),
        Column("verdict_source", "text", 50, compared=True),
        Column("token_level", "integer", compared=True),
        Column("token_number", "integer", compared=True),
        # Added: the run (SyncRuns) that wrote these values.  0: before history began; NULL: an
        # edition that knew fewer columns wrote them, and no version is kept of that.
        Column("since_run", "integer", by_target=True, kept=False),
    ),
    covered=("row_digest", "source_deleted_at", "ipfs_fetched"),
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


def record_key(
    database: bytes, token_id: SqliteValue, occurrence: int = 0, kind: str = "rbt"
) -> bytes:
    """24 bytes that stand for one token of one database.

    ``occurrence`` counts rows of a kind without a token id (NULL), in rowid order: they
    have nothing else to be told apart by.  ``kind`` is the name of a
    `rubix_token_sync.records.kinds.TokenKind`; keys of the kind rbt are the first edition's.
    """
    name = marshal.dumps(
        (token_id, occurrence) if kind == "rbt" else (token_id, occurrence, kind), 2
    )
    return database + blake2b(name, digest_size=16, person=b"rubix-token").digest()


def record_keys(database: bytes, ids: Iterable[SqliteValue], kind: str = "rbt") -> bytes:
    """`record_key` of many tokens, concatenated; occurrence 0 for all: 0.6 µs each."""
    dumps = marshal.dumps
    begin = blake2b(digest_size=16, person=b"rubix-token").copy
    keys: list[bytes] = []
    for token_id in ids:
        digest = begin()
        digest.update(dumps((token_id, 0) if kind == "rbt" else (token_id, 0, kind), 2))
        keys += (database, digest.digest())
    return b"".join(keys)


def digest_prefix(node_name: str, ipfs_path: str | None, kind: str, network: str | None) -> bytes:
    """What every row digest of one kind in one database starts from.

    A new version of it makes the next sync publish every record anew.
    """
    name = marshal.dumps((node_name, ipfs_path, kind, network), 2)
    return blake2b(name, digest_size=16, person=b"rubix-row-v2").digest()


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
