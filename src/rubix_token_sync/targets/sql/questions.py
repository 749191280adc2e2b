"""What the target holds: states, known rows, content, whole records."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.records.kinds import TREE_KINDS
from rubix_token_sync.records.schema import RECORD_KEY_BYTES, RECORDS, RecordTable
from rubix_token_sync.targets.base import DatabaseState, KnownContent, StrayRecord
from rubix_token_sync.targets.sql.column_types import fixed_bytes
from rubix_token_sync.targets.sql.database import Database
from rubix_token_sync.targets.sql.tables import NOT_A_TIME

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Questions", "as_batch", "key_range", "live_count", "parts"]

_TOKEN_SUFFIX = RECORD_KEY_BYTES - 8
_IN_LIST = 500
_COUNTED_AT_ONCE = 100
"""Databases whose records one statement counts: a server far away is asked seldom."""

T = TypeVar("T")


def key_range(database_key: bytes) -> tuple[bytes, bytes]:
    """Smallest and largest record key of a database."""
    return database_key + b"\x00" * _TOKEN_SUFFIX, database_key + b"\xff" * _TOKEN_SUFFIX


def live_count(records: sa.Table, low: bytes, high: bytes) -> sa.ScalarSelect[int]:
    """How many rows of a range of keys live, counted by the server."""
    live = (records.c.record_key.between(low, high), records.c.source_deleted_at.is_(None))
    return sa.select(sa.func.count()).where(*live).scalar_subquery()


def parts(items: Sequence[T], size: int = _IN_LIST) -> Iterator[Sequence[T]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _with_ranges(text: str, database_keys: Sequence[bytes]) -> sa.TextClause:
    """``:low0`` and ``:high0`` of the first database and so on, as keys are: else an index on
    the key is of no use to SQL Server."""
    kind = fixed_bytes(RECORD_KEY_BYTES)
    edges = [
        sa.bindparam(f"{edge}{n}", value, kind)
        for n, key in enumerate(database_keys)
        for edge, value in zip(("low", "high"), key_range(key), strict=True)
    ]
    return sa.text(text).bindparams(*edges)


class Questions:
    """What the target holds; see the same names in `rubix_token_sync.targets.base.Target`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tables = database.tables

    def database_states(self, source: str | None) -> list[DatabaseState]:
        databases = self._tables.databases
        names = [name for name in DatabaseState.__dataclass_fields__ if name in databases.c]
        counted = {one.columns.name: one.columns.counted_as for one in self._tables.companions}
        query = sa.select(*(databases.c[name] for name in (*names, *counted.values()))).order_by(
            databases.c.db_path
        )
        if source is not None:
            query = query.where(databases.c.source_ip == source)

        def work(conn: sa.Connection) -> list[DatabaseState]:
            failpoints.point("store.states")
            return [
                DatabaseState(
                    **{name: row._mapping[name] for name in names}
                    | {"database_key": bytes(row.database_key)},
                    companions={table: row._mapping[c] or 0 for table, c in counted.items()},
                )
                for row in conn.execute(query)
            ]

        return self._database.read(work)

    def holds_records(self) -> bool:
        query = sa.select(self._tables.records.c.id).limit(1)
        return self._database.read(lambda conn: conn.execute(query).first()) is not None

    def holds_content(self) -> bool:
        records = self._tables.records
        query = sa.select(records.c.id).where(records.c.ipfs_fetched == sa.true()).limit(1)
        database = self._database

        def work(conn: sa.Connection) -> bool:
            there = conn.execute(query).first() is not None
            # Until a first load has ended, what it holds can be found by a search of it all only.
            return there and not database.backend.unfinished_load(conn, database)

        return database.read(work)

    def known_rows(self, database_key: bytes, table: RecordTable = RECORDS) -> tuple[bytes, bytes]:
        low, high = key_range(database_key)
        own = self._tables.stored[table.name].columns

        def work(conn: sa.Connection) -> tuple[bytes, bytes]:
            failpoints.point("store.known")
            return self._database.backend.known_rows(conn, low, high, own)

        return self._database.read(work)

    def known_content(self, record_keys: Sequence[bytes]) -> dict[bytes, KnownContent]:
        records = self._tables.records
        columns = (records.c.record_key, *self._content_columns())

        def work(conn: sa.Connection) -> dict[bytes, KnownContent]:
            failpoints.point("store.content")
            return {
                bytes(row[0]): KnownContent(row[1], bool(row[2]), row[3], row[4])
                for part in parts(record_keys)
                for row in conn.execute(sa.select(*columns).where(records.c.record_key.in_(part)))
            }

        return self._database.read(work) if record_keys else {}

    def _content_columns(self) -> tuple[sa.ColumnElement[Any], ...]:
        """Those of `KnownContent`."""
        records = self._tables.records.c
        named = sa.case((records.token_kind.in_(TREE_KINDS), records.attributes))
        return records.ipfs_data, records.ipfs_fetched, records.ipfs_error, named

    def content_of_tokens(self, token_ids: Sequence[str]) -> dict[str, KnownContent]:
        records = self._tables.records
        columns = (records.c.token_id, *self._content_columns())

        def work(conn: sa.Connection) -> dict[str, KnownContent]:
            failpoints.point("store.content")
            wanted = set(token_ids)
            return {
                row[0]: KnownContent(row[1], bool(row[2]), row[3], row[4])
                for part in parts(token_ids)
                for row in conn.execute(
                    sa.select(*columns).where(
                        records.c.token_id.in_(part),
                        records.c.ipfs_fetched == sa.true(),
                        records.c.ipfs_data.is_not(None),
                    )
                )
                if row[0] in wanted  # a collation may ignore case; token ids do not
            }

        return self._database.read(work) if token_ids else {}

    def failed_tokens(self, database_key: bytes) -> set[bytes]:
        records = self._tables.records
        low, high = key_range(database_key)
        query = sa.select(records.c.record_key).where(
            records.c.record_key.between(low, high),
            records.c.source_deleted_at.is_(None),
            records.c.ipfs_fetched == sa.false(),
        )
        return self._database.read(lambda conn: {bytes(row[0]) for row in conn.execute(query)})

    def records_by_key(
        self, record_keys: Sequence[bytes], table: RecordTable = RECORDS
    ) -> dict[bytes, dict[str, Any]]:
        stored = self._tables.stored[table.name]
        records = stored.table
        columns = [records.c[column.name] for column in stored.columns.staged]
        plain = {
            column.name: bytes if column.kind == "bytes" else bool
            for column in stored.columns.staged
            if column.required and column.kind in ("bytes", "flag")
        }

        def work(conn: sa.Connection) -> dict[bytes, dict[str, Any]]:
            return {
                bytes(row.record_key): {
                    **row._mapping,
                    **{name: kind(row._mapping[name]) for name, kind in plain.items()},
                }
                for part in parts(record_keys)
                for row in conn.execute(sa.select(*columns).where(records.c.record_key.in_(part)))
            }

        return self._database.read(work) if record_keys else {}

    def count_live(self, database_keys: Collection[bytes]) -> dict[bytes, dict[str, int]]:
        keys = list(database_keys)
        stored = [(name, one.table.name) for name, one in self._tables.stored.items()]

        def work(conn: sa.Connection) -> dict[bytes, dict[str, int]]:
            found: dict[bytes, dict[str, int]] = {key: {} for key in keys}
            for some in parts(keys, _COUNTED_AT_ONCE):
                counts = " UNION ALL ".join(
                    f"SELECT {n} AS place, {at} AS stored, COUNT(*) AS live FROM {table}"  # noqa: S608 - our names
                    f" WHERE record_key BETWEEN :low{n} AND :high{n}"
                    " AND source_deleted_at IS NULL"
                    for n in range(len(some))
                    for at, (_, table) in enumerate(stored)
                )
                for place, at, live in conn.execute(_with_ranges(counts, some)):
                    found[some[place]][stored[at][0]] = int(live)
            return found

        return self._database.read(work) if keys else {}

    def stray_records(self, source: str, database_keys: Collection[bytes]) -> list[StrayRecord]:
        ranges = [key_range(key) for key in sorted(set(database_keys))]
        above = [None, *(high for _, high in ranges)]
        below = [*(low for low, _ in ranges), None]

        def work(conn: sa.Connection) -> list[StrayRecord]:
            found: list[StrayRecord] = []
            for name, stored in self._tables.stored.items():
                rows = stored.table.c
                query = sa.select(rows.record_key, rows.db_path, rows[stored.columns.label]).where(
                    rows.source_ip == source, rows.source_deleted_at.is_(None)
                )
                for high, low in zip(above, below, strict=True):
                    gap = query
                    if high is not None:
                        gap = gap.where(rows.record_key > high)
                    if low is not None:
                        gap = gap.where(rows.record_key < low)
                    found += [
                        StrayRecord(bytes(row[0]), row[1], row[2], name)
                        for row in conn.execute(gap)
                    ]
            return found

        return self._database.read(work)

    def stored_records(
        self, database_key: bytes, table: RecordTable = RECORDS
    ) -> Iterator[pa.RecordBatch]:
        low, high = key_range(database_key)
        own = self._tables.stored[table.name].columns
        with self._database.view() as conn:
            yield from self._database.backend.scan(conn, low, high, own)

    def all_records(
        self, conn: sa.Connection, table: RecordTable = RECORDS
    ) -> Iterator[pa.RecordBatch]:
        """Live rows of every database, in key order; on a connection of `Database.moment`."""
        own = self._tables.stored[table.name].columns
        low, high = bytes(RECORD_KEY_BYTES), b"\xff" * RECORD_KEY_BYTES
        yield from self._database.backend.scan(conn, low, high, own)


