"""The PostgreSQL target.

New rows go into the table by binary COPY.  Others are staged so in a temporary
table of the same transaction and published by one ``INSERT … ON CONFLICT``: a
dead run leaves nothing behind.

The lease is fenced by a shared row lock: the writers of one run do not wait
for each other, nor for the heartbeat (which changes no key), and whoever takes
the lease over (``FOR UPDATE``) waits until the last of them has ended.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import psycopg
import pyarrow as pa
import sqlalchemy as sa
from pydantic import SecretStr

from rubix_token_sync import failpoints
from rubix_token_sync.errors import SyncError
from rubix_token_sync.targets.base import Chunk, Lease, Published, TargetOptions
from rubix_token_sync.targets.postgresql.address import PostgresAddress
from rubix_token_sync.targets.postgresql.connection import BoundedConnection, driver
from rubix_token_sync.targets.postgresql.copy import KnownRows, copy_payload
from rubix_token_sync.targets.postgresql.errors import translate_error
from rubix_token_sync.targets.sql.publishing import SqlStore, key_range, lost
from rubix_token_sync.targets.sql.tables import LATE_INDEXES, STAGED_COLUMNS

__all__ = ["PostgresStore"]

_SCHEMA_LOCK: Final = 0x5275_6269_7853_796E  # any number; the same in every version
_INDEX_LOCK: Final = _SCHEMA_LOCK + 1
_COPY_ROWS: Final = 4_000
_POLL_SECONDS: Final = 0.2
_BUILDERS: Final = 2
"""Indexes that are built at the same time."""
_LOCKED_BYTES: Final = 2 << 30
"""Other sources' writers may have to wait for an index of a table of that size, not of a larger."""
_CHANGING = ("row_digest", "ipfs_data", "ipfs_fetched", "ipfs_error", "validation_errors")


