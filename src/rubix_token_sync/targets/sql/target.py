"""A target: the parts that do its work, behind one door."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

import pyarrow as pa
import sqlalchemy as sa

from rubix_token_sync.process_identity import Machine
from rubix_token_sync.records.schema import RECORDS, RecordTable
from rubix_token_sync.targets.base import (
    Chunk,
    DatabaseState,
    ErrorEntry,
    KnownContent,
    Lease,
    MigrationStep,
    Published,
    SessionTotals,
    StrayRecord,
    TargetOptions,
)
from rubix_token_sync.targets.sql.backend import Backend
from rubix_token_sync.targets.sql.database import Database
from rubix_token_sync.targets.sql.migration_state import MigrationRows
from rubix_token_sync.targets.sql.publishing import Publishing
from rubix_token_sync.targets.sql.questions import Questions
from rubix_token_sync.targets.sql.schema import Schema
from rubix_token_sync.targets.sql.sessions import Sessions

__all__ = ["SqlTarget"]

T = TypeVar("T")


class SqlTarget:
    """Every target there is; what the methods do is said in `rubix_token_sync.targets.base.Target`.

    It is not subclassed: what differs between databases is in ``backend``.
    """

    def __init__(
        self, backend: Backend, options: TargetOptions, records: RecordTable = RECORDS
    ) -> None:
        self.backend = backend
        self.kind, self.place, self.options = backend.kind, backend.place, options
        self.one_writer = backend.one_writer
        self.database = Database(backend, options, records)
        self.engine, self.tables, self.now = (
            self.database.engine, self.database.tables, self.database.now
        )  # fmt: skip
        self.schema = Schema(self.database)
        self.sessions = Sessions(self.database)
        self.questions = Questions(self.database)
        self.migration = MigrationRows(self.database)
        self.publishing = Publishing(self.database, self.sessions, self.migration)

    def close(self) -> None:
        self.database.close()

    @property
    def retries(self) -> int:
        """Attempts beyond the first, of all calls so far."""
        return self.database.retries

    # transactions, for questions of other modules
    def transact(self, work: Callable[[sa.Connection], T]) -> T:
        """See `Database`."""
        return self.database.transact(work)

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """See `Database`."""
        return self.database.read(work)

    def view(self) -> contextlib.AbstractContextManager[sa.Connection]:
        """See `Database`."""
        return self.database.view()

    # schema
    def schema_version(self) -> str | None:
        return self.schema.version()

    def ensure_schema(self) -> bool:
        return self.schema.ensure()

    def schema_script(self) -> str:
        return self.schema.script()

    def describe_connection(self) -> str:
        return self.read(self.backend.describe)

    def identity(self) -> str:
        """The same text for every way to the same database."""
        return self.read(self.backend.identity)

    def server_time(self) -> datetime:
        return self.read(self.database.time)

    # runs
    def leases(self) -> list[Lease]:
        return self.read(self.sessions.leases)

    def acquire_lease(self, lease: Lease, holder: str, machine: Machine | None = None) -> None:
        self.sessions.acquire_lease(lease, holder, machine)

    def adopt_source(self, source: str, machine: Machine) -> None:
        self.sessions.adopt_source(source, machine)

    def release_lease(self, lease: Lease) -> None:
        self.sessions.release_lease(lease)

    def heartbeat(self, lease: Lease, totals: SessionTotals) -> None:
        self.sessions.heartbeat(lease, totals)

    def start_session(
        self, session_id: str, source: str, host: str, pid: int, command: str
    ) -> None:
        self.sessions.start_session(session_id, source, host, pid, command)

    def finish_session(
        self, session_id: str, status: str, totals: SessionTotals, error_summary: str | None
    ) -> None:
        self.sessions.finish_session(session_id, status, totals, error_summary)

    def close_dead_sessions(self, source: str, own_session: str) -> int:
        return self.sessions.close_dead_sessions(source, own_session)

    def record_errors(self, lease: Lease, entries: Sequence[ErrorEntry]) -> None:
        self.sessions.record_errors(lease, entries)

    def record_step(self, step: MigrationStep) -> None:
        """Write what a migration notes, in a transaction of its own."""
        self.migration.write_alone(step)

    # what is known
    def database_states(self, source: str | None) -> list[DatabaseState]:
        return self.questions.database_states(source)

    def holds_records(self) -> bool:
        return self.questions.holds_records()

    def holds_content(self) -> bool:
        return self.questions.holds_content()

    def known_rows(self, database_key: bytes, table: RecordTable = RECORDS) -> tuple[bytes, bytes]:
        return self.questions.known_rows(database_key, table)

    def known_content(self, record_keys: Sequence[bytes]) -> dict[bytes, KnownContent]:
        return self.questions.known_content(record_keys)

    def content_of_tokens(self, token_ids: Sequence[str]) -> dict[str, str]:
        return self.questions.content_of_tokens(token_ids)

    def failed_tokens(self, database_key: bytes) -> set[bytes]:
        return self.questions.failed_tokens(database_key)

    def records_by_key(
        self, record_keys: Sequence[bytes], table: RecordTable = RECORDS
    ) -> dict[bytes, dict[str, Any]]:
        return self.questions.records_by_key(record_keys, table)

    def count_live(self, database_keys: Collection[bytes]) -> dict[bytes, dict[str, int]]:
        return self.questions.count_live(database_keys)

    def stray_records(self, source: str, database_keys: Collection[bytes]) -> list[StrayRecord]:
        return self.questions.stray_records(source, database_keys)

    def stored_records(
        self, database_key: bytes, table: RecordTable = RECORDS
    ) -> Iterator[pa.RecordBatch]:
        return self.questions.stored_records(database_key, table)

    # writing
    def prepare_load(self) -> None:
        self.backend.prepare_load(self.database)

    def publish(self, lease: Lease, chunk: Chunk) -> Published:
        return self.publishing.publish(lease, chunk)

    def note_seen(self, lease: Lease, database_keys: Sequence[bytes]) -> None:
        self.publishing.note_seen(lease, database_keys)

    def retire_database(self, lease: Lease, database_key: bytes) -> int:
        return self.publishing.retire_database(lease, database_key)

    def remove_records(self, lease: Lease, database_key: bytes) -> None:
        self.publishing.remove_records(lease, database_key)

    def finish_load(self) -> None:
        self.backend.finish_load(self.database)
