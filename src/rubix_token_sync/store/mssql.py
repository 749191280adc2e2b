"""The Azure SQL and SQL Server target.

A chunk is staged first, outside of any lock: by Microsoft's bulk copy (which
has connections of its own) or, when it is small, by parameterised inserts.
Staged rows belong to a load by its id.  Then one short transaction checks the
lease, publishes the load set-based, writes the mark and commits.  Whatever a
dead run leaves staged is removed by the next one.

Records that are new to the target spare the server half of that work: the bulk
copy puts them straight into the table, in a transaction that holds the lease.
Whatever goes wrong there, they are staged after all.
"""

from __future__ import annotations

import contextlib
import logging
import random
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import mssql_python
import pyarrow as pa
import sqlalchemy as sa
from pydantic import SecretStr
from tenacity import RetryCallState

from rubix_token_sync import faults
from rubix_token_sync.errors import (
    CommitAmbiguous,
    RecordRefused,
    SchemaError,
    SyncError,
    TargetError,
    TargetOverloaded,
    TargetUnavailable,
    TransactionTooLarge,
)
from rubix_token_sync.store import mssql_statements as statements
from rubix_token_sync.store.base import Chunk, Lease, Published, StoreOptions
from rubix_token_sync.store.connection_string import parse_connection_string
from rubix_token_sync.store.mssql_bulk import BulkCopy
from rubix_token_sync.store.mssql_driver import DriverConnection, open_connection
from rubix_token_sync.store.mssql_errors import read_driver_error, rule_for
from rubix_token_sync.store.mssql_indexes import (
    build_index,
    drop_late_indexes,
    may_alter,
    missing_indexes,
)
from rubix_token_sync.store.mssql_pace import Pace
from rubix_token_sync.store.mssql_pool import driver_cursor, make_engine, patient
from rubix_token_sync.store.mssql_tls import tls_version
from rubix_token_sync.store.schema import keep_row_locks
from rubix_token_sync.store.sql import SqlStore, key_range

__all__ = ["MssqlStore"]

_LOG: Final = logging.getLogger(__name__)

_LARGEST_TRANSACTION: Final = 50_000
_SMALLEST_BULK: Final = 50
"""Rows below which a bulk copy's own login costs more than it saves."""

_SCHEMA_WAIT_SECONDS: Final = 3_600.0
_SCHEMA_LOCK: Final = "rubix_token_sync.schema"
_ARROW_ROWS: Final = 20_000

_WAITS: Final = {
    # code → seconds before the second attempt; doubled for each one after it
    "throttled": 10.0,  # what 40501 asks for
    "reconfiguring": 5.0,
    "not_available_yet": 20.0,
    "no_such_database": 5.0,
    "connection_lost": 1.0,
    "deadlock": 0.2,
    "raced": 0.05,
}
_USUAL_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0


