"""The embedded target: one SQLite file.

Durability: WAL with ``synchronous=NORMAL``.  A power cut can lose the last
transactions but never tears the file, and because ProcessedDatabases is
written in the same transactions as the records, the next run repeats exactly
what was lost.

The transaction itself is the staging: rows go straight into TokenRecords by
one upsert keyed by ``record_key``.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.errors import (
    RecordRefused,
    SyncError,
    TargetRefused,
    TargetUnavailable,
)
from rubix_token_sync.targets.base import Chunk, KnownContent, Published, TargetOptions
from rubix_token_sync.targets.sql.publishing import SqlStore, key_range
from rubix_token_sync.targets.sql.tables import LATE_INDEXES, STAGED_COLUMNS

__all__ = ["SqliteStore"]

_BUSY_SECONDS = 60
_PAGE_BYTES = 4_096  # a changed record rewrites whole pages: small ones are less to write
_CACHE_KIB = 32 * 1024
_WAL_PAGES = 16_384  # checkpoint after 64 MiB: fewer writes of the same page
_STALE_GROWTH = 2  # times as many records as when statistics were gathered
_NOW = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"

# The key says these already; SQLite rewrites the indexes of whatever is set.
_FIXED_BY_KEY = frozenset({"record_key", "source_ip", "token_id", "db_path"})
_SELDOM = ("did", "node_name", "ipfs_fetched")
"""Indexed, and mostly as they were in a record that changed: set only where they differ."""
_CHANGING = ("row_digest", "ipfs_data", "ipfs_fetched", "ipfs_error", "validation_errors")


class SqliteStore(SqlStore):
    """A target in one file; made on first use (mode 600)."""

    kind = "sqlite"
    one_writer = True
    now = sa.text(_NOW)

    def __init__(self, path: str, options: TargetOptions) -> None:
        self.path = Path(path).absolute()
        self.place = f"sqlite:///{self.path}"
        engine = sa.create_engine(
            "sqlite://",
            creator=self._open,
            poolclass=sa.pool.QueuePool,
            # One is kept, and its page cache: it does nearly all. One that was needed beside
            # it for a heartbeat would keep a second cache for the rest of the run.
            pool_size=1,
            max_overflow=max(1, min(options.pool_size, 5) - 1),
        )
        sa.event.listen(engine, "begin", _begin)
        super().__init__(engine, options)

    def _open(self) -> sqlite3.Connection:
        failpoints.point("store.open")
        if not self.options.read_only and not self.path.exists():
            # The records are nobody else's business; SQLite alone would use the umask.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        uri = f"{self.path.as_uri()}?mode={self._mode()}"
        conn = sqlite3.connect(
            uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            if self.options.read_only:
                conn.execute("PRAGMA query_only=ON")
            else:
                conn.execute(f"PRAGMA page_size={_PAGE_BYTES}")
                conn.execute("PRAGMA journal_mode=WAL")
                conn.execute("PRAGMA synchronous=NORMAL")
                conn.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
                conn.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        except sqlite3.Error:
            conn.close()
            raise
        return conn

    def _mode(self) -> str:
        """SQLite makes a -wal and a -shm for any reader; one that may write removes them, too."""
        if not self.options.read_only:
            return "rw"
        writable = os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)
        return "rw" if writable and not Path(f"{self.path}-wal").exists() else "ro"

    # ---------------------------------------------------------------- errors

    def translate(
        self,
        error: BaseException,
        *,
        committing: bool = False,  # noqa: ARG002 - a local commit is never in doubt
    ) -> SyncError:
        original = getattr(error, "orig", None) or error
        code = getattr(original, "sqlite_errorcode", None)
        primary = code & 0xFF if isinstance(code, int) else None
        context = {"sqlite": getattr(original, "sqlite_errorname", type(original).__name__)}
        where = str(self.path)
        if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return TargetUnavailable(
                f"{where} is locked by another program.",
                code="locked",
                remedy="Close what holds it open, or try again.",
                context=context,
            )
        if primary == sqlite3.SQLITE_FULL or getattr(original, "errno", None) == errno.ENOSPC:
            return TargetRefused(
                f"There is no room left for {where}.",
                code="disk_full",
                remedy="Free disk space and run again; nothing stored is lost.",
                context=context,
            )
        if primary in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH):
            return RecordRefused(f"{original}", code="refused", context=context)
        if isinstance(original, (OverflowError, UnicodeEncodeError, sqlite3.InterfaceError)):
            return RecordRefused(f"{original}", code="refused", context=context)
        if isinstance(original, (FileNotFoundError, NotADirectoryError)):
            return TargetRefused(
                f"The directory of {where} does not exist.",
                code="cannot_open",
                remedy=f"Make it (mkdir -p '{self.path.parent}') or name another file.",
                context=context,
            )
        if isinstance(original, OSError):
            return TargetRefused(
                f"{where} cannot be made: {original.strerror or original}.",
                code="cannot_open",
                remedy="Check that you may write there.",
                context=context,
            )
        if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            return TargetRefused(
                f"{where} cannot be opened{'' if self.options.read_only else ' for writing'}: "
                f"{original}.",
                code="cannot_open",
                remedy="Check that the directory exists and that you may write there.",
                context=context,
            )
        if primary in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return TargetRefused(
                f"{where} is damaged or no SQLite database: {original}.",
                code="damaged_target",
                remedy="Restore it from a backup, or move it away: a new run makes a new one.",
                context=context,
            )
        return TargetRefused(f"{where}: {original}", code="target_failed", context=context)

    def _driver_errors(self) -> tuple[type[BaseException], ...]:
        return (sqlite3.Error, OverflowError, UnicodeEncodeError, OSError)

    # ---------------------------------------------------------------- indexes

    def prepare_load(self) -> None:
        """A first load builds the secondary indexes at its end, any other has them.

        A run that died before its end leaves them to this call of the next one.
        """
        records = self.tables.records

        def work(conn: sa.Connection) -> bool:
            if conn.execute(sa.select(records.c.id).limit(1)).first() is not None:
                return False
            failpoints.point("store.indexes.drop")
            for name in _late_indexes():
                conn.exec_driver_sql(f"DROP INDEX IF EXISTS {name}")
            return True

        if not self.transact(work):
            self._build_indexes()

    def finish_load(self) -> None:
        self._build_indexes()
        self.transact(self._optimize)

    def _optimize(self, conn: sa.Connection) -> None:
        """Gather statistics for the planner where there are none of so large a table.

        PRAGMA optimize would do so at the end of every run, because the index of invalid
        records has no statistics as long as it has no entries; an analysis_limit would
        take each value of source_ip for a rare one.
        """
        failpoints.point("store.analyze")
        highest = conn.exec_driver_sql("SELECT max(id) FROM TokenRecords").scalar_one() or 0
        counted = "0"
        if sa.inspect(conn).has_table("sqlite_stat1"):
            query = "SELECT stat FROM sqlite_stat1 WHERE idx = 'ux_tokenrecords_record_key'"
            counted = conn.exec_driver_sql(query).scalar() or counted
        if highest > _STALE_GROWTH * int(counted.split()[0]):
            conn.exec_driver_sql("ANALYZE")

    def _build_indexes(self) -> None:
        """One index a transaction, so that heartbeats (and other sources) get their turn."""
        indexes = sorted(self.tables.records.indexes, key=lambda i: str(i.name))

        def work(conn: sa.Connection) -> bool:
            there = {row[0] for row in conn.exec_driver_sql("SELECT name FROM sqlite_master")}
            missing = [index for index in indexes if index.name not in there]
            if missing:
                failpoints.point("store.indexes.build")
                missing[0].create(conn)
            return len(missing) > 1

        while self.transact(work):
            pass

    # ---------------------------------------------------------------- writing

    def _write_rows(self, conn: sa.Connection, chunk: Chunk) -> Published:
        highest = "SELECT coalesce(max(id), 0) FROM TokenRecords"
        before = conn.exec_driver_sql(highest).scalar_one()
        now = str(conn.exec_driver_sql(f"SELECT {_NOW}").scalar_one())
        driver = _driver(conn)
        changes = driver.total_changes
        rows = chunk.rows.sort_by("record_key")  # neighbours in the unique index, one after another
        for start in range(0, rows.num_rows, self.options.batch_size):
            failpoints.point("store.stage")
            batch = rows.slice(start, self.options.batch_size)
            driver.executemany(_UPSERT, _tuples(batch, now))
        changed = driver.total_changes - changes
        inserted = int(conn.exec_driver_sql(highest).scalar_one()) - int(before)
        if changed > inserted:
            driver.executemany(_SET_SELDOM, _seldom(rows))
        return Published(inserted=inserted, updated=changed - inserted, batches=1)

    def known_rows(self, database_key: bytes) -> tuple[bytes, bytes]:
        low, high = key_range(database_key)

        def work(conn: sa.Connection) -> tuple[bytes, bytes]:
            failpoints.point("store.known")
            rows = _driver(conn).execute(
                "SELECT record_key, row_digest FROM TokenRecords"
                " WHERE record_key BETWEEN ? AND ? AND source_deleted_at IS NULL",
                (low, high),
            )
            keys, digests = bytearray(), bytearray()
            while block := rows.fetchmany(10_000):
                keys += b"".join([row[0] for row in block])
                digests += b"".join([row[1] for row in block])
            return bytes(keys), bytes(digests)

        return self.read(work)

    def known_content(self, record_keys: Sequence[bytes]) -> dict[bytes, KnownContent]:
        query = (
            "SELECT record_key, ipfs_data, ipfs_fetched, ipfs_error FROM TokenRecords"
            " WHERE record_key = ?"
        )

        def work(conn: sa.Connection) -> dict[bytes, KnownContent]:
            cursor = _driver(conn).cursor()
            found = (cursor.execute(query, (key,)).fetchone() for key in record_keys)
            return {row[0]: KnownContent(row[1], bool(row[2]), row[3]) for row in found if row}

        return self.read(work) if record_keys else {}

    def _scan_records(
        self, conn: sa.Connection, database_key: bytes
    ) -> Iterator[Sequence[Sequence[Any]]]:
        rows = _driver(conn).execute(
            f"SELECT {', '.join(STAGED_COLUMNS)} FROM TokenRecords"  # noqa: S608 - our names
            " WHERE record_key BETWEEN ? AND ? AND source_deleted_at IS NULL ORDER BY record_key",
            key_range(database_key),
        )
        while block := rows.fetchmany(5_000):
            yield block

    @contextlib.contextmanager
    def _schema_lock(self, conn: sa.Connection) -> Iterator[None]:  # noqa: ARG002 - not needed
        yield  # BEGIN IMMEDIATE already keeps everybody else out


def _begin(conn: sa.Connection) -> None:
    reading = conn.get_execution_options().get("reading", False)
    conn.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _driver(conn: sa.Connection) -> sqlite3.Connection:
    raw: object = conn.connection.dbapi_connection
    if not isinstance(raw, sqlite3.Connection):
        raise TypeError(f"not a SQLite connection: {type(raw).__name__}")
    return raw


def _late_indexes() -> list[str]:
    return [f"ix_tokenrecords_{column}" for column in (*LATE_INDEXES, "known")]


def _upsert() -> str:
    staged = [name for name in STAGED_COLUMNS if name not in _FIXED_BY_KEY.union(_SELDOM)]
    sets = ", ".join(f"{name} = excluded.{name}" for name in (*staged, "synced_at"))
    differs = " OR ".join(f"TokenRecords.{name} IS NOT excluded.{name}" for name in _CHANGING)
    return (
        f"INSERT INTO TokenRecords ({', '.join(STAGED_COLUMNS)}, synced_at)"  # noqa: S608 - our names
        f" VALUES ({', '.join('?' * len(STAGED_COLUMNS))}, ?)"
        f" ON CONFLICT (record_key) DO UPDATE SET {sets}, source_deleted_at = NULL"
        f" WHERE {differs} OR TokenRecords.source_deleted_at IS NOT NULL"
    )


_UPSERT = _upsert()
_SET_SELDOM = (
    f"UPDATE TokenRecords SET ({', '.join(_SELDOM)}) = (?1, ?2, ?3) WHERE record_key = ?4"  # noqa: S608
    f" AND ({', '.join(_SELDOM)}) IS NOT (?1, ?2, ?3)"
)


def _seldom(rows: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    return zip(*(rows.column(name).to_pylist() for name in (*_SELDOM, "record_key")), strict=True)


def _tuples(rows: pa.RecordBatch, now: str) -> Iterator[tuple[Any, ...]]:
    """The rows as SQLite takes them: times as SQLAlchemy's text form, ``synced_at`` last."""
    columns = [
        column.cast(pa.string()) if pa.types.is_timestamp(column.type) else column
        for column in rows.columns
    ]
    return zip(*(column.to_pylist() for column in columns), itertools.repeat(now))