class PostgresStore(SqlStore):
    """A target on a PostgreSQL server (10 or newer)."""

    kind = "postgresql"
    now = sa.text("timezone('utc', clock_timestamp())")

    def __init__(self, address: SecretStr, options: TargetOptions) -> None:
        self.address = PostgresAddress.parse(address)
        self.place = self.address.place
        self.writers = max(1, min(2, options.pool_size - 1))
        engine = sa.create_engine(
            "postgresql+psycopg://",
            creator=self._open,
            pool_size=options.pool_size,
            max_overflow=0,
            pool_timeout=options.call_seconds,
            pool_pre_ping=True,
            pool_use_lifo=True,
        )
        super().__init__(engine, options)

    def _open(self) -> BoundedConnection:
        failpoints.point("store.open")
        conn = BoundedConnection.connect(
            **self.address.connection_arguments(),  # type: ignore[arg-type] # names from libpq
            autocommit=True,
            prepare_threshold=None,  # nothing stays behind in a pooler's connection
        )
        conn.call_seconds = self.options.call_seconds + 10  # the server's own limit comes first
        milliseconds = int(self.options.call_seconds * 1000)
        try:
            conn.execute(
                f"SET statement_timeout = {milliseconds}; SET lock_timeout = {milliseconds};"
                f" SET idle_in_transaction_session_timeout = {5 * milliseconds};"
                " SET timezone = 'UTC'; SET datestyle = 'ISO'; SET client_encoding = 'UTF8';"
                " SET synchronous_commit = on"
                + ("; SET default_transaction_read_only = on" if self.options.read_only else "")
            )
        except psycopg.Error:
            conn.close()
            raise
        conn.autocommit = False
        return conn

    # ---------------------------------------------------------------- errors

    def translate(self, error: BaseException, *, committing: bool = False) -> SyncError:
        original = getattr(error, "orig", None) or error
        found = translate_error(original, self.place, committing=committing)
        found.message = self.address.redact(found.message)
        return found

    def _driver_errors(self) -> tuple[type[BaseException], ...]:
        return (psycopg.Error, OSError, UnicodeError, OverflowError)

    # ---------------------------------------------------------------- schema, lease

    def describe_connection(self) -> str:
        def work(conn: sa.Connection) -> str:
            version = conn.exec_driver_sql("SHOW server_version").scalar_one()
            user = conn.exec_driver_sql("SELECT current_user").scalar_one()
            tls = "TLS" if driver(conn).pgconn.ssl_in_use else "no TLS"
            return f"PostgreSQL {version}, {tls}, user {user}"

        return self.read(work)

    @contextlib.contextmanager
    def _schema_lock(self, conn: sa.Connection) -> Iterator[None]:
        # An upgrade of old tables can take long, and so can waiting for another's.
        conn.exec_driver_sql("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        with driver(conn).unbounded():
            conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
            yield

    def _fence(self, conn: sa.Connection, lease: Lease) -> None:
        leases = self.tables.leases
        ours = conn.execute(
            sa.select(leases.c.session_id)
            .where(leases.c.source_ip == lease.source, leases.c.session_id == lease.session_id)
            .with_for_update(read=True, key_share=True)
        ).first()
        if ours is None:
            raise lost(lease)

    # ---------------------------------------------------------------- indexes

    def prepare_load(self) -> None:
        """A first load builds the secondary indexes at its end, any other has them.

        A run that died before its end leaves them to this call of the next one.
        """
        records = self.tables.records

        def work(conn: sa.Connection) -> bool:
            empty = conn.execute(sa.select(records.c.id).limit(1)).first() is None
            if not empty or not _owns_records(conn):
                return False
            failpoints.point("store.indexes.drop")
            for column in LATE_INDEXES:
                conn.exec_driver_sql(f"DROP INDEX IF EXISTS {_index(column)}")
            return True

        if not self.transact(work):
            self.finish_load()

    def finish_load(self) -> None:
        """Build missing secondary indexes while others go on writing; statistics.

        Both are the owner's right; for another user the indexes stay as they are.
        """
        if not self.read(_owns_records):
            return
        missing = self.read(self._missing_indexes)
        if missing:
            self._retrying(self._build_indexes)
        if missing or not self.read(self._has_statistics):
            self.transact(self._analyze)

    def _missing_indexes(self, conn: sa.Connection) -> list[str]:
        """Columns whose secondary index is not there, or was left half built."""
        valid = {
            row[0]
            for row in conn.exec_driver_sql(
                "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
                " WHERE i.indrelid = 'tokenrecords'::regclass AND i.indisvalid"
            )
        }
        return [column for column in LATE_INDEXES if _index(column) not in valid]

    def _build_indexes(self) -> None:
        """As fast as can be where nobody else writes; else so that others need not wait.

        A session lock keeps builders apart: CONCURRENTLY cannot run in a transaction.
        """
        with self._translated(), self._session() as conn:
            self._lock_indexes(conn)
            missing = self._missing_indexes(conn)
            if self._may_lock(conn):
                with ThreadPoolExecutor(_BUILDERS) as pool:
                    list(pool.map(self._build_locking, missing))
            else:
                for column in missing:
                    _build(conn, column, "CONCURRENTLY")

    def _may_lock(self, conn: sa.Connection) -> bool:
        """Whether writers of other sources are none, and would not wait long if they came."""
        size = conn.exec_driver_sql("SELECT pg_relation_size('tokenrecords')").scalar_one()
        alone = len(self.leases()) < 2
        return alone and size < _LOCKED_BYTES and self.options.pool_size > _BUILDERS + 1

    def _build_locking(self, column: str) -> None:
        with self._session() as conn:
            _build(conn, column)

    @contextlib.contextmanager
    def _session(self) -> Iterator[sa.Connection]:
        """A connection without transactions and time limits; ends with the context."""
        failpoints.point("store.connect")
        with self.engine.connect() as plain:
            conn = plain.execution_options(isolation_level="AUTOCOMMIT")
            with driver(conn).unbounded():
                conn.exec_driver_sql(
                    "SET statement_timeout = 0; SET lock_timeout = 0;"
                    " SET maintenance_work_mem = '256MB'"
                )
                try:
                    yield conn
                finally:
                    conn.invalidate()  # its locks and settings go with it

    def _lock_indexes(self, conn: sa.Connection) -> None:
        # Asked for again and again: a statement that waits for it would hold a snapshot,
        # and the holder's CREATE INDEX CONCURRENTLY would wait for that.
        while not conn.exec_driver_sql(f"SELECT pg_try_advisory_lock({_INDEX_LOCK})").scalar_one():
            time.sleep(_POLL_SECONDS)

    def _has_statistics(self, conn: sa.Connection) -> bool:
        query = "SELECT reltuples > 0 FROM pg_class WHERE oid = 'tokenrecords'::regclass"
        return bool(conn.exec_driver_sql(query).scalar_one())

    def _analyze(self, conn: sa.Connection) -> None:
        failpoints.point("store.analyze")
        conn.exec_driver_sql("SET LOCAL statement_timeout = 0")
        with driver(conn).unbounded():
            conn.exec_driver_sql("ANALYZE tokenrecords")

    # ---------------------------------------------------------------- writing

    def _write_rows(self, conn: sa.Connection, chunk: Chunk) -> Published:
        counts = (self._insert(conn, chunk) if chunk.new else None) or self._merge(conn, chunk)
        inserted, updated = counts
        return Published(
            inserted=inserted, updated=updated, batches=1, bulk_loads=1 if chunk.bulk else 0
        )

    def _insert(self, conn: sa.Connection, chunk: Chunk) -> tuple[int, int] | None:
        """Straight into the table; None when a record is there after all."""
        try:
            with conn.begin_nested():
                failpoints.point("store.publish.rows")
                # Neighbours in the unique index, one after another.
                return _copy_in(conn, _COPY_NEW, chunk.rows.sort_by("record_key")), 0
        except psycopg.errors.UniqueViolation:
            return None

    def _merge(self, conn: sa.Connection, chunk: Chunk) -> tuple[int, int]:
        conn.exec_driver_sql(_CREATE_STAGING)
        _copy_in(conn, _COPY_STAGED, chunk.rows)
        failpoints.point("store.publish.rows")
        inserted, updated = conn.exec_driver_sql(_PUBLISH).one()
        conn.exec_driver_sql("DROP TABLE staged")
        return inserted, updated

    # ---------------------------------------------------------------- reading

    def known_rows(self, database_key: bytes) -> tuple[bytes, bytes]:
        low, high = key_range(database_key)

        def work(conn: sa.Connection) -> tuple[bytes, bytes]:
            failpoints.point("store.known")
            known = KnownRows()
            with driver(conn).cursor() as cursor, cursor.copy(_COPY_KNOWN, (low, high)) as copy:
                for data in copy:
                    known.feed(data)
            return known.columns()

        return self.read(work)


def _build(conn: sa.Connection, column: str, how: str = "") -> None:
    failpoints.point("store.indexes.build")
    conn.exec_driver_sql(f"DROP INDEX IF EXISTS {_index(column)}")  # left half built
    conn.exec_driver_sql(f"CREATE INDEX {how} {_index(column)} ON tokenrecords ({column})")


def _copy_in(conn: sa.Connection, statement: str, rows: pa.RecordBatch) -> int:
    """Records that the server took."""
    failpoints.point("store.stage")
    with driver(conn).cursor() as cursor:
        with cursor.copy(statement) as copy:
            for part in copy_payload(rows, _COPY_ROWS):
                copy.write(part)
        return cursor.rowcount


def _owns_records(conn: sa.Connection) -> bool:
    query = (
        "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'tokenrecords'::regclass"
    )
    return bool(conn.exec_driver_sql(query).scalar_one())


def _index(column: str) -> str:
    return f"ix_tokenrecords_{column}"


_CREATE_STAGING: Final = (
    "CREATE TEMPORARY TABLE staged ON COMMIT DROP AS"  # noqa: S608 - our names
    f" SELECT {', '.join(STAGED_COLUMNS)} FROM tokenrecords WITH NO DATA"
)
_COPY_STAGED: Final = f"COPY staged ({', '.join(STAGED_COLUMNS)}) FROM STDIN (FORMAT BINARY)"
_COPY_NEW: Final = f"COPY tokenrecords ({', '.join(STAGED_COLUMNS)}) FROM STDIN (FORMAT BINARY)"
_COPY_KNOWN: Final = (
    "COPY (SELECT record_key, row_digest FROM tokenrecords"
    " WHERE record_key BETWEEN %s AND %s AND source_deleted_at IS NULL)"
    " TO STDOUT (FORMAT BINARY)"
)


def _publish() -> str:
    columns = ", ".join(STAGED_COLUMNS)
    now = "timezone('utc', clock_timestamp())"
    sets = ", ".join(f"{name} = excluded.{name}" for name in (*STAGED_COLUMNS[1:], "synced_at"))
    stored = ", ".join(f"tokenrecords.{name}" for name in _CHANGING)
    fresh = ", ".join(f"excluded.{name}" for name in _CHANGING)
    # A row that this statement inserted has no xmax; one that it locked and updated has.
    return (
        f"WITH done AS (INSERT INTO tokenrecords ({columns}, synced_at)"  # noqa: S608 - our names
        f" SELECT {columns}, {now} FROM staged ORDER BY record_key"
        f" ON CONFLICT (record_key) DO UPDATE SET {sets}, source_deleted_at = NULL"
        f" WHERE ({stored}) IS DISTINCT FROM ({fresh})"
        "  OR tokenrecords.source_deleted_at IS NOT NULL"
        " RETURNING xmax = 0 AS fresh)"
        " SELECT count(*) FILTER (WHERE fresh), count(*) FILTER (WHERE NOT fresh) FROM done"
    )


_PUBLISH: Final = _publish()
