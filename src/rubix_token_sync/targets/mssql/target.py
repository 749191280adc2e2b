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
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import mssql_python
import pyarrow as pa
import sqlalchemy as sa
from pydantic import SecretStr
from tenacity import RetryCallState

from rubix_token_sync import failpoints
from rubix_token_sync.errors import (
    CommitAmbiguous,
    RecordRefused,
    SyncError,
    TargetError,
    TargetOverloaded,
    TargetUnavailable,
    TransactionTooLarge,
)
from rubix_token_sync.targets.base import Chunk, Lease, Published, TargetOptions
from rubix_token_sync.targets.mssql import statements as statements
from rubix_token_sync.targets.mssql.bulk import BulkCopy
from rubix_token_sync.targets.mssql.connection_string import parse_connection_string
from rubix_token_sync.targets.mssql.driver import DriverConnection, open_connection
from rubix_token_sync.targets.mssql.errors import read_driver_error, rule_for
from rubix_token_sync.targets.mssql.indexes import LateIndexes
from rubix_token_sync.targets.mssql.login import Login
from rubix_token_sync.targets.mssql.pace import Pace
from rubix_token_sync.targets.mssql.pool import driver_cursor, make_engine
from rubix_token_sync.targets.mssql.staging import Staging
from rubix_token_sync.targets.mssql.tls import tls_version
from rubix_token_sync.targets.sql.publishing import key_range
from rubix_token_sync.targets.sql.tables import keep_row_locks

__all__ = ["MssqlStore"]

_LOG: Final = logging.getLogger(__name__)

_LARGEST_TRANSACTION: Final = 50_000
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


