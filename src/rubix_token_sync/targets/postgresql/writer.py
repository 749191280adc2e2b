"""Writing rows into PostgreSQL.

New rows go into the table by binary COPY.  Others are staged so in a temporary
table of the same transaction and published by one ``INSERT … ON CONFLICT``: a
dead run leaves nothing behind.
"""

from __future__ import annotations

from typing import Final

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.records.schema import RecordTable
from rubix_token_sync.targets.base import Chunk, Published
from rubix_token_sync.targets.postgresql.connection import NOW, driver
from rubix_token_sync.targets.postgresql.copy_format import copy_payload
from rubix_token_sync.targets.sql.history import keep_sql

__all__ = ["Writer"]

_COPY_ROWS: Final = 4_000
_SAFE_KEY_BYTES: Final = 2_000
"""An index takes any key of so many bytes; of a longer one it depends on how it compresses."""


class Writer:
    """The statements for one table of records."""

    def __init__(self, columns: RecordTable) -> None:
        names, table = ", ".join(columns.names), columns.name
        self._indexed = [
            c.name
            for c in columns.staged
            if c.indexed and c.kind == "text" and 3 * (c.size or _SAFE_KEY_BYTES) > _SAFE_KEY_BYTES
        ]
        self._create_staging = (
            "CREATE TEMPORARY TABLE staged ON COMMIT DROP AS"  # noqa: S608 - our names
            f" SELECT {names} FROM {table} WITH NO DATA"
        )
        self._copy_staged = f"COPY staged ({names}) FROM STDIN (FORMAT BINARY)"
        self._copy_new = f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)"
        self._versioned = columns.versioned
        changed = (*(name for name in columns.names if name != "record_key"), "synced_at")
        sets = ", ".join(f"{name} = excluded.{name}" for name in changed)
        stamps, stamped = "synced_at", NOW
        if self._versioned:  # see `later_run`
            sets += f", since_run = greatest({table}.since_run, excluded.since_run)"
            stamps, stamped = f"{stamps}, since_run", f"{stamped}, %(run)s"
            self._copy_new = f"COPY {table} ({names}, since_run) FROM STDIN (FORMAT BINARY)"
        old = ", ".join(f"r.{c.name}" for c in columns.compared)
        new = ", ".join(f"s.{c.name}" for c in columns.compared)
        # Locked, so that nobody changes them before they are replaced; in order, as by the upsert.
        self._keep = (
            keep_sql(
                columns,
                run="%(run)s",
                found=f"{table} AS r JOIN staged AS s ON s.record_key = r.record_key",
                differs=lambda c: f"r.{c.name} IS DISTINCT FROM s.{c.name}",
                replaced=f"({old}) IS DISTINCT FROM ({new}) OR r.source_deleted_at IS NOT NULL",
            )
            + " ORDER BY r.record_key FOR UPDATE OF r"
        )
        stored = ", ".join(f"{table}.{c.name}" for c in columns.compared)
        fresh = ", ".join(f"excluded.{c.name}" for c in columns.compared)
        # A row that this statement inserted has no xmax; one that it locked and updated has.
        self._publish = (
            f"WITH done AS (INSERT INTO {table} ({names}, {stamps})"  # noqa: S608 - our names
            f" SELECT {names}, {stamped} FROM staged ORDER BY record_key"
            f" ON CONFLICT (record_key) DO UPDATE SET {sets}, source_deleted_at = NULL"
            f" WHERE ({stored}) IS DISTINCT FROM ({fresh})"
            f"  OR {table}.source_deleted_at IS NOT NULL"
            " RETURNING xmax = 0 AS fresh)"
            " SELECT count(*) FILTER (WHERE fresh), count(*) FILTER (WHERE NOT fresh) FROM done"
        )

    def write(self, conn: sa.Connection, chunk: Chunk, run: int) -> Published:
        """Insert new and update different records."""
        self._try_keys(conn, chunk.rows)
        counts = (self._insert(conn, chunk, run) if chunk.new else None) or self._merge(
            conn, chunk, run
        )
        inserted, updated = counts
        return Published(
            inserted=inserted, updated=updated, batches=1, bulk_loads=1 if chunk.bulk else 0
        )

    def _try_keys(self, conn: sa.Connection, rows: pa.RecordBatch) -> None:
        """Have the server refuse now what an index that is built later could not take."""
        for name in self._indexed:
            column = rows.column(name)
            long = column.filter(pc.greater(pc.binary_length(column), _SAFE_KEY_BYTES))
            if not len(long):
                continue
            conn.exec_driver_sql("CREATE TEMPORARY TABLE keys (key text) ON COMMIT DROP")
            conn.exec_driver_sql("CREATE INDEX ON keys (key)")
            for value in long.to_pylist():
                conn.exec_driver_sql("INSERT INTO keys VALUES (%s)", (value,))
            conn.exec_driver_sql("DROP TABLE keys")

    def keep(self, conn: sa.Connection, chunk: Chunk, run: int) -> None:
        """Keep the records that ``chunk`` replaces."""
        if self._versioned:
            self._stage(conn, chunk)
            conn.exec_driver_sql(self._keep, {"run": run})
            conn.exec_driver_sql("DROP TABLE staged")

    def _insert(self, conn: sa.Connection, chunk: Chunk, run: int) -> tuple[int, int] | None:
        """Straight into the table; None when a record is there after all."""
        try:
            with conn.begin_nested():
                failpoints.point("store.publish.rows")
                # Neighbours in the unique index, one after another.
                rows = chunk.rows.sort_by("record_key")
                if self._versioned:
                    since = pa.scalar(run, pa.int64())
                    rows = rows.append_column("since_run", pa.repeat(since, rows.num_rows))
                return _copy_in(conn, self._copy_new, rows), 0
        except psycopg.errors.UniqueViolation:
            return None

    def _stage(self, conn: sa.Connection, chunk: Chunk) -> None:
        conn.exec_driver_sql(self._create_staging)
        _copy_in(conn, self._copy_staged, chunk.rows)

    def _merge(self, conn: sa.Connection, chunk: Chunk, run: int) -> tuple[int, int]:
        self._stage(conn, chunk)
        failpoints.point("store.publish.rows")
        raw = driver(conn)
        with raw.together():
            if self._versioned and not chunk.replace:
                raw.execute(self._keep.encode(), {"run": run})
            done = raw.execute(self._publish.encode(), {"run": run})
            raw.execute(b"DROP TABLE staged")
        inserted, updated = done.fetchone() or (0, 0)
        return inserted, updated


def _copy_in(conn: sa.Connection, statement: str, rows: pa.RecordBatch) -> int:
    """Records that the server took."""
    failpoints.point("store.stage")
    with driver(conn).cursor() as cursor:
        with cursor.copy(statement) as copy:
            for part in copy_payload(rows, _COPY_ROWS):
                copy.write(part)
        return cursor.rowcount
