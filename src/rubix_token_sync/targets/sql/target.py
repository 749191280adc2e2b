"""A target: the parts that do its work, behind one door."""

from __future__ import annotations

import timeit
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

from rubix_token_sync.process_identity import Machine
from rubix_token_sync.records.schema import RECORDS, RecordTable
from rubix_token_sync.targets.base import ErrorEntry, Lease, TargetOptions
from rubix_token_sync.targets.sql.backend import Backend
from rubix_token_sync.targets.sql.database import Database
from rubix_token_sync.targets.sql.migration_state import MigrationRows
from rubix_token_sync.targets.sql.open_errors import open_errors
from rubix_token_sync.targets.sql.publishing import Publishing
from rubix_token_sync.targets.sql.questions import Questions
from rubix_token_sync.targets.sql.schema import Schema
from rubix_token_sync.targets.sql.sessions import Sessions

__all__ = ["SqlTarget"]

T = TypeVar("T")

_QUESTIONS: Final = 3
"""The first one is slow wherever the target is: it is made ready, and perhaps logs in."""


class SqlTarget:
    """Every target there is; what the methods do is said in `rubix_token_sync.targets.base.Target`.

    It is not subclassed: what differs between databases is in ``backend``.
    """

    def __init__(
        self, backend: Backend, options: TargetOptions, records: RecordTable = RECORDS
    ) -> None:
        self.backend = backend
        self.kind, self.place, self.options = backend.kind, backend.place, options
        self.one_writer, self.bulk_differs = backend.one_writer, backend.bulk_differs
        self.database = Database(backend, options, records)
        self.engine, self.tables, self.now = (
            self.database.engine, self.database.tables, self.database.now
        )  # fmt: skip
        database = self.database
        self.close, self.view, self.moment = database.close, database.view, database.moment
        self.transact, self.read = database.transact, database.read

        self.schema = schema = Schema(database)
        self.schema_version, self.ensure_schema = schema.version, schema.ensure
        self.schema_script = schema.script

        self.sessions = sessions = Sessions(database)
        self.acquire_lease, self.release_lease = sessions.acquire_lease, sessions.release_lease
        self.heartbeat, self.adopt_source = sessions.heartbeat, sessions.adopt_source
        self.start_session = sessions.start_session
        self.finish_session = sessions.finish_session
        self.record_errors = sessions.record_errors

        self.questions = questions = Questions(database)
        self.database_states = questions.database_states
        self.holds_records, self.holds_content = questions.holds_records, questions.holds_content
        self.known_rows, self.known_content = questions.known_rows, questions.known_content
        self.content_of_tokens = questions.content_of_tokens
        self.failed_tokens, self.count_live = questions.failed_tokens, questions.count_live
        self.records_by_key = questions.records_by_key
        self.stray_records, self.stored_records = questions.stray_records, questions.stored_records
        self.all_records = questions.all_records

        self.migration = migration = MigrationRows(database)
        self.record_step = migration.write_alone

        self.publishing = publishing = Publishing(database, sessions, migration)
        self.publish, self.note_seen = publishing.publish, publishing.note_seen
        self.retire_database = publishing.retire_database
        self.remove_records, self.withdraw = publishing.remove_records, publishing.withdraw

    @property
    def retries(self) -> int:
        """Attempts beyond the first, of all calls so far."""
        return self.database.retries

    def answer_seconds(self) -> float:
        return min(timeit.repeat(self.server_time, number=1, repeat=_QUESTIONS))

    def describe_connection(self) -> str:
        return self.read(self.backend.describe)

    def identity(self) -> str:
        """The same text for every way to the same database."""
        return self.read(self.backend.identity)

    def server_time(self) -> datetime:
        return self.read(self.database.time)

    def leases(self) -> list[Lease]:
        return self.read(self.sessions.leases)

    def check_source(self, source: str, machine: Machine) -> bool:
        return self.read(lambda conn: self.sessions.check_source(conn, source, machine))

    def open_errors(self, source: str) -> list[ErrorEntry]:
        return self.read(lambda conn: open_errors(conn, self.tables, source))

    def prepare_load(self) -> None:
        self.backend.prepare_load(self.database)

    def finish_load(self) -> None:
        self.backend.finish_load(self.database)

    def copy_into(self, path: Path) -> None:
        self.read(lambda conn: self.backend.copy_into(conn, path))