class MssqlStore(LateIndexes):
    """A target on Azure SQL Database or SQL Server (2016 or newer)."""

    kind = "mssql"
    indexes_invalid = False  # no index on SQL Server may ask an NVARCHAR(MAX) column
    now = sa.text(statements.NOW)

    pace_factor: float = 1.0
    """Scales the waits between attempts; tests that inject faults make it small."""

    def __init__(
        self, address: SecretStr, options: TargetOptions, login: Login | None = None
    ) -> None:
        """``login``, if any, makes the first connection."""
        self.target = parse_connection_string(address.get_secret_value())
        if self.target.command_timeout_s is not None:
            options = replace(options, call_seconds=float(self.target.command_timeout_s))
        self.place = self.target.label
        self.warnings: tuple[str, ...] = ()
        if not options.read_only:  # workers and readers need not say it again
            for sentence in self.target.warnings:
                self._warn(sentence)
        # One of the connections is the bulk copy's; one writer uses it while the other marks.
        bulk = not options.read_only and options.pool_size > 1
        self.writers = 2 if bulk and options.pool_size > 2 else 1
        self._inserts = True  # new records, straight into the table: until that fails
        self.pace = Pace(self.writers, _LARGEST_TRANSACTION)
        self._mine = threading.local()
        self._logins = [] if login is None else [login]
        pooled = options.pool_size - int(bulk)
        engine = make_engine(self._open, pooled, 2 * options.call_seconds)
        super().__init__(engine, options)
        self.bulk = BulkCopy(engine, bulk, options.call_seconds, self.translate)
        self.staging = Staging(
            self.bulk,
            options.batch_size,
            lambda work: self._attempt(work, commit=False),
            self._remove_load,
            self._warn,
        )
        self._marking = threading.Lock()
        self._tables_there = threading.Event()
        self._closing = False
        self._preparing: threading.Thread | None = None

    def close(self) -> None:
        self._closing = True
        self._tables_there.set()
        self._await_bulk()
        self.bulk.close()
        for login in self._logins:
            login.drop()
        super().close()

    def _warn(self, sentence: str) -> None:
        self.warnings = (*self.warnings, sentence)
        _LOG.warning("%s: %s", self.place, sentence)

    def _open(self) -> DriverConnection:
        failpoints.point("store.open")
        try:
            login = self._logins.pop()
        except IndexError:
            return open_connection(self.target, self.options.call_seconds)
        return login.connection()

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

    def ensure_schema(self) -> bool:
        made = super().ensure_schema()
        self._tables_there.set()
        return made

    def acquire_lease(self, lease: Lease, holder: str) -> None:
        super().acquire_lease(lease, holder)
        self.staging.source = lease.source

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
            failpoints.point("store.known")
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

    # ---------------------------------------------------------------- writing

    def finish_load(self) -> None:
        self._await_bulk()
        super().finish_load()

    def prepare_load(self) -> None:
        """Remove what dead runs left staged: ours, and anybody's that is days old.

        A first load builds the secondary indexes at its end, any other has
        them; a run that died before its end leaves them to the next one.
        """
        first = self._leave_out_indexes()
        if not first:
            self.finish_load()
        if not self.made_tables:  # there is nothing old in what is new
            self._clean("loaded_at < DATEADD(DAY, ?, SYSUTCDATETIME())", -2)
            if self.staging.source is not None:
                # Under the lease nobody else stages rows of this source.
                self._clean("source_ip = ?", self.staging.source)
        if first:
            self._tables_there.set()
            self.foresee_first_load()

    def _clean(self, where: str, *parameters: int | str) -> None:
        sql = statements.CLEAN.format(where=where)

        def work(conn: sa.Connection) -> int:
            failpoints.point("store.clean")
            return int(conn.exec_driver_sql(sql, parameters).scalar_one())

        while self.transact(work):
            pass

    def _remove_load(self, load_id: int) -> None:
        self._clean("load_id = ?", load_id)

    def publish(self, lease: Lease, chunk: Chunk) -> Published:
        with self.staging.loads():
            try:
                with self.pace.turn():
                    published = self._publish_new(lease, chunk)
            finally:
                self._mine.rows = 0
            published.bulk_loads = self.staging.bulk_loads
        self.pace.went_well()
        return published

    def _publish_once(self, conn: sa.Connection, lease: Lease, chunk: Chunk) -> Published:
        self._mine.rows = chunk.rows.num_rows
        if chunk.rows.num_rows > self.pace.rows:
            raise TransactionTooLarge(
                "The transaction is larger than the server's pace allows now.", code="paced"
            )
        if chunk.rows.num_rows:
            # Before the lease is fenced: whoever stages holds up nobody.
            self.staging.stage(conn, chunk)
        return super()._publish_once(conn, lease, chunk)

    def _write_rows(self, conn: sa.Connection, chunk: Chunk) -> Published:
        load_id = self.staging.load_of(chunk.rows)
        parameters = (load_id, chunk.rows.num_rows, load_id)
        updated, inserted = conn.exec_driver_sql(statements.PUBLISH, parameters).one()
        return Published(inserted=int(inserted), updated=int(updated), batches=1)

    # ---------------------------------------------------------------- new records

    def _publish_new(self, lease: Lease, chunk: Chunk) -> Published:
        """New records straight into the table where that works; all others are staged."""
        rows, inserted, unsure = chunk.rows, False, False
        fits = self.staging.is_for_bulk(chunk) and rows.num_rows <= self.pace.rows
        if chunk.new and fits and self._inserts:
            try:
                inserted = self._insert(lease, rows)
            except TargetError as error:
                _LOG.debug("New records are staged after all: %s", error.message)
                unsure = isinstance(error, CommitAmbiguous)
                of_all = error.kind == "permanent" and not isinstance(error, RecordRefused)
                self._inserts = not of_all
        if inserted:
            return self._publish_rest(lease, chunk)
        published = self._publish_staged(lease, chunk)
        if unsure and not (published.inserted or published.updated or published.rejected):
            published.inserted = rows.num_rows  # they were all there: it had been committed
        return published

    def _insert(self, lease: Lease, rows: pa.RecordBatch) -> bool:
        self._await_bulk()
        with self._translated():
            failpoints.point("store.connect")
            if not (self.staging.bulk_works() and self.bulk.stamps()):
                return False
            self.bulk.insert(lease, rows)
        self.staging.count_bulk_load()
        return True

    def _publish_staged(self, lease: Lease, chunk: Chunk) -> Published:
        if chunk.rows.num_rows:
            return super().publish(lease, chunk)
        with self._marking:  # the lease lets one at a time through: a connection is enough
            return super().publish(lease, chunk)

    def _publish_rest(self, lease: Lease, chunk: Chunk) -> Published:
        """What belongs to a chunk beside its rows."""
        published = Published(inserted=chunk.rows.num_rows, batches=1)
        if chunk.mark or chunk.vanished or chunk.errors or chunk.also:
            rest = replace(chunk, rows=chunk.rows.slice(0, 0))
            published.add(self._publish_staged(lease, rest))
        return published

    def foresee_first_load(self) -> None:
        """Log the bulk copy in, and try it out as soon as there are tables."""

        def prepare() -> None:
            with self.staging.loads():
                try:
                    with self._translated():
                        self.bulk.log_in()
                        self._tables_there.wait()
                        if not self._closing and self.staging.bulk_works():
                            self.bulk.stamps()
                except SyncError as error:  # the first to need it tries again, and tells
                    _LOG.debug("The bulk copy could not be prepared: %s", error.message)

        if self._preparing is not None or self.bulk.works is not None:
            return
        with contextlib.suppress(SyncError):  # it gets a connection itself, then
            self._attempt(self.bulk.foresee_login, commit=False)
        preparing = threading.Thread(target=prepare, name="rubix-bulk", daemon=True)
        preparing.start()
        self._preparing = preparing

    def _await_bulk(self) -> None:
        """Wait, without a connection in hand, until it is ready and has removed what it staged."""
        if self._preparing is not None:
            self._preparing.join()


def _said(text: str) -> str:
    """The server's own words without the driver's brackets, on one line."""
    words = text
    while words.startswith("["):
        words = words.partition("]")[2]
    return " ".join(words.split())[:500]
