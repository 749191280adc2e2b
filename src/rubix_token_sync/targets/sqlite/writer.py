"""Writing rows into SQLite: straight into the table, by one upsert keyed by ``record_key``.

The transaction itself is the staging.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
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
        self._held = f"SELECT record_key FROM {table} WHERE record_key IN "  # noqa: S608
        self._upsert = (
            f"INSERT INTO {table} ({', '.join((*self._names, *stamps))})"  # noqa: S608 - our names
            f" VALUES ({', '.join('?' * (len(self._names) + len(stamps)))})"
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
        keeps = not chunk.replace and self._may_replace(conn, run)
        raw = driver(conn)
        changed = 0
        rows = chunk.rows.sort_by("record_key")  # neighbours in the unique index, one after another
        for start in range(0, rows.num_rows, self._batch_size):
            failpoints.point("store.stage")
            batch = list(_tuples(rows.slice(start, self._batch_size), *stamps))
            if keeps:
                raw.executemany(self._keep, self._there(raw, batch))
            changes = raw.total_changes
            raw.executemany(self._upsert, batch)
            changed += raw.total_changes - changes
        inserted = int(conn.exec_driver_sql(self._highest).scalar_one()) - int(before)
        if changed > inserted and self._seldom:
            names = (*self._seldom, "record_key")
            values = zip(*(rows.column(name).to_pylist() for name in names), strict=True)
            raw.executemany(self._set_seldom, values)
        return Published(inserted=inserted, updated=changed - inserted, batches=1)

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
    import pyarrow as pa

    columns = [
        column.cast(pa.string()) if pa.types.is_timestamp(column.type) else column
        for column in rows.columns
    ]
    values = (column.to_pylist() for column in columns)
    return zip(*values, *map(itertools.repeat, stamps), strict=False)  # stamps never end
