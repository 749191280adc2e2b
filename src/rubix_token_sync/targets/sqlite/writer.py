"""Writing rows into SQLite: straight into the table, by one upsert keyed by ``record_key``.

The transaction itself is the staging.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.records.schema import RecordTable
from rubix_token_sync.targets.base import Chunk, Published
from rubix_token_sync.targets.sql.history import keep_sql
from rubix_token_sync.targets.sqlite.connection import driver

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["NOW", "Writer"]

_Row: TypeAlias = tuple[Any, ...]
"""A row's values; its key comes first."""
_KEYS: Final = 900
"""Parameters that any SQLite takes in one statement."""

NOW = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


class Writer:
    """The statements for one table of records."""

    def __init__(self, columns: RecordTable, batch_size: int) -> None:
        self._batch_size = batch_size
        table = columns.name
        self._highest = f"SELECT coalesce(max(id), 0) FROM {table}"  # noqa: S608 - our names
        self._names = columns.names
        self._columns, self._versioned = columns, columns.versioned
        # SQLite rewrites the indexes of whatever is set, equal or not; the key says the one
        # kind already, and what is indexed is mostly as it was in a record that changed.
        set_always = [c.name for c in columns.staged if not (c.by_key or c.indexed)]
        self._seldom = [c.name for c in columns.staged if c.indexed and not c.by_key]
        stamps = ("synced_at", "since_run") if self._versioned else ("synced_at",)
        sets = ", ".join(f"{name} = excluded.{name}" for name in (*set_always, "synced_at"))
        if self._versioned:  # see `later_run`
            sets += f", since_run = max(coalesce({table}.since_run, 0), excluded.since_run)"
        differs = " OR ".join(
            f"{table}.{c.name} IS NOT excluded.{c.name}" for c in columns.compared
        )
        self._between = f"SELECT 1 FROM {table} WHERE record_key BETWEEN ? AND ? LIMIT 1"  # noqa: S608
        self._held = f"SELECT record_key FROM {table} WHERE record_key IN "  # noqa: S608
        self._stamps = stamps
        self._may_lack = frozenset(
            c.name for c in columns.staged if not c.required and c.default is None
        )
        self._on_conflict = (
            f" ON CONFLICT (record_key) DO UPDATE SET {sets}, source_deleted_at = NULL"
            f" WHERE {differs} OR {table}.source_deleted_at IS NOT NULL"
        )
        seldom = ", ".join(self._seldom)
        marks = ", ".join(f"?{number}" for number in range(1, len(self._seldom) + 1))
        self._set_seldom = (
            f"UPDATE {table} SET ({seldom}) = ({marks})"  # noqa: S608 - our names
            f" WHERE record_key = ?{len(self._seldom) + 1} AND ({seldom}) IS NOT ({marks})"
        )

    @cached_property
    def _keep(self) -> str:
        """Takes what the upsert takes, which most nights need not."""
        columns = self._columns
        number = {name: at for at, name in enumerate(self._names, 1)}
        run = f"?{len(self._names) + 2}"  # behind synced_at
        replaced = " OR ".join(f"r.{c.name} IS NOT ?{number[c.name]}" for c in columns.compared)
        return keep_sql(
            columns,
            run=run,
            found=f"{columns.name} AS r",
            differs=lambda column: f"r.{column.name} IS NOT ?{number[column.name]}",
            replaced=f"r.record_key = ?{number['record_key']}"
            f" AND ({replaced} OR r.source_deleted_at IS NOT NULL)",
        )

    def write(self, conn: sa.Connection, chunk: Chunk, run: int) -> Published:
        """Insert new and update different records."""
        before = conn.exec_driver_sql(self._highest).scalar_one()
        now = str(conn.exec_driver_sql(f"SELECT {NOW}").scalar_one())
        stamps = (now, run) if self._versioned else (now,)
        raw = driver(conn)
        changed = 0
        rows = chunk.rows.sort_by("record_key")  # neighbours in the unique index, one after another
        keeps = not chunk.replace and self._may_replace(conn, run) and self._any_between(raw, rows)
        for start in range(0, rows.num_rows, self._batch_size):
            failpoints.point("store.stage")
            part = rows.slice(start, self._batch_size)
            if keeps:
                raw.executemany(self._keep, self._there(raw, list(_tuples(part, *stamps))))
            changes = raw.total_changes
            self._upsert(raw, part, stamps)
            changed += raw.total_changes - changes
        inserted = int(conn.exec_driver_sql(self._highest).scalar_one()) - int(before)
        if changed > inserted and self._seldom:
            names = (*self._seldom, "record_key")
            values = zip(*(_values(rows.column(name)) for name in names), strict=True)
            raw.executemany(self._set_seldom, values)
        return Published(inserted=inserted, updated=changed - inserted, batches=1)

    def _upsert(self, raw: sqlite3.Connection, rows: pa.RecordBatch, stamps: _Row) -> None:
        """One statement for all rows; columns that hold nothing are not in it.

        Where a column is not, ``excluded`` has NULL.  Python's driver takes 56 ns to bind an
        integer, 0.15 µs for a text or a bytearray, 0.4 for a NULL or a truth value and 0.5 for
        bytes, for which it looks for an adapter each time.
        """
        sent = {
            name: column
            for name, column in zip(self._names, rows.columns, strict=True)
            if column.null_count < len(column) or name not in self._may_lack
        }
        names = (*sent, *self._stamps)
        statement = (
            f"INSERT INTO {self._columns.name} ({', '.join(names)})"  # noqa: S608 - our names
            f" VALUES ({', '.join('?' * len(names))}){self._on_conflict}"
        )
        values = (*map(_bindable, sent.values()), *map(itertools.repeat, stamps))
        raw.executemany(statement, zip(*values, strict=False))  # stamps never end

    def keep(self, conn: sa.Connection, chunk: Chunk, run: int) -> None:
        """Keep the records that ``chunk`` replaces."""
        if not self._may_replace(conn, run):
            return
        raw = driver(conn)
        for start in range(0, chunk.rows.num_rows, self._batch_size):
            batch = list(_tuples(chunk.rows.slice(start, self._batch_size), None, run))
            raw.executemany(self._keep, self._there(raw, batch))

    def _may_replace(self, conn: sa.Connection, run: int) -> bool:
        """Whether there is anything that is not this run's own."""
        if not self._versioned:
            return False
        query = "SELECT last_record_id FROM SyncRuns WHERE number = ?"
        return bool(conn.exec_driver_sql(query, (run,)).scalar())

    def _any_between(self, raw: sqlite3.Connection, rows: pa.RecordBatch) -> bool:
        """Whether the target holds any record from the first to the last: not of a new database."""
        keys = rows.column("record_key")
        ends = (keys[0].as_py(), keys[-1].as_py())
        return raw.execute(self._between, ends).fetchone() is not None

    def _there(self, raw: sqlite3.Connection, batch: list[_Row]) -> list[_Row]:
        """Those rows whose records the target holds; what it does not need not be looked for."""
        found: set[bytes] = set()
        for start in range(0, len(batch), _KEYS):
            keys = [row[0] for row in batch[start : start + _KEYS]]
            marks = f"({', '.join('?' * len(keys))})"
            found.update(row[0] for row in raw.execute(self._held + marks, keys))
        return [row for row in batch if row[0] in found]


def _tuples(rows: pa.RecordBatch, *stamps: Any) -> Iterator[_Row]:
    """The rows as SQLite takes them: times as SQLAlchemy's text form, ``stamps`` last."""
    values = map(_values, rows.columns)
    return zip(*values, *map(itertools.repeat, stamps), strict=False)  # stamps never end


def _values(column: pa.Array) -> list[Any]:
    import pyarrow as pa

    from rubix_token_sync.records.binary import python_values  # it loads Arrow

    column = column.cast(pa.string()) if pa.types.is_timestamp(column.type) else column
    return python_values(column)


def _bindable(column: pa.Array) -> Iterable[Any]:
    """Its values in the types that are bound fastest; many columns hold one value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if column.null_count:
        return _values(column)
    if pa.types.is_fixed_size_binary(column.type):
        return map(bytearray, _values(column))
    if column[0] == column[-1] and pc.all(pc.equal(column, column[0])).as_py():
        return itertools.repeat(_values(column.slice(0, 1))[0], len(column))
    return _values(column)