def as_batch(rows: Sequence[Sequence[Any]], columns: RecordTable) -> pa.RecordBatch:
    """Rows of a driver, with the columns of a batch, as one."""
    import pyarrow as pa

    arrays = [
        _array(values, field)
        for values, field in zip(zip(*rows, strict=True), columns.schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=columns.schema)


def _array(values: Sequence[Any], field: pa.Field) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_boolean(field.type):
        values = [None if value is None else bool(value) for value in values]
    try:
        return _typed(values, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.concat_arrays([_one(value, field.type) for value in values])


def _typed(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        present = next((value for value in values if value is not None), None)
        if isinstance(present, str):  # SQLite keeps times as text
            return pa.array(values, pa.string()).cast(kind)
    return pa.array(values, kind)


_LOWEST: Final = -(2**63)


def _one(value: Any, kind: pa.DataType) -> pa.Array:
    """A value; what is not of its column's type becomes what no record has there.

    SQLite stores anything in any column: somebody else wrote it, and `verify` has to say so.
    """
    import pyarrow as pa

    try:
        return _typed([value], kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        if pa.types.is_int64(kind):
            return pa.array([_LOWEST], kind)
        if pa.types.is_timestamp(kind):
            return pa.array([NOT_A_TIME], kind)
        return pa.array([f"not text: {value!r}"], kind)
