"""What all targets share: sessions, leases, states, marks, retries, isolation.

A target adds `translate` (its errors into ours), `_fence`, `_write_rows` and
`_scan_records`; everything else is plain SQL that SQLAlchemy spells for it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pyarrow as pa
import sqlalchemy as sa
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from rubix_token_sync import faults
from rubix_token_sync.errors import (
    CommitAmbiguous,
    LeaseHeld,
    LeaseLost,
    RecordRefused,
    ReportMismatch,
    SchemaError,
    SyncError,
    TargetError,
    TargetUnavailable,
    TransactionTooLarge,
)
from rubix_token_sync.holder import holder_is_gone
from rubix_token_sync.records import RECORD_KEY_BYTES, RECORD_SCHEMA
from rubix_token_sync.store.base import (
    Chunk,
    DatabaseMark,
    DatabaseState,
    ErrorEntry,
    KnownContent,
    Lease,
    MarkCounts,
    Published,
    Rejected,
    SessionTotals,
    StoreOptions,
)
from rubix_token_sync.store.schema import SCHEMA_VERSION, STAGED_COLUMNS, build_tables, can_cover

__all__ = ["LEASE_SECONDS", "SqlStore", "key_range"]

LEASE_SECONDS = 60
"""A lease whose heartbeat is older (server time) belongs to a dead run."""

_TOKEN_SUFFIX = RECORD_KEY_BYTES - 8
_IN_LIST = 500

T = TypeVar("T")


def key_range(database_key: bytes) -> tuple[bytes, bytes]:
    """Smallest and largest record key of a database."""
    return database_key + b"\x00" * _TOKEN_SUFFIX, database_key + b"\xff" * _TOKEN_SUFFIX


def _worth_retrying(error: BaseException) -> bool:
    return (
        isinstance(error, TargetError)
        and error.kind != "permanent"
        and not isinstance(error, TransactionTooLarge)
    )


class SqlStore:
    """The shared part of every target; see `rubix_token_sync.store.base.Store`."""

    kind: str
    place: str
    writers: int = 1
    now: sa.TextClause
    """The server's UTC time, as SQL."""

    def __init__(self, engine: sa.Engine, options: StoreOptions) -> None:
        self.engine = engine
        self.options = options
        self.tables = build_tables(engine.dialect.name)
        self.retries = 0

    def close(self) -> None:
        self.engine.dispose()

    # ---------------------------------------------------------------- what a target adds

    def translate(self, error: BaseException, *, committing: bool = False) -> SyncError:
        """The driver's error as one of ours; the only place that looks into it."""
        raise NotImplementedError from error

    def _fence(self, conn: sa.Connection, lease: Lease) -> None:
        """Make sure, inside the transaction, that the lease is ours until it ends."""
        leases = self.tables.leases
        ours = conn.execute(
            sa.update(leases)
            .where(leases.c.source_ip == lease.source, leases.c.session_id == lease.session_id)
            .values(heartbeat_at=self.now)
        )
        if ours.rowcount != 1:
            raise lost(lease)

    def _write_rows(self, conn: sa.Connection, chunk: Chunk) -> Published:
        """Insert new and update different records, set-based, in this transaction."""
        raise NotImplementedError

    def _scan_records(
        self, conn: sa.Connection, database_key: bytes
    ) -> Iterator[Sequence[Sequence[Any]]]:
        """Live records in key order: blocks of rows with STAGED_COLUMNS."""
        records = self.tables.records
        low, high = key_range(database_key)
        query = (
            sa.select(*(records.c[name] for name in STAGED_COLUMNS))
            .where(records.c.record_key.between(low, high), records.c.source_deleted_at.is_(None))
            .order_by(records.c.record_key)
        )
        result = conn.execution_options(yield_per=5_000).execute(query)
        yield from result.partitions()

    @contextlib.contextmanager
    def _schema_lock(self, conn: sa.Connection) -> Iterator[None]:  # noqa: ARG002 - for others
        """Only one process at a time creates or upgrades."""
        yield

    def wait_before_retry(self, state: RetryCallState) -> float:
        """Seconds until the next attempt: exponential with jitter."""
        return wait_random_exponential(multiplier=0.5, min=0.1, max=60)(state)

    # ---------------------------------------------------------------- transactions

    def transact(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work`` in a transaction and commit; retried where that can help.

        ``work`` must be idempotent: after a lost acknowledgement of a COMMIT it
        runs again.
        """
        return self._retrying(lambda: self._attempt(work, commit=True))

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work`` in a transaction that is never committed."""
        return self._retrying(lambda: self._attempt(work, commit=False))

    def _retrying(self, attempt: Callable[[], T]) -> T:
        retrying = Retrying(
            stop=stop_after_attempt(self.options.attempts)
            | stop_after_delay(self.options.retry_seconds),
            wait=self.wait_before_retry,
            retry=retry_if_exception(_worth_retrying),
            before_sleep=self._count_retry,
            reraise=True,
        )
        return retrying(attempt)

    def _count_retry(self, _state: RetryCallState) -> None:
        self.retries += 1

    def _attempt(self, work: Callable[[sa.Connection], T], *, commit: bool) -> T:
        try:
            faults.point("store.connect")
            with self.engine.connect() as conn:
                if not commit:
                    conn = conn.execution_options(reading=True)
                with conn.begin() as transaction:
                    result = work(conn)
                    if not commit:
                        transaction.rollback()
                        return result
                    faults.point("store.commit.before")
                    self._commit(transaction)
                return result
        except faults.FaultInjected as error:
            raise TargetUnavailable(f"The connection failed: {error}.", code="injected") from error
        except self._database_errors() as error:
            raise self.translate(error) from error

    def _commit(self, transaction: sa.Transaction) -> None:
        try:
            transaction.commit()
            faults.point("store.commit.after")
        except faults.FaultInjected as error:
            raise CommitAmbiguous(
                "The acknowledgement of a commit was lost.", code="commit_unknown"
            ) from error
        except self._database_errors() as error:
            raise self.translate(error, committing=True) from error

    def _database_errors(self) -> tuple[type[BaseException], ...]:
        return (sa.exc.SQLAlchemyError, *self._driver_errors())

    def _driver_errors(self) -> tuple[type[BaseException], ...]:
        """Errors of the driver that SQLAlchemy does not wrap."""
        dbapi = self.engine.dialect.dbapi
        return (dbapi.Error,) if dbapi is not None else ()

    # ---------------------------------------------------------------- schema

    def schema_version(self) -> str | None:
        def work(conn: sa.Connection) -> str | None:
            if not sa.inspect(conn).has_table("alembic_version"):
                return None
            version: str | None = conn.execute(
                sa.text("SELECT version_num FROM alembic_version")
            ).scalar()
            return version

        return self.read(work)

    def ensure_schema(self) -> bool:
        version = self.schema_version()
        if version == SCHEMA_VERSION:
            return False
        if version is not None and version > SCHEMA_VERSION:
            raise SchemaError(
                f"The target's schema is of version {version}, "
                f"newer than this program's {SCHEMA_VERSION}.",
                code="schema_newer",
                remedy="Install the newer rubix-token-sync that made it.",
            )
        if self.options.read_only:
            raise SchemaError(
                "The target holds no tables of this program's version.",
                code="schema_missing",
                remedy="Run `rubix-token-sync schema upgrade` or a first `sync`.",
            )
        from rubix_token_sync.store import migrations

        def work(conn: sa.Connection) -> None:
            faults.point("store.upgrade")
            with self._schema_lock(conn):
                migrations.upgrade(conn)

        self.transact(work)
        return True

    def schema_script(self) -> str:
        from sqlalchemy.schema import CreateIndex, CreateTable

        dialect = self.engine.dialect
        parts = []
        for table in build_tables(dialect.name, covering=can_cover(dialect)).all():
            parts.append(str(CreateTable(table).compile(dialect=dialect)).strip() + ";")
            parts += [
                str(CreateIndex(index).compile(dialect=dialect)).strip() + ";"
                for index in sorted(table.indexes, key=lambda i: str(i.name))
            ]
        parts.append("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);")
        parts.append(
            f"INSERT INTO alembic_version (version_num) VALUES ('{SCHEMA_VERSION}');"  # noqa: S608
        )
        return "\n\n".join(parts) + "\n"

    def describe_connection(self) -> str:
        version = self.read(lambda conn: ".".join(map(str, _server_version(conn))))
        return f"{self.kind} {version}"

    def server_time(self) -> datetime:
        column = self.tables.sessions.c.start_time.type
        query = sa.select(sa.type_coerce(sa.literal_column(self.now.text), column))
        value: datetime = self.read(lambda conn: conn.execute(query).scalar_one())
        return value

    # ---------------------------------------------------------------- sessions and leases

    def leases(self) -> list[Lease]:
        leases = self.tables.leases
        query = sa.select(leases.c.source_ip, leases.c.session_id, leases.c.heartbeat_at)
        held = self.read(lambda conn: conn.execute(query).all())
        now, patience = self.server_time(), timedelta(seconds=LEASE_SECONDS)
        return [Lease(row[0], str(row[1])) for row in held if abs(now - row[2]) <= patience]

    def start_session(
        self, session_id: str, source: str, host: str, pid: int, command: str
    ) -> None:
        from rubix_token_sync import __version__

        sessions = self.tables.sessions

        def work(conn: sa.Connection) -> None:
            faults.point("store.session.start")
            there = conn.execute(
                sa.select(sessions.c.session_id).where(sessions.c.session_id == session_id)
            ).first()
            if there is None:
                conn.execute(
                    sa.insert(sessions).values(
                        session_id=session_id,
                        source_ip=source,
                        start_time=self.now,
                        heartbeat_at=self.now,
                        status="RUNNING",
                        host=host,
                        pid=pid,
                        command=command,
                        program_version=__version__,
                    )
                )

        self.transact(work)

    def heartbeat(self, lease: Lease, totals: SessionTotals) -> None:
        leases, sessions = self.tables.leases, self.tables.sessions

        def work(conn: sa.Connection) -> None:
            faults.point("store.heartbeat")
            ours = conn.execute(
                sa.update(leases)
                .where(leases.c.source_ip == lease.source, leases.c.session_id == lease.session_id)
                .values(heartbeat_at=self.now)
            )
            if ours.rowcount != 1:
                raise lost(lease)
            conn.execute(
                sa.update(sessions)
                .where(sessions.c.session_id == lease.session_id)
                .values(heartbeat_at=self.now, **asdict(totals))
            )

        self.transact(work)

    def finish_session(
        self, session_id: str, status: str, totals: SessionTotals, error_summary: str | None
    ) -> None:
        sessions = self.tables.sessions

        def work(conn: sa.Connection) -> None:
            faults.point("store.session.finish")
            conn.execute(
                sa.update(sessions)
                .where(sessions.c.session_id == session_id)
                .values(
                    status=status,
                    end_time=self.now,
                    heartbeat_at=self.now,
                    error_summary=error_summary,
                    **asdict(totals),
                )
            )

        self.transact(work)

    def close_dead_sessions(self, source: str, own_session: str) -> int:
        sessions = self.tables.sessions

        def work(conn: sa.Connection) -> int:
            faults.point("store.session.recover")
            return conn.execute(
                sa.update(sessions)
                .where(
                    sessions.c.source_ip == source,
                    sessions.c.status == "RUNNING",
                    sessions.c.session_id != own_session,
                )
                .values(
                    status="INTERRUPTED",
                    end_time=sa.func.coalesce(sessions.c.heartbeat_at, sessions.c.start_time),
                    error_summary="The run ended without a word (killed, or its machine died).",
                )
            ).rowcount

        return self.transact(work)

    def acquire_lease(self, lease: Lease, holder: str) -> None:
        leases = self.tables.leases
        mine = {
            "session_id": lease.session_id,
            "holder": holder,
            "acquired_at": self.now,
            "heartbeat_at": self.now,
        }

        def work(conn: sa.Connection) -> None:
            faults.point("store.lease.acquire")
            found = conn.execute(
                sa.select(
                    leases.c.session_id,
                    leases.c.holder,
                    leases.c.acquired_at,
                    leases.c.heartbeat_at,
                    sa.type_coerce(sa.literal_column(self.now.text), leases.c.heartbeat_at.type),
                )
                .where(leases.c.source_ip == lease.source)
                .with_for_update()  # where writers hold a shared lock, wait for their end
            ).first()
            if found is None:
                conn.execute(sa.insert(leases).values(source_ip=lease.source, **mine))
                return
            if found[0] == lease.session_id:
                return
            idle = found[4] - found[3]
            # Far in the future: the server's clock was put back, and nobody heard of since.
            if abs(idle) <= timedelta(seconds=LEASE_SECONDS) and not holder_is_gone(found[1]):
                raise LeaseHeld(
                    f"Another run works for source {lease.source}: "
                    f"session {found[0]} on {found[1].split('|')[0]}, "
                    f"since {found[2]:%Y-%m-%d %H:%M:%S} UTC, "
                    f"last heard of {max(0, int(idle.total_seconds()))} s ago.",
                    code="lease_held",
                    remedy="Wait for it, or stop it; a dead run loses its lease by itself "
                    f"after {LEASE_SECONDS} s.",
                    context={"session_id": str(found[0]), "holder": found[1]},
                )
            taken = conn.execute(
                sa.update(leases)
                .where(
                    leases.c.source_ip == lease.source,
                    leases.c.session_id == found[0],
                    leases.c.heartbeat_at == found[3],
                )
                .values(**mine)
            )
            if taken.rowcount != 1:
                raise TargetUnavailable(
                    "The lease changed hands while it was being taken.", code="lease_raced"
                )

        try:
            self.transact(work)
        except RecordRefused as error:  # two inserted at once: the unique key let one through
            raise LeaseHeld(
                f"Another run for source {lease.source} started at the same moment.",
                code="lease_held",
                remedy="Wait for it to end.",
            ) from error

    def release_lease(self, lease: Lease) -> None:
        leases = self.tables.leases

        def work(conn: sa.Connection) -> None:
            faults.point("store.lease.release")
            conn.execute(
                sa.delete(leases).where(
                    leases.c.source_ip == lease.source, leases.c.session_id == lease.session_id
                )
            )

        self.transact(work)

    def record_errors(self, lease: Lease, entries: Sequence[ErrorEntry]) -> None:
        attempts = 0

        def work(conn: sa.Connection) -> None:
            nonlocal attempts
            attempts += 1
            fresh = self._unrecorded(conn, lease, entries) if attempts > 1 else entries
            if fresh:
                self._insert_errors(conn, lease, fresh)

        if entries:
            self.transact(work)

    def _unrecorded(
        self, conn: sa.Connection, lease: Lease, entries: Sequence[ErrorEntry]
    ) -> tuple[ErrorEntry, ...]:
        """Those that this session has not stored: a commit may have happened unheard of."""
        errors = self.tables.errors
        query = sa.select(errors.c.code, errors.c.db_path, errors.c.token_id, errors.c.message)
        there = {
            tuple(row) for row in conn.execute(query.where(errors.c.session_id == lease.session_id))
        }
        return tuple(
            entry
            for entry in entries
            if (entry.code, _cut(entry.db_path), _cut(entry.token_id), entry.message) not in there
        )

    def _insert_errors(
        self, conn: sa.Connection, lease: Lease, entries: Sequence[ErrorEntry]
    ) -> None:
        faults.point("store.errors")
        conn.execute(
            sa.insert(self.tables.errors),
            [
                {
                    "session_id": lease.session_id,
                    "source_ip": lease.source,
                    **asdict(entry),
                    "token_id": _cut(entry.token_id),
                    "db_path": _cut(entry.db_path),
                    "context": json.dumps(entry.context, ensure_ascii=False, sort_keys=True)
                    if entry.context
                    else None,
                }
                for entry in entries
            ],
        )

    # ---------------------------------------------------------------- what is known

    def database_states(self, source: str | None) -> list[DatabaseState]:
        databases = self.tables.databases
        names = list(DatabaseState.__dataclass_fields__)
        query = sa.select(*(databases.c[name] for name in names)).order_by(databases.c.db_path)
        if source is not None:
            query = query.where(databases.c.source_ip == source)

        def work(conn: sa.Connection) -> list[DatabaseState]:
            faults.point("store.states")
            return [
                DatabaseState(**{**row._mapping, "database_key": bytes(row.database_key)})
                for row in conn.execute(query)
            ]

        return self.read(work)

    def holds_records(self) -> bool:
        query = sa.select(self.tables.records.c.id).limit(1)
        return self.read(lambda conn: conn.execute(query).first()) is not None

    def holds_content(self) -> bool:
        records = self.tables.records
        query = sa.select(records.c.id).where(records.c.ipfs_fetched == sa.true()).limit(1)
        return self.read(lambda conn: conn.execute(query).first()) is not None

    def known_rows(self, database_key: bytes) -> tuple[bytes, bytes]:
        records = self.tables.records
        low, high = key_range(database_key)
        query = sa.select(records.c.record_key, records.c.row_digest).where(
            records.c.record_key.between(low, high), records.c.source_deleted_at.is_(None)
        )

        def work(conn: sa.Connection) -> tuple[bytes, bytes]:
            faults.point("store.known")
            keys, digests = bytearray(), bytearray()
            for block in conn.execution_options(yield_per=10_000).execute(query).partitions():
                keys += b"".join([row[0] for row in block])
                digests += b"".join([row[1] for row in block])
            return bytes(keys), bytes(digests)

        return self.read(work)

    def known_content(self, record_keys: Sequence[bytes]) -> dict[bytes, KnownContent]:
        records = self.tables.records
        columns = (records.c.ipfs_data, records.c.ipfs_fetched, records.c.ipfs_error)

        def work(conn: sa.Connection) -> dict[bytes, KnownContent]:
            faults.point("store.content")
            return {
                bytes(row[0]): KnownContent(row[1], bool(row[2]), row[3])
                for part in _parts(record_keys)
                for row in conn.execute(
                    sa.select(records.c.record_key, *columns).where(records.c.record_key.in_(part))
                )
            }

        return self.read(work) if record_keys else {}

    def content_of_tokens(self, token_ids: Sequence[str]) -> dict[str, str]:
        records = self.tables.records

        def work(conn: sa.Connection) -> dict[str, str]:
            faults.point("store.content")
            wanted = set(token_ids)
            return {
                row[0]: row[1]
                for part in _parts(token_ids)
                for row in conn.execute(
                    sa.select(records.c.token_id, records.c.ipfs_data).where(
                        records.c.token_id.in_(part),
                        records.c.ipfs_fetched == sa.true(),
                        records.c.ipfs_data.is_not(None),
                    )
                )
                if row[0] in wanted  # a collation may ignore case; token ids do not
            }

        return self.read(work) if token_ids else {}

    def failed_tokens(self, database_key: bytes) -> set[bytes]:
        records = self.tables.records
        low, high = key_range(database_key)
        query = sa.select(records.c.record_key).where(
            records.c.record_key.between(low, high),
            records.c.source_deleted_at.is_(None),
            records.c.ipfs_fetched == sa.false(),
        )
        return self.read(lambda conn: {bytes(row[0]) for row in conn.execute(query)})

    def records_by_key(self, record_keys: Sequence[bytes]) -> dict[bytes, dict[str, Any]]:
        records = self.tables.records
        columns = [records.c[name] for name in STAGED_COLUMNS]

        def work(conn: sa.Connection) -> dict[bytes, dict[str, Any]]:
            return {
                bytes(row.record_key): {
                    **row._mapping,
                    "record_key": bytes(row.record_key),
                    "row_digest": bytes(row.row_digest),
                    "ipfs_fetched": bool(row.ipfs_fetched),
                }
                for part in _parts(record_keys)
                for row in conn.execute(sa.select(*columns).where(records.c.record_key.in_(part)))
            }

        return self.read(work) if record_keys else {}

    def stray_records(
        self, source: str, database_keys: Collection[bytes]
    ) -> list[tuple[str, str | None]]:
        records = self.tables.records
        query = sa.select(records.c.db_path, records.c.token_id).where(
            records.c.source_ip == source, records.c.source_deleted_at.is_(None)
        )
        ranges = [key_range(key) for key in sorted(set(database_keys))]
        above = [None, *(high for _, high in ranges)]
        below = [*(low for low, _ in ranges), None]

        def work(conn: sa.Connection) -> list[tuple[str, str | None]]:
            found: list[tuple[str, str | None]] = []
            for high, low in zip(above, below, strict=True):
                gap = query
                if high is not None:
                    gap = gap.where(records.c.record_key > high)
                if low is not None:
                    gap = gap.where(records.c.record_key < low)
                found += [(row[0], row[1]) for row in conn.execute(gap)]
            return found

        return self.read(work)

    def stored_records(self, database_key: bytes) -> Iterator[pa.RecordBatch]:
        try:
            with self.engine.connect() as conn:
                reading = conn.execution_options(reading=True)
                faults.point("store.records")
                for block in self._scan_records(reading, database_key):
                    columns = list(zip(*block, strict=True))
                    yield pa.RecordBatch.from_arrays(
                        [
                            _column(values, field)
                            for values, field in zip(columns, RECORD_SCHEMA, strict=True)
                        ],
                        schema=RECORD_SCHEMA,
                    )
        except self._database_errors() as error:
            raise self.translate(error) from error

    # ---------------------------------------------------------------- writing

    def prepare_load(self) -> None:
        """Nothing is left behind by dead runs on targets without staging."""

    def finish_load(self) -> None:
        """Nothing is deferred on targets that do not defer."""

    def note_seen(self, lease: Lease, database_keys: Sequence[bytes]) -> None:
        databases = self.tables.databases

        def work(conn: sa.Connection) -> None:
            self._fence(conn, lease)
            faults.point("store.seen")
            for part in _parts(database_keys):
                conn.execute(
                    sa.update(databases)
                    .where(databases.c.database_key.in_(part))
                    .values(last_seen_at=self.now)
                )

        if database_keys:
            self.transact(work)

    def retire_database(self, lease: Lease, database_key: bytes) -> int:
        records, databases = self.tables.records, self.tables.databases
        low, high = key_range(database_key)

        def work(conn: sa.Connection) -> int:
            self._fence(conn, lease)
            faults.point("store.retire")
            conn.execute(sa.delete(databases).where(databases.c.database_key == database_key))
            return conn.execute(
                sa.update(records)
                .where(
                    records.c.record_key.between(low, high),
                    records.c.source_deleted_at.is_(None),
                )
                .values(source_deleted_at=self.now, synced_at=self.now)
            ).rowcount

        return self.transact(work)

    def remove_records(self, lease: Lease, database_key: bytes) -> None:
        records, databases = self.tables.records, self.tables.databases
        low, high = key_range(database_key)

        def work(conn: sa.Connection) -> None:
            self._fence(conn, lease)
            conn.execute(sa.delete(databases).where(databases.c.database_key == database_key))
            conn.execute(sa.delete(records).where(records.c.record_key.between(low, high)))

        self.transact(work)

    def publish(self, lease: Lease, chunk: Chunk) -> Published:
        before = self.retries
        published = self._publish(lease, chunk)
        published.retries = self.retries - before
        return published

    def _publish(self, lease: Lease, chunk: Chunk) -> Published:
        try:
            return self._publish_piece(lease, chunk)
        except TransactionTooLarge:
            if chunk.rows.num_rows < 2:
                raise
            half = chunk.rows.num_rows // 2
            first = Chunk(rows=chunk.rows.slice(0, half), bulk=chunk.bulk)
            published = self._publish(lease, first)
            rest = replace(chunk, rows=chunk.rows.slice(half))
            rest = _without(rest, published.rejected)
            published.add(self._publish(lease, rest))
            return published
        except RecordRefused:
            if chunk.rows.num_rows == 0:
                raise
            return self._isolate(lease, chunk)

    def _isolate(self, lease: Lease, chunk: Chunk) -> Published:
        """Halve until the refused records stand alone; the good ones go in meanwhile."""
        total = Published()
        pending = [chunk.rows]
        while pending:
            part = pending.pop()
            piece = Chunk(rows=part, bulk=chunk.bulk)
            try:
                total.add(self._publish_piece(lease, piece))
            except RecordRefused as refused:
                if part.num_rows == 1:
                    total.rejected.append(_rejected(part, refused))
                else:
                    half = part.num_rows // 2
                    pending += [part.slice(half), part.slice(0, half)]
        # What the target still holds under a refused key is no longer what the source says.
        outdated = b"".join(rejected.record_key for rejected in total.rejected)
        rest = replace(chunk, rows=chunk.rows.slice(0, 0), vanished=chunk.vanished + outdated)
        rest = _without(rest, total.rejected)
        total.add(self._publish_piece(lease, rest))
        return total

    def _publish_piece(self, lease: Lease, chunk: Chunk) -> Published:
        attempts: list[Published] = []

        def work(conn: sa.Connection) -> Published:
            piece = chunk
            if attempts and chunk.errors:  # an earlier attempt may have stored them
                piece = replace(chunk, errors=self._unrecorded(conn, lease, chunk.errors))
            attempts.append(self._publish_once(conn, lease, piece))
            return attempts[-1]

        return _what_happened(self.transact(work), attempts)

    def _publish_once(self, conn: sa.Connection, lease: Lease, chunk: Chunk) -> Published:
        self._fence(conn, lease)
        faults.point("store.publish")
        published = self._write_rows(conn, chunk) if chunk.rows.num_rows else Published()
        published.vanished = self._write_vanished(conn, chunk.vanished)
        if chunk.errors:
            self._insert_errors(conn, lease, chunk.errors)
        if chunk.mark is not None:
            faults.point("store.mark")
            published.marked = self._write_mark(conn, chunk.mark)
        if chunk.also is not None:
            chunk.also(conn)
        return published

    def _write_vanished(self, conn: sa.Connection, keys: bytes) -> int:
        records = self.tables.records
        split = [keys[i : i + RECORD_KEY_BYTES] for i in range(0, len(keys), RECORD_KEY_BYTES)]
        if split:
            faults.point("store.vanish")
        return sum(
            conn.execute(
                sa.update(records)
                .where(records.c.record_key.in_(part), records.c.source_deleted_at.is_(None))
                .values(source_deleted_at=self.now, synced_at=self.now)
            ).rowcount
            for part in _parts(split)
        )

    def live_counts(self, conn: sa.Connection, database_key: bytes) -> MarkCounts:
        """A database's live records, counted by the server."""
        records = self.tables.records
        low, high = key_range(database_key)
        live = (records.c.record_key.between(low, high), records.c.source_deleted_at.is_(None))
        fetched = sa.case((records.c.ipfs_fetched == sa.true(), 1), else_=0)
        total, success = conn.execute(
            sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(fetched), 0)).where(*live)
        ).one()
        invalid = conn.execute(
            sa.select(sa.func.count()).where(*live, records.c.validation_errors.is_not(None))
        ).scalar_one()
        return MarkCounts(int(total), int(success), int(invalid))

    def _write_mark(self, conn: sa.Connection, mark: DatabaseMark) -> MarkCounts:
        counts = self.live_counts(conn, mark.database_key)
        if counts.records != mark.record_count:
            raise ReportMismatch(
                f"{mark.db_path}: {mark.record_count} records should be stored, "
                f"the target holds {counts.records}.",
                code="count_mismatch",
                remedy="Nothing was marked as processed; the next run reads this database again. "
                "Run `rubix-token-sync verify` to see which records differ.",
                context={"expected": mark.record_count, "counted": counts.records},
            )
        databases = self.tables.databases
        values: dict[str, Any] = asdict(mark)
        key = values.pop("database_key")
        if values.pop("content_checked"):
            values["content_checked_at"] = self.now
        values |= {
            "db_path": mark.db_path[:500],
            "last_processed": self.now,
            "last_seen_at": self.now,
            "ipfs_success_count": counts.ipfs_success,
            "ipfs_fail_count": counts.ipfs_failures,
            "validation_error_count": counts.validation_errors,
        }
        updated = conn.execute(
            sa.update(databases).where(databases.c.database_key == key).values(**values)
        )
        if updated.rowcount == 0:
            conn.execute(sa.insert(databases).values(database_key=key, **values))
        return counts


