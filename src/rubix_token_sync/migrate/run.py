"""A migration from begin to end; see docs/MIGRATION.md for what it promises.

The unit is a database of the source: its records, what was set aside of it, its
mark and its state become visible step by step, and it counts as moved in the
transaction that also proves it.  Whoever is killed in between begins that one
database again; what was written already is found unchanged.
"""

from __future__ import annotations

import fnmatch
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import sqlalchemy as sa

from rubix_token_sync.errors import SettingsError, SyncError
from rubix_token_sync.log import log_event
from rubix_token_sync.migrate.mover import Mover
from rubix_token_sync.migrate.parts import parts_of
from rubix_token_sync.migrate.proof import digest_aside, digest_held, digest_homeless
from rubix_token_sync.migrate.report import DatabaseOutcome, MigrationReport
from rubix_token_sync.migrate.rows import Digest
from rubix_token_sync.migrate.sessions import Sessions
from rubix_token_sync.migrate.source import PlannedDatabase, Source, open_source
from rubix_token_sync.migrate.state import Known, MigrationState
from rubix_token_sync.targets.base import DatabaseState, TargetOptions
from rubix_token_sync.targets.registry import TargetAddress, open_target
from rubix_token_sync.targets.sql.questions import key_range
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["MigrateOptions", "migrate"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class MigrateOptions:
    """What to move and how.

    ``source_timezone`` is what the source's times without a zone were written in
    (None: as an earlier call said, else UTC).  ``only`` are shell patterns of
    database paths; none means all.
    """

    source: TargetAddress
    target: TargetAddress
    store: TargetOptions = field(default_factory=TargetOptions)
    source_timezone: str | None = None
    only: tuple[str, ...] = ()
    dry_run: bool = False
    verify_only: bool = False
    start_over: bool = False
    ask_timezone: Callable[[], str] | None = None
    """Asks a person for ``source_timezone``, where nobody has said it yet."""
    heartbeat_seconds: float = 15.0


Progress = Callable[[DatabaseOutcome, int, int], None]
"""Called after each database: its outcome, its number, and how many there are."""


def migrate(options: MigrateOptions, on_database: Progress | None = None) -> MigrationReport:
    """Move all records of a source to a target, or go on with it, or prove it.

    Raises:
        SettingsError: another migration is unfinished there, or the options contradict.
        LeaseHeld: a sync is writing to the target for the same source.
        ReportMismatch: the target does not hold what was just written.
        TargetError: one of the two cannot be reached, or refuses.
    """
    begun = time.monotonic()
    migration = _Migration(options, on_database or (lambda *_: None))
    status: Literal["FAILED", "INTERRUPTED"] = "FAILED"
    try:
        report = migration.run()
    except KeyboardInterrupt:
        status = "INTERRUPTED"
        raise
    finally:
        migration.close(status)
    report.seconds = time.monotonic() - begun
    return report


class _Migration:
    def __init__(self, options: MigrateOptions, on_database: Progress) -> None:
        self._options = options
        self._tell = on_database
        read_only = options.dry_run or options.verify_only
        self.store = open_target(options.target, replace(options.store, read_only=read_only))
        self._sessions = Sessions(self.store, options.heartbeat_seconds)
        self._source: Source | None = None

    def close(self, status: Literal["FAILED", "INTERRUPTED"]) -> None:
        try:
            self._sessions.end(status, "The migration stopped before its end.")
        except SyncError as error:  # what stopped it is the error to tell; this one is noted
            log_event(_LOG, logging.WARNING, "session_open", str(error), code=error.code)
        if self._source is not None:
            self._source.close()
        self.store.close()

    # ---------------------------------------------------------------- the whole

    def run(self) -> MigrationReport:
        options = self._options
        source = self._source = open_source(options.source)
        if options.target.exists():
            _refuse_same(source, self.store)
        state = self._open_state(source)
        if options.verify_only and state is None:
            raise SettingsError(
                "The target holds no migration of this source to verify.",
                code="no_migration",
                remedy="Run it without --verify-only first.",
            )
        zone = state.timezone if state is not None else self._timezone(source)
        source.set_timezone(zone)
        if state is None and not options.dry_run:
            state = MigrationState.begin(self.store, source.identity, source.place, zone)
        report = MigrationReport(
            migration_id=state.migration_id if state is not None else "",
            mode="dry_run" if options.dry_run else "verify" if options.verify_only else "migrate",
            source=source.place,
            target=self.store.place,
            source_timezone=zone,
        )
        plan = source.plan()
        chosen = [one for one in plan if _chosen(one.db_path, options.only)]
        if options.dry_run:
            self._dry_run(source, chosen, report)
        elif options.verify_only:
            assert state is not None
            self._verify(source, state, chosen, report)
        else:
            assert state is not None
            self._move(source, state, plan, chosen, report)
        report.databases_without_rows = source.without_rows()
        return report

    def _timezone(self, source: Source) -> str:
        """Asked for once: an earlier call's answer is in the state."""
        options = self._options
        if options.source_timezone is None and source.has_local_times and options.ask_timezone:
            return options.ask_timezone()
        return options.source_timezone or "UTC"

    def _open_state(self, source: Source) -> MigrationState | None:
        options = self._options
        if (options.dry_run or options.verify_only) and not _has_tables(self.store, options.target):
            return None
        self.store.ensure_schema()
        return MigrationState.open(
            self.store,
            source.identity,
            options.source_timezone,
            start_over=options.start_over and not (options.dry_run or options.verify_only),
        )

    # ---------------------------------------------------------------- moving

    def _move(
        self,
        source: Source,
        state: MigrationState,
        plan: list[PlannedDatabase],
        chosen: list[PlannedDatabase],
        report: MigrationReport,
    ) -> None:
        state.set_status("RUNNING")
        self.store.prepare_load()
        known = state.known()
        there = {one.database_key: one for one in self.store.database_states(None)}
        todo = []
        for database in chosen:
            earlier = known.get(database.key)
            kept = self._kept(database, earlier, there.get(database.key))
            if kept is not None:
                report.databases.append(kept)
            elif (
                earlier is not None
                and earlier.state == "DONE"
                and (earlier.version == database.version)
            ):
                report.databases.append(earlier.outcome)
            else:
                todo.append(database)
        mover = Mover(source, self.store, state, self._sessions)
        done = len(report.databases)
        for number, (database, rows) in enumerate(
            zip(todo, source.read(todo), strict=True), start=done + 1
        ):
            outcome = mover.move(database, rows, known.get(database.key))
            report.databases.append(outcome)
            self._tell(outcome, number, len(chosen))
        self._sessions.end("COMPLETED")
        if not self._options.only:
            report.rows_without_database = mover.move_homeless()
        self.store.finish_load()
        handled = {key for key, one in state.known().items() if one.state == "DONE"}
        kept_paths = {(o.source_ip, o.db_path) for o in report.databases if o.state == "kept"}
        report.complete = all(
            one.key in handled or (one.source_ip, one.db_path) in kept_paths for one in plan
        )
        if report.complete:
            state.set_status("COMPLETED")

    def _kept(
        self, database: PlannedDatabase, earlier: Known | None, there: DatabaseState | None
    ) -> DatabaseOutcome | None:
        """Records that a sync wrote are newer than anything the source has: left alone."""
        if _is_synced(database, there):
            if earlier and earlier.state == "DONE" and earlier.version == database.version:
                return earlier.outcome
        elif earlier is not None or (there is None and not self._holds_any(database.key)):
            return None
        return DatabaseOutcome(database.source_ip, database.db_path, "kept")

    def _holds_any(self, key: bytes) -> bool:
        records = self.store.tables.records
        low, high = key_range(key)
        query = sa.select(records.c.id).where(records.c.record_key.between(low, high)).limit(1)
        return self.store.read(lambda conn: conn.execute(query).first()) is not None

    # ---------------------------------------------------------------- proof

    def _verify(
        self,
        source: Source,
        state: MigrationState,
        chosen: list[PlannedDatabase],
        report: MigrationReport,
    ) -> None:
        known = state.known()
        there = {one.database_key: one for one in self.store.database_states(None)}
        todo = []
        for database in chosen:
            earlier = known.get(database.key)
            if _is_synced(database, there.get(database.key)):
                outcome = DatabaseOutcome(database.source_ip, database.db_path, "synced")
                report.databases.append(outcome)
            else:
                todo.append((database, earlier))
        for number, ((database, earlier), rows) in enumerate(
            zip(todo, source.read([one for one, _ in todo]), strict=True), start=1
        ):
            begun = time.monotonic()
            outcome = DatabaseOutcome(database.source_ip, database.db_path, "verified")
            read = Digest()
            for chunk in parts_of(rows, read, outcome):
                del chunk
            held = digest_held(source, state, database)
            found, outcome.rows_stored = held.digest, held.records
            outcome.digest, outcome.target_digest = read.text(), found.text()
            outcome.seconds = time.monotonic() - begun
            if found != read or earlier is None or earlier.state != "DONE":
                outcome.state = "different"
            outcome.rows_refused = earlier.outcome.rows_refused if earlier else 0
            report.databases.append(outcome)
            self._tell(outcome, number, len(todo))
        if not self._options.only:
            found = digest_homeless(source)
            report.rows_without_database = found.count
            if found != digest_aside(source, state):
                report.databases.append(DatabaseOutcome("", "", "different", found.count))
        report.complete = not report.different and not self._options.only

    def _dry_run(
        self, source: Source, chosen: list[PlannedDatabase], report: MigrationReport
    ) -> None:
        for number, (database, rows) in enumerate(
            zip(chosen, source.read(chosen), strict=True), start=1
        ):
            begun = time.monotonic()
            outcome = DatabaseOutcome(database.source_ip, database.db_path, "would_move")
            read = Digest()
            for chunk in parts_of(rows, read, outcome):
                outcome.rows_stored += len(chunk.records)
            outcome.digest = read.text()
            outcome.seconds = time.monotonic() - begun
            report.databases.append(outcome)
            self._tell(outcome, number, len(chosen))
        if not self._options.only:
            report.rows_without_database = sum(1 for _ in source.homeless())


def _is_synced(database: PlannedDatabase, there: DatabaseState | None) -> bool:
    """A sync has marked the database since (or before) it was moved."""
    if there is None or there.fingerprint is None:
        return False
    return database.state is None or there.fingerprint != database.state.fingerprint


def _chosen(path: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _has_tables(store: SqlTarget, target: TargetAddress) -> bool:
    return target.exists() and store.schema_version() is not None


def _refuse_same(source: Source, store: SqlTarget) -> None:
    if source.is_in(store):
        raise SettingsError(
            "Source and target are the same database.",
            code="same_database",
            remedy="The older system's tables are upgraded in place by "
            "`rubix-token-sync schema upgrade`; to migrate, name another target.",
        )
