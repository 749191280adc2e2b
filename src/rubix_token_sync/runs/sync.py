"""One sync, from roots to a target that equals the nodes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rubix_token_sync.errors import (
    ReportMismatch,
    SyncError,
)
from rubix_token_sync.log import log_event
from rubix_token_sync.os_errors import refusal
from rubix_token_sync.process_identity import own_machine
from rubix_token_sync.records.schema import database_key
from rubix_token_sync.runs.cancel import CancelToken, Interrupted
from rubix_token_sync.runs.jobs import Batch, Done, Event, Failed, Job
from rubix_token_sync.runs.plan import Plan
from rubix_token_sync.runs.progress import Progress
from rubix_token_sync.runs.publisher import DatabaseResult, Publisher
from rubix_token_sync.runs.result import DatabaseOutcome, RunOptions, RunResult
from rubix_token_sync.runs.session import Session, Status
from rubix_token_sync.runs.survey import Survey
from rubix_token_sync.runs.worker_pool import Crew
from rubix_token_sync.targets.base import (
    SCHEMA_VERSION,
    DatabaseState,
    ErrorEntry,
    Published,
    Target,
)
from rubix_token_sync.targets.registry import open_target

__all__ = ["Run", "sync"]

_LOG = logging.getLogger(__name__)


def sync(
    options: RunOptions,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    stop: CancelToken | None = None,
    on_failed: Callable[[RunResult], None] | None = None,
) -> RunResult:
    """Make the target equal to the nodes below the roots.

    ``on_failed`` gets the outcome of a session that ends with an error, which is
    then raised.

    Raises:
        SyncError: the run could not start or had to stop; everything that was
            published stays, and the next run goes on from there.
        Interrupted: ``stop`` came before there was a session; later it makes an
            outcome with the status INTERRUPTED.
    """
    run = Run(options, on_progress or (lambda _progress: None), stop)
    run.on_failed = on_failed or run.on_failed
    return run.run()


@dataclass
class _Ahead:
    """What is being read before there is a session."""

    plan: Plan
    jobs: dict[int, Job]
    crew: Crew
    events: Iterator[Event | None]


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
        self._recorded = 0  # of the errors, in the target
        self._ahead: _Ahead | None = None

    def run(self) -> RunResult:
        with contextlib.ExitStack() as stack:
            store = open_target(self.options.target, self.options.store)
            stack.callback(store.close)
            with self.stop.at_once():
                version = store.schema_version()
                empty = version is None and not store.holds_tables()
                if empty:
                    self.discover()
            if empty:
                self._read_ahead(stack)
            with self.stop.at_once():
                if version != SCHEMA_VERSION:
                    store.ensure_schema()
            return self._in_session(store)

    def _read_ahead(self, stack: contextlib.ExitStack) -> None:
        """Begin to read while the target gets its tables: it knows of nothing, so all is read."""
        plan = self.plan([])
        jobs = self.jobs(plan, None)
        if jobs:
            crew = stack.enter_context(self.crew(len(jobs), None))  # there is nothing to ask
            self._ahead = _Ahead(plan, jobs, crew, crew.run(list(jobs.values())))

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
        ahead = self._ahead
        if ahead is not None and (states or store.holds_records()):
            ahead.crew.close()  # another run has been here meanwhile
            ahead = None
        with self.stop.at_once():
            self.discover()
            plan = self.plan(states) if ahead is None else ahead.plan
        jobs = self.jobs(plan, store) if ahead is None else ahead.jobs
        self.note_plan(plan, jobs)
        if plan.missing and options.max_shrink is None:
            self._retire(store, session, plan.missing)
        self.stop.check()
        if jobs:
            self._publish_all(store, session, jobs, ahead)
        store.finish_load()  # also what a run left undone that died after its last record
        if not options.only_failed:  # which looks at no database that has all of its content
            store.note_seen(
                session.lease, [database_key(options.source, n.db_path) for n in plan.current]
            )
        self._record_errors(store, session)
        self._reconcile(store)
        self.tick(final=bool(jobs))

    def _publish_all(
        self, store: Target, session: Session, jobs: dict[int, Job], ahead: _Ahead | None
    ) -> None:
        options = self.options

        def look_at_session() -> None:
            self.stop.check()
            if session.error is not None:
                raise session.error

        publisher = Publisher(
            store,
            session.lease,
            jobs,
            bulk_insert_size=options.store.bulk_insert_size,
            on_change=self._published,
            while_waiting=look_at_session,
        )
        try:
            self.tick()  # a sign of life while the workers start
            with ahead.crew if ahead else self.crew(len(jobs), options.target) as crew:
                events = ahead.events if ahead else crew.run(list(jobs.values()))
                store.prepare_load()
                for event in self.watched(events):
                    publisher.check()
                    look_at_session()
                    if event is not None:
                        self._event(event, jobs, publisher)
                    self.tick()
                publisher.finish()
        finally:
            publisher.stop()

    def _event(self, event: Event, jobs: dict[int, Job], publisher: Publisher) -> None:
        if isinstance(event, Failed):
            node = jobs[event.job].node
            self.fail(event.job, node.db_path, node.name, event.error)
        if isinstance(event, Batch):
            self.progress.batch(event)
        elif isinstance(event, Done):
            outcome = self.databases[jobs[event.job].node.db_path]
            outcome.seconds = event.summary.seconds
        publisher.take(event)

    def _published(self, result: DatabaseResult, published: Published) -> None:
        self.progress.published(published)
        outcome = self.databases[result.job.node.db_path]
        total = result.published
        outcome.read = result.tally.read
        outcome.inserted, outcome.updated = total.inserted, total.updated
        outcome.vanished, outcome.rejected = total.vanished, len(total.rejected)
        if published.marked is not None:
            counts = published.marked
            self.progress.marked(result.job.number, counts)
            outcome.status = "processed"
            outcome.records = counts.records
            outcome.ipfs_success = counts.ipfs_success
            outcome.ipfs_failures = counts.ipfs_failures
            outcome.validation_errors = counts.validation_errors
            log_event(
                _LOG, logging.INFO, "database_processed",
                f"{outcome.node_name}: {counts.records:,} records "
                f"({total.inserted:,} new, {total.updated:,} changed, "
                f"{total.vanished:,} gone), content of {counts.ipfs_success:,}",
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
                f"{state.node_name}: the database is gone; {vanished:,} records marked as deleted",
                node=state.node_name, db_path=state.db_path,
            )  # fmt: skip

    def _reconcile(self, store: Target) -> None:
        """The report's numbers are the target's, or the run says so (incident 17)."""
        states = {s.db_path: s for s in store.database_states(self.options.source)}
        for outcome in self.databases.values():
            if outcome.status != "processed":
                continue
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
        parts = [first] if first else []
        parts += [f"{label}: {count}" for label, count in sorted(counts.items())]
        return "; ".join(parts) or None


def _unforeseen(error: Exception) -> SyncError:
    return SyncError(f"Unexpected: {error!r}", code="unexpected")