def _server_version(conn: sa.Connection) -> tuple[object, ...]:
    return conn.dialect.server_version_info or ()


def lost(lease: Lease) -> LeaseLost:
    """The error of a run that was taken for dead."""
    return LeaseLost(
        f"The lease for source {lease.source} was taken over by another run; "
        "nothing more is written.",
        code="lease_lost",
        remedy="Let the other run finish.",
    )


def _cut(text: str | None) -> str | None:
    return text and text[:500]


def _what_happened(last: Published, attempts: Sequence[Published]) -> Published:
    """The counts of the attempt that was committed.

    A replay that finds nothing to do shows that an earlier attempt, whose
    acknowledgement was lost, did it all.
    """
    did = [a for a in attempts if a.inserted or a.updated or a.vanished]
    if did and did[-1] is not last:
        last.inserted, last.updated, last.vanished = (
            did[-1].inserted, did[-1].updated, did[-1].vanished
        )  # fmt: skip
    return last


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[i : i + _IN_LIST] for i in range(0, len(items), _IN_LIST))


def _column(values: Sequence[Any], field: pa.Field) -> pa.Array:
    if pa.types.is_timestamp(field.type):
        present = next((value for value in values if value is not None), None)
        if isinstance(present, str):  # SQLite keeps times as text
            return pa.array(values, pa.string()).cast(field.type)
    if pa.types.is_boolean(field.type):
        values = [None if value is None else bool(value) for value in values]
    return pa.array(values, field.type)


def _rejected(row: pa.RecordBatch, refused: SyncError) -> Rejected:
    return Rejected(
        record_key=row.column("record_key")[0].as_py(),
        token_id=row.column("token_id")[0].as_py(),
        reason=refused.message,
    )


def _without(chunk: Chunk, rejected: Sequence[Rejected]) -> Chunk:
    """The chunk with its mark's counts and its errors corrected for refused records."""
    if not rejected or chunk.mark is None:
        return chunk
    mark = chunk.mark
    return replace(
        chunk,
        mark=replace(
            mark,
            record_count=mark.record_count - len(rejected),
            rejected_count=mark.rejected_count + len(rejected),
        ),
    )
