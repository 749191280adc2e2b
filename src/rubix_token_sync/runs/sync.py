"""One sync, from roots to a target that equals the nodes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from rubix_token_sync import node_files
from rubix_token_sync.errors import (
    ReportMismatch,
    SyncError,
)
from rubix_token_sync.log import log_event
from rubix_token_sync.os_errors import refusal
from rubix_token_sync.process_identity import own_machine
from rubix_token_sync.records.companions import COMPANIONS
from rubix_token_sync.records.schema import RECORDS, database_key
from rubix_token_sync.runs.cancel import CancelToken, Interrupted
from rubix_token_sync.runs.carried import Looked, carried, place
from rubix_token_sync.runs.jobs import ChunkPublished, Difference, Job, JobFailed, Report, RowsRead
from rubix_token_sync.runs.progress import Progress
from rubix_token_sync.runs.result import DatabaseOutcome, RunOptions, RunResult
from rubix_token_sync.runs.session import Session, Status
from rubix_token_sync.runs.survey import Survey
from rubix_token_sync.targets.base import (
    SCHEMA_VERSION,
    Chunk,
    DatabaseState,
    ErrorEntry,
    Target,
)
from rubix_token_sync.targets.registry import open_target
from rubix_token_sync.text import counted

if TYPE_CHECKING:
    from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["Run", "sync"]

_LOG = logging.getLogger(__name__)


def sync(
    options: RunOptions,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    stop: CancelToken | None = None,
    on_failed: Callable[[RunResult], None] | None = None,
    on_difference: Callable[[Difference], None] | None = None,
    on_ended: Callable[[SqlTarget], None] | None = None,
) -> RunResult:
    """Make the target equal to the nodes below the roots.

    With ``options.force`` every record is compared with the node's, content
    included, and written again where it differs; ``on_difference`` gets each.

    ``on_failed`` gets the outcome of a session that ends with an error, which is
    then raised; ``on_ended`` gets the target, still open, after any other session.

    Raises:
        SyncError: the run could not start or had to stop; everything that was
            published stays, and the next run goes on from there.
        Interrupted: ``stop`` came before there was a session; later it makes an
            outcome with the status INTERRUPTED.
    """
    run = Run(options, on_progress or (lambda _progress: None), stop)
    run.on_failed = on_failed or run.on_failed
    run.on_difference = on_difference or run.on_difference
    run.on_ended = on_ended or run.on_ended
    return run.run()


class Run(Survey):
    """The steps of a sync."""

    def __init__(
        self,
        options: RunOptions,
        on_progress: Callable[[Progress], None],
        stop: CancelToken | None = None,
    ) -> None:
        super().__init__(options, on_progress, stop)
        self.on_failed: Callable[[RunResult], None] = lambda _outcome: None
        self.on_difference: Callable[[Difference], None] = lambda _difference: None
        self.on_ended: Callable[[SqlTarget], None] = lambda _target: None
        self._recorded = 0  # of the errors, in the target

    def run(self) -> RunResult:
        self.require_extras()
        with contextlib.ExitStack() as stack:
            target = open_target(self.options.target, self.options.store)
            stack.callback(target.close)
            with self.stop.at_once():
                if target.schema_version() != SCHEMA_VERSION:
                    target.ensure_schema()
            outcome = self._in_session(target)
            self.on_ended(target)
            return outcome

    def _in_session(self, store: Target) -> RunResult:
        options = self.options
        machine = own_machine()
        if options.adopt_source:
            store.adopt_source(options.source, machine)
        with Session(
            store,
            options.source,
            options.command,
            totals=self.progress.totals,
            heartbeat_seconds=options.heartbeat_seconds,
            lease_seconds=options.lease_seconds,
            machine=machine,
        ) as session:
            dead = session.start()
            log_event(
                _LOG, logging.INFO, "session_started",
                f"Session {session.id} for source {options.source} into {store.place}",
                session=session.id,
            )  # fmt: skip
            try:
                self._work(store, session)
            except Interrupted as interrupt:
                outcome = self.outcome("INTERRUPTED", session.id, store.place, dead)
                outcome.signal_number = interrupt.signal_number
                self._give_up(store, session, "INTERRUPTED", "Stopped by a signal.")
                return outcome
            except SyncError as error:
                self._end_failed(store, session, dead, error)
                raise
            except Exception as error:
                refused = refusal(error)
                self._end_failed(store, session, dead, refused or _unforeseen(error))
                if refused is not None:
                    raise refused from error
                raise
            outcome = self.outcome("COMPLETED", session.id, store.place, dead)
            session.finish("COMPLETED", self.progress.totals(), self._summary())
            return outcome

    def _end_failed(self, store: Target, session: Session, dead: int, error: SyncError) -> None:
        self._give_up(store, session, "FAILED", str(error))
        outcome = self.outcome("FAILED", session.id, store.place, dead)
        outcome.error = error
        outcome.errors.append(
            ErrorEntry(error.category, error.code, str(error), context=error.context)
        )
        self.on_failed(outcome)

    def _give_up(self, store: Target, session: Session, status: Status, reason: str) -> None:
        """Write how it ended where the target still lets us; the next run sees it anyway."""
        self.errors += [
            ErrorEntry(
                "system",
                "pending",
                f"Not reached: {reason}",
                d.node_name,
                d.db_path,
                context=self._root(d.db_path),
            )
            for d in self.databases.values()
            if d.status == "pending"
        ]
        try:
            self._record_errors(store, session)
            session.finish(status, self.progress.totals(), self._summary(reason))
        except SyncError as second:
            log_event(
                _LOG, logging.WARNING, "session_not_closed",
                f"The session could not be closed: {second}", code=second.code,
            )  # fmt: skip

    def _record_errors(self, store: Target, session: Session) -> None:
        fresh = self.errors[self._recorded :]
        store.record_errors(session.lease, fresh)
        self._recorded += len(fresh)

    def _work(self, store: Target, session: Session) -> None:
        options = self.options
        states = store.database_states(options.source)
        with self.stop.at_once():
            live = store.count_live([state.database_key for state in states])
            self.discover()
            plan = self.plan(states, live)
        jobs = self.jobs(plan, store)
        self.note_plan(plan, jobs)
        if plan.missing and options.max_shrink is None:
            self._retire(store, session, plan.missing)
        if options.force and not options.nodes:
            self._remove_strays(store, session, jobs)
        self.stop.check()
        if jobs:
            self._publish_all(store, session, jobs)
        with session.occupied():
            store.finish_load()  # also what a run left undone that died after its last record
        if not options.only_failed:  # which looks at no database that has all of its content
            store.note_seen(
                session.lease, [database_key(options.source, n.db_path) for n in plan.current]
            )
        self._record_errors(store, session)
        store.record_errors(session.lease, self._left_open(store, states))
        self._reconcile(store)
        self.tick(final=bool(jobs))

    def _left_open(self, store: Target, states: list[DatabaseState]) -> list[ErrorEntry]:
        """What earlier runs could not read and this one was not asked for."""
        looked = Looked(
            roots=self.discovery.roots,
            found={node.db_path for node in self.discovery.nodes},
            dealt_with=self.databases,
            known={state.db_path for state in states},
        )
        left = carried(store.open_errors(self.options.source), looked)
        there = node_files.not_gone(map(place, left))
        return [entry for entry in left if place(entry) in there]

    def _publish_all(self, store: Target, session: Session, jobs: dict[int, Job]) -> None:
        def look() -> None:
            if session.error is not None:
                raise session.error
            self.tick()

        self.tick()  # a sign of life while the workers start
        with self.pool(len(jobs), store, lease=session.lease) as pool:
            with session.occupied():
                store.prepare_load()

            def note(report: Report) -> None:
                session.touch()
                self._note(report, jobs)

            self.work(pool, list(jobs.values()), note, look)

    def _note(self, report: Report, jobs: dict[int, Job]) -> None:
        node = jobs[report.job].node
        if isinstance(report, JobFailed):
            self.fail(report.job, node.db_path, node.name, report.error)
            return
        outcome = self.databases[node.db_path]
        if isinstance(report, RowsRead):
            self.progress.read(report)
            outcome.read += report.tally.read
            for difference in report.differences:
                self.on_difference(difference)
        elif isinstance(report, ChunkPublished):
            self.progress.published(report)
            self._published(outcome, report)
        else:
            outcome.seconds = report.summary.seconds
            outcome.chains_unread = report.summary.chains_unread
            self.note_content(jobs[report.job], report.summary)

    def _published(self, outcome: DatabaseOutcome, report: ChunkPublished) -> None:
        if report.table == RECORDS.name:
            outcome.inserted += report.inserted
            outcome.updated += report.updated
            outcome.vanished += report.vanished
        outcome.rejected += report.rejected
        counts = report.marked
        if counts is None:
            return
        outcome.status = "processed"
        outcome.records = counts.records
        outcome.ipfs_success = counts.ipfs_success
        outcome.ipfs_failures = counts.ipfs_failures
        outcome.validation_errors = counts.validation_errors
        label = self.label(outcome.node_name, outcome.db_path)
        log_event(
            _LOG, logging.INFO, "database_processed",
            f"{label}: {counted(counts.records, 'record')} "
            f"({outcome.inserted:,} new, {outcome.updated:,} changed, "
            f"{outcome.vanished:,} gone), content of {counts.ipfs_success:,}",
            node=outcome.node_name, db_path=outcome.db_path, records=counts.records,
        )  # fmt: skip

    def _retire(self, store: Target, session: Session, missing: list[DatabaseState]) -> None:
        for state in missing:
            self.stop.check()
            vanished = store.retire_database(session.lease, state.database_key)
            self.progress.counters.vanished += vanished
            self.databases[state.db_path] = DatabaseOutcome(
                state.db_path, state.node_name or "", "retired", "database_gone", vanished=vanished
            )
            log_event(
                _LOG, logging.WARNING, "database_retired",
                f"{state.node_name} ({state.db_path}): the database is gone; "
                f"{counted(vanished, 'record')} marked as deleted",
                node=state.node_name, db_path=state.db_path,
            )  # fmt: skip

    def _remove_strays(self, store: Target, session: Session, jobs: dict[int, Job]) -> None:
        """Mark as deleted what is in the target and belongs to no database."""
        known = [state.database_key for state in store.database_states(None)]
        reading = [job.database_key for job in jobs.values()]
        strays = store.stray_records(self.options.source, [*known, *reading])
        for stray in strays:
            self.on_difference(Difference("-", stray.db_path, stray.token_id, table=stray.table))
        for table in (RECORDS, *COMPANIONS):
            vanished = b"".join(s.record_key for s in strays if s.table == table.name)
            if vanished:
                import pyarrow as pa

                none = pa.RecordBatch.from_pylist([], schema=table.schema)
                chunk = Chunk(none, vanished=vanished, table=table.name)
                published = store.publish(session.lease, chunk)
                if table is RECORDS:
                    self.progress.counters.vanished += published.vanished

    def _reconcile(self, store: Target) -> None:
        """The report's numbers are the target's, or the run says so (incident 17)."""
        processed = [o for o in self.databases.values() if o.status == "processed"]
        if not processed:
            return
        states = {s.db_path: s for s in store.database_states(self.options.source)}
        for outcome in processed:
            state = states.get(outcome.db_path[:500])
            told = (outcome.records, outcome.ipfs_success, outcome.validation_errors)
            held = state and (
                state.record_count, state.ipfs_success_count, state.validation_error_count
            )  # fmt: skip
            if told != held:
                raise ReportMismatch(
                    f"{outcome.db_path}: the run counted {told}, the target holds {held} "
                    "(records, contents, invalid).",
                    code="report_mismatch",
                    remedy="Run `rubix-token-sync verify` to see which records differ.",
                )

    def _summary(self, first: str | None = None) -> str | None:
        """``error_summary``: what stopped the run, then each kind of error with its count."""
        counts: dict[str, int] = {}
        for entry in self.errors:
            label = f"{entry.category}/{entry.code}"
            counts[label] = counts.get(label, 0) + entry.occurrences
        for code, count in sorted(self.progress.counters.content_failures.items()):
            counts[f"ipfs/{code}"] = count
        if self.progress.counters.rejected:
            counts["database/record_refused"] = self.progress.counters.rejected
        parts = [first.removesuffix(".")] if first else []
        parts += [f"{label}: {count}" for label, count in sorted(counts.items())]
        return "; ".join(parts) or None


def _unforeseen(error: Exception) -> SyncError:
    return SyncError(f"Unexpected: {error!r}", code="unexpected")