class MssqlStore(SqlStore):
    """A target on Azure SQL Database or SQL Server (2016 or newer)."""

    kind = "mssql"
    indexes_invalid = False  # no index on SQL Server may ask an NVARCHAR(MAX) column
    now = sa.text(statements.NOW)

    pace_factor: float = 1.0
    """Scales the waits between attempts; tests that inject faults make it small."""

    def __init__(self, address: SecretStr, options: StoreOptions) -> None:
        self.target = parse_connection_string(address.get_secret_value())
        self.place = self.target.label
        self.warnings: tuple[str, ...] = ()
        if not options.read_only:  # workers and readers need not say it again
            for sentence in self.target.warnings:
                self._warn(sentence)
        # A bulk copy opens a second connection beside its writer's own.
        self.writers = 1 if options.read_only else max(1, min(2, (options.pool_size - 1) // 2))
        bulk = 0 if options.read_only else min(self.writers, options.pool_size - 1)
        self.bulk = BulkCopy(bulk, self.translate)
        self._bulk_probe = threading.Lock()
        self._preparing: list[threading.Thread] = []
        self._inserts = True  # new records, straight into the table: until that fails
        self.pace = Pace(self.writers, _LARGEST_TRANSACTION)
        self._mine = threading.local()
        self._source: str | None = None
        pooled = max(1, options.pool_size - bulk)
        engine = make_engine(self._open, pooled, 2 * options.call_seconds)
        super().__init__(engine, options)

    def close(self) -> None:
        self.bulk.close()
        super().close()

    def _warn(self, sentence: str) -> None:
        self.warnings = (*self.warnings, sentence)
        _LOG.warning("%s: %s", self.place, sentence)

    def _open(self) -> DriverConnection:
        faults.point("store.open")
        conn = open_connection(self.target, self.options.call_seconds)
        cursor = conn.cursor()
        cursor.execute("SELECT SCHEMA_NAME()")
        schema = cursor.fetchone()[0]
        cursor.close()
        conn.rollback()
        if schema != "dbo":
            conn.close()
            raise SchemaError(
                "The database user's default schema is not dbo.",
                code="default_schema",
                remedy="Have a DBA run: ALTER USER [name] WITH DEFAULT_SCHEMA = dbo;",
            )
        return conn

    def describe_connection(self) -> str:
        def work(conn: sa.Connection) -> str:
            version = ".".join(map(str, conn.dialect.server_version_info or ()))
            user = conn.exec_driver_sql("SELECT USER_NAME()").scalar()
            return f"SQL Server {version}, {{tls}}, user {user}"

        said = self.read(work)  # first: it knows how to tell what is wrong
        try:
            tls = tls_version(self.target)
        except OSError as error:
            tls = f"TLS version unknown ({error})"
        return said.replace("{tls}", tls)

    # ---------------------------------------------------------------- errors

    def translate(self, error: BaseException, *, committing: bool = False) -> SyncError:
        original = getattr(error, "orig", None) or error
        if isinstance(original, SyncError):
            return original
        found = read_driver_error(original)
        rule = rule_for(found)
        kind, code, sentence, remedy = rule.error, rule.code, rule.sentence, rule.remedy
        if isinstance(error, sa.exc.TimeoutError):
            kind, code = TargetUnavailable, "pool_exhausted"
            sentence = "All connections of the pool were busy for too long."
            remedy = "Raise CONNECTION_POOL_SIZE, or look for what holds the database up."
        if issubclass(kind, TargetOverloaded):
            self.pace.slow_down()
        if kind is TransactionTooLarge and getattr(self._mine, "rows", 0) < 2:
            kind = TargetUnavailable  # there is nothing to halve: try again as it is
        if kind is RecordRefused and "ux_tokenrecords_record_key" in found.text.lower():
            # Our own keys are unique in a chunk: somebody else inserted this one just now.
            kind, code, remedy = TargetUnavailable, "raced", ""
            sentence = "Another session stored the same record at the same moment."
        if committing and kind.kind == "transient" and kind is not TransactionTooLarge:
            kind, code = CommitAmbiguous, "commit_unknown"
            sentence = f"It is not known whether a commit happened. {sentence}"
        if kind is RecordRefused:
            sentence = f"{sentence} {_said(found.text)}".strip()
        context = {"number": found.number, "sqlstate": found.sqlstate, "said": _said(found.text)}
        password = self.target.password.get_secret_value()
        if password:
            sentence = sentence.replace(password, "***")
            context["said"] = str(context["said"]).replace(password, "***")
        return kind(f"{self.place}: {sentence}", code=code, remedy=remedy, context=context)

    def _driver_errors(self) -> tuple[type[BaseException], ...]:
        return (mssql_python.Error, OSError, UnicodeError, OverflowError)

    def wait_before_retry(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        first = _WAITS.get(getattr(error, "code", ""), _USUAL_WAIT)
        if isinstance(error, CommitAmbiguous):
            first = _WAITS["connection_lost"]
        wait = min(_LONGEST_WAIT, first * 2.0 ** (state.attempt_number - 1))
        jitter = random.uniform(1.0, 1.5)  # noqa: S311 - spreads retries, hides nothing
        return wait * jitter * self.pace_factor

    # ---------------------------------------------------------------- schema, lease

    @contextlib.contextmanager
    def _schema_lock(self, conn: sa.Connection) -> Iterator[None]:
        with patient(conn, _SCHEMA_WAIT_SECONDS):
            taken = conn.exec_driver_sql(
                "DECLARE @taken INT; EXEC @taken = sp_getapplock"
                f" @Resource = '{_SCHEMA_LOCK}', @LockMode = 'Exclusive',"
                f" @LockOwner = 'Transaction', @LockTimeout = {int(_SCHEMA_WAIT_SECONDS * 500)};"
                " SELECT @taken"
            ).scalar_one()
            if taken < 0:
                raise TargetUnavailable(
                    "Another run has been changing the schema for too long.",
                    code="schema_locked",
                    remedy="Wait for it to end, then run again.",
                )
            yield

    def acquire_lease(self, lease: Lease, holder: str) -> None:
        super().acquire_lease(lease, holder)
        self._source = lease.source

    def schema_script(self) -> str:
        rights, user = "SELECT, INSERT, UPDATE, DELETE", "[application_user]"
        grants = (
            f"--   GRANT {rights} ON [dbo].[{table.name}] TO {user}"
            for table in self.tables.all()
            if table is not self.tables.duplicates
        )
        lines = (
            "-- The user that syncs needs these rights and no others, once the tables are there:",
            *grants,
            f"--   GRANT SELECT ON [dbo].[alembic_version] TO {user}",
            "-- Its default schema must be dbo, and QUOTED_IDENTIFIER on (the default) here.",
        )
        locks = ";\n".join(keep_row_locks()) + ";\n"
        return "\n".join(lines) + "\n\n" + super().schema_script() + "\n" + locks

    # ---------------------------------------------------------------- reading

    def known_rows(self, database_key: bytes) -> tuple[bytes, bytes]:
        low, high = key_range(database_key)

        def work(conn: sa.Connection) -> tuple[bytes, bytes]:
            faults.point("store.known")
            keys, digests = bytearray(), bytearray()
            for block in self._arrow(conn, statements.KNOWN, (low, high)):
                keys += statements.joined(block.column(0))
                digests += statements.joined(block.column(1))
            return bytes(keys), bytes(digests)

        return self.read(work)

    def stored_records(self, database_key: bytes) -> Iterator[pa.RecordBatch]:
        try:
            with self.engine.connect() as conn:
                blocks = self._arrow(conn, statements.STORED, key_range(database_key))
                for block in blocks:
                    yield statements.as_records(block)
        except self._database_errors() as error:
            raise self.translate(error) from error

    def _arrow(
        self, conn: sa.Connection, sql: str, parameters: tuple[bytes, bytes]
    ) -> Iterator[pa.RecordBatch]:
        with driver_cursor(conn) as cursor:
            cursor.execute(sql, parameters)
            while (block := cursor.arrow_batch(_ARROW_ROWS)).num_rows:
                yield block

    # ---------------------------------------------------------------- indexes

    def finish_load(self) -> None:
        """Build missing secondary indexes, where this user may."""
        while self._preparing:
            self._preparing.pop().join()  # it removes what it had staged
        records = self.tables.records

        def work(conn: sa.Connection) -> bool:
            missing = missing_indexes(conn, records)
            if not missing or not may_alter(conn):
                return False
            with self._schema_lock(conn):
                missing = missing_indexes(conn, records)  # another run may have built them
                if missing:
                    build_index(conn, missing[0])
                return len(missing) > 1

        while self.transact(work):
            pass

    def _leave_out_indexes(self) -> bool:
        records = self.tables.records

        def work(conn: sa.Connection) -> bool:
            empty = conn.execute(sa.select(records.c.id).limit(1)).first() is None
            if empty and may_alter(conn):
                with self._schema_lock(conn):
                    drop_late_indexes(conn, records)
                return True
            return False

        return self.transact(work)

    # ---------------------------------------------------------------- writing

    def prepare_load(self) -> None:
        """Remove what dead runs left staged: ours, and anybody's that is days old.

        A first load builds the secondary indexes at its end, any other has
        them; a run that died before its end leaves them to the next one.
        """
        first = self._leave_out_indexes()
        if not first:
            self.finish_load()
        self._clean("loaded_at < DATEADD(DAY, ?, SYSUTCDATETIME())", -2)
        if self._source is not None:
            # Under the lease nobody else stages rows of this source.
            self._clean("source_ip = ?", self._source)
        if first:
            self._prepare_bulk()

    def _clean(self, where: str, parameter: int | str) -> None:
        sql = statements.CLEAN.format(where=where)

        def work(conn: sa.Connection) -> int:
            faults.point("store.clean")
            return int(conn.exec_driver_sql(sql, (parameter,)).scalar_one())

        while self.transact(work):
            pass

    def publish(self, lease: Lease, chunk: Chunk) -> Published:
        loads: dict[int, tuple[pa.RecordBatch, int]] = {}
        self._mine.loads = loads
        self._mine.bulk_loads = 0
        try:
            with self.pace.turn():
                published = self._publish_new(lease, chunk)
        finally:
            self._mine.loads, self._mine.rows = {}, 0
            self._forget(loads)
        published.bulk_loads = self._mine.bulk_loads
        self.pace.went_well()
        return published

    def _forget(self, loads: dict[int, tuple[pa.RecordBatch, int]]) -> None:
        """Remove staged rows whose chunk is published, or will never be."""
        for _rows, load_id in loads.values():
            try:
                self._clean("load_id = ?", load_id)
            except TargetError as error:
                # They harm nobody: the next run removes them, and says so if it cannot.
                self._warn(f"Staged rows were left behind. {error.message}")

    def _publish_once(self, conn: sa.Connection, lease: Lease, chunk: Chunk) -> Published:
        self._mine.rows = chunk.rows.num_rows
        if chunk.rows.num_rows > self.pace.rows:
            raise TransactionTooLarge(
                "The transaction is larger than the server's pace allows now.", code="paced"
            )
        if chunk.rows.num_rows:
            # Before the lease is fenced: whoever stages holds up nobody.
            self._stage(conn, chunk)
        return super()._publish_once(conn, lease, chunk)

    def _write_rows(self, conn: sa.Connection, chunk: Chunk) -> Published:
        rows, load_id = self._mine.loads[id(chunk.rows)]
        parameters = (load_id, rows.num_rows, load_id)
        updated, inserted = conn.exec_driver_sql(statements.PUBLISH, parameters).one()
        return Published(inserted=int(inserted), updated=int(updated), batches=1)

    # ---------------------------------------------------------------- new records

    def _publish_new(self, lease: Lease, chunk: Chunk) -> Published:
        """New records straight into the table where that works; all others are staged."""
        rows, inserted, unsure = chunk.rows, False, False
        fits = self._is_for_bulk(chunk) and rows.num_rows <= self.pace.rows
        if chunk.new and fits and self._inserts:
            try:
                inserted = self._attempt(lambda conn: self._insert(conn, lease, rows), commit=False)
            except TargetError as error:
                _LOG.debug("New records are staged after all: %s", error.message)
                unsure = isinstance(error, CommitAmbiguous)
                of_all = error.kind == "permanent" and not isinstance(error, RecordRefused)
                self._inserts = not of_all
        if inserted:
            return self._publish_rest(lease, chunk)
        published = super().publish(lease, chunk)
        if unsure and not (published.inserted or published.updated or published.rejected):
            published.inserted = rows.num_rows  # they were all there: it had been committed
        return published

    def _insert(self, conn: sa.Connection, lease: Lease, rows: pa.RecordBatch) -> bool:
        if not self._bulk_usable(conn):
            return False
        self.bulk.insert(conn, lease, rows)
        self._mine.bulk_loads += 1
        return True

    def _publish_rest(self, lease: Lease, chunk: Chunk) -> Published:
        """What belongs to a chunk beside its rows."""
        published = Published(inserted=chunk.rows.num_rows, batches=1)
        if chunk.mark or chunk.vanished or chunk.errors or chunk.also:
            rest = replace(chunk, rows=chunk.rows.slice(0, 0))
            published.add(super().publish(lease, rest))
        return published

    # ---------------------------------------------------------------- staging

    def _stage(self, conn: sa.Connection, chunk: Chunk) -> None:
        """Have the chunk's rows staged, under a load id that is noted for this thread."""
        rows = chunk.rows
        staged = self._mine.loads.pop(id(rows), None)
        if staged is not None and self._staged_count(conn, staged[1]) == rows.num_rows:
            self._mine.loads[id(rows)] = staged  # an earlier attempt got this far
            return
        if staged is not None:
            self._mine.loads[-staged[1]] = staged  # of no use: to be removed with the others
        load_id = secrets.randbits(63)
        self._mine.loads[id(rows)] = (rows, load_id)
        faults.point("store.stage")
        if self._is_for_bulk(chunk) and self._bulk_usable(conn):
            self.bulk.stage(conn, rows, load_id)
            self._mine.bulk_loads += 1
        else:
            with driver_cursor(conn) as cursor:
                blocks = statements.Parameters(rows, load_id).blocks(self.options.batch_size)
                for types, values in blocks:
                    cursor.setinputsizes(types)
                    cursor.executemany(statements.STAGE_ROW, values)
        count = self._staged_count(conn, load_id)
        if count != rows.num_rows:
            raise TargetUnavailable(
                f"{rows.num_rows} rows were sent to be staged, the server holds {count}.",
                code="stage_count",
                remedy="Run again; if it stays, report it with the log of a --verbose run.",
            )

    def _staged_count(self, conn: sa.Connection, load_id: int) -> int:
        return int(conn.exec_driver_sql(statements.COUNT_STAGED, (load_id,)).scalar_one())

    def _is_for_bulk(self, chunk: Chunk) -> bool:
        return chunk.bulk and int(chunk.rows.num_rows) >= _SMALLEST_BULK

    def _bulk_usable(self, conn: sa.Connection) -> bool:
        """Whether bulk copy works here: found out once."""
        with self._bulk_probe:
            if self.bulk.works is None:
                load_id = secrets.randbits(63)
                rows = statements.sample(self._source or "")
                self._mine.loads[-load_id] = (rows, load_id)  # removed with the others
                if not self.bulk.try_out(conn, rows, load_id):
                    self._warn(
                        "The server does not take the driver's bulk copy; rows go in by "
                        f"parameterised batches, which is slower. {self.bulk.refusal}".strip()
                    )
            return bool(self.bulk.works)

    def _prepare_bulk(self) -> None:
        """Log the bulk copy in and try it out while the first records are read."""

        def prepare(work: Callable[[sa.Connection], object]) -> None:
            self._mine.loads = {}
            try:
                self._attempt(work, commit=False)
            except SyncError as error:  # the first to need it tries again, and tells
                _LOG.debug("The bulk copy could not be prepared: %s", error.message)
            self._forget(self._mine.loads)

        works = [self._bulk_usable, *[self.bulk.log_in] * (self.bulk.connections - 1)]
        for work in works[: self.bulk.connections]:
            thread = threading.Thread(target=prepare, args=(work,), name="rubix-bulk", daemon=True)
            thread.start()
            self._preparing.append(thread)


def _said(text: str) -> str:
    """The server's own words without the driver's brackets, on one line."""
    words = text
    while words.startswith("["):
        words = words.partition("]")[2]
    return " ".join(words.split())[:500]
