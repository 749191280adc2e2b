"""One sync, from roots to a target that equals the nodes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from rubix_token_sync.discovery import Discovery, discover
from rubix_token_sync.errors import (
    ReportMismatch,
    SettingsError,
    SourceError,
    SyncError,
    WorkerCrashed,
)
from rubix_token_sync.logs import ProgressPace, log_event
from rubix_token_sync.records import database_key
from rubix_token_sync.refusals import refusal
from rubix_token_sync.store import Target, open_store
from rubix_token_sync.store.base import (
    DatabaseState,
    ErrorEntry,
    Published,
    Store,
)
from rubix_token_sync.sync.crew import Crew, affordable
from rubix_token_sync.sync.jobs import Batch, Done, Event, Failed, Job, WorkerContext
from rubix_token_sync.sync.outcome import DatabaseOutcome, Outcome, RunOptions
from rubix_token_sync.sync.plan import Plan, PlanRules, left_out, make_plan
from rubix_token_sync.sync.progress import Progress
from rubix_token_sync.sync.publisher import DatabaseResult, Publisher
from rubix_token_sync.sync.session import Session, Status
from rubix_token_sync.sync.stop import Interrupted, StopSign

__all__ = ["Run", "sync"]

_LOG = logging.getLogger(__name__)

_HIDING: Final = frozenset({"io_error", "stalled"})
"""Directories skipped for these reasons may hold nodes."""
_HIDING_AS_ROOT: Final = frozenset({"access_denied", "no_such_directory", "not_a_directory"})

_INLINE_BYTES = 2_000_000
"""Less than this to read is done faster than worker processes start."""


def sync(
    options: RunOptions,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    stop: StopSign | None = None,
    on_failed: Callable[[Outcome], None] | None = None,
) -> Outcome:
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


class Run:
    """The steps of one run; `sync` and `dry_run` put them together."""

    def __init__(
        self,
        options: RunOptions,
        on_progress: Callable[[Progress], None],
        stop: StopSign | None = None,
    ) -> None:
        self.options = options
        self.on_progress = on_progress
        self.stop = stop or StopSign()
        self.progress = Progress()
        self.pace = ProgressPace()
        self.started_at = datetime.now(UTC).replace(tzinfo=None)
        self.started = time.monotonic()
        self.errors: list[ErrorEntry] = []
        self._recorded = 0  # of them, in the target
        self.databases: dict[str, DatabaseOutcome] = {}
        self.discovery = Discovery([], [], 0)
        self.unread = 0
        self.on_failed: Callable[[Outcome], None] = lambda _outcome: None

    def run(self) -> Outcome:
        store = open_store(self.options.target, self.options.store)
        try:
            with self.stop.at_once():
                store.ensure_schema()
            return self._in_session(store)
        finally:
            store.close()

    def _in_session(self, store: Store) -> Outcome:
        options = self.options
        with Session(
            store,
            options.source,
            options.command,
            totals=self.progress.totals,
            heartbeat_seconds=options.heartbeat_seconds,
            lease_seconds=options.lease_seconds,
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

    def _end_failed(self, store: Store, session: Session, dead: int, error: SyncError) -> None:
        self._give_up(store, session, "FAILED", str(error))
        outcome = self.outcome("FAILED", session.id, store.place, dead)
        outcome.error = error
        outcome.errors.append(
            ErrorEntry(error.category, error.code, str(error), context=error.context)
        )
        self.on_failed(outcome)

    def _give_up(self, store: Store, session: Session, status: Status, reason: str) -> None:
        """Write how it ended where the target still lets us; the next run sees it anyway."""
        try:
            self._record_errors(store, session)
            session.finish(status, self.progress.totals(), self._summary(reason))
        except SyncError as second:
            log_event(
                _LOG, logging.WARNING, "session_not_closed",
                f"The session could not be closed: {second}", code=second.code,
            )  # fmt: skip

    def _record_errors(self, store: Store, session: Session) -> None:
        fresh = self.errors[self._recorded :]
        store.record_errors(session.lease, fresh)
        self._recorded += len(fresh)

    # ------------------------------------------------------------------ the work

    def _work(self, store: Store, session: Session) -> None:
        options = self.options
        states = store.database_states(options.source)
        with self.stop.at_once():
            self.discover()
            plan = self.plan(states)
        jobs = self.jobs(plan, store)
        self.note_plan(plan, jobs)
        if plan.missing and options.max_shrink is None:
            self._retire(store, session, plan.missing)
        self.stop.check()
        if jobs:
            self._publish_all(store, session, jobs)
        store.finish_load()  # also what a run left undone that died after its last record
        if not options.only_failed:  # which looks at no database that has all of its content
            store.note_seen(
                session.lease, [database_key(options.source, n.db_path) for n in plan.current]
            )
        self._record_errors(store, session)
        self._reconcile(store)
        self.tick(final=bool(jobs))

    def discover(self) -> None:
        """Find the nodes below the roots, and say what was skipped."""
        self.discovery = discover(self.options.roots)
        roots = {os.path.abspath(root) for root in self.options.roots}
        for skipped in self.discovery.skipped:
            # What cannot be read is not empty: nodes may be there that nobody knows of yet.
            hides = skipped.reason_code in _HIDING or (
                skipped.path in roots and skipped.reason_code in _HIDING_AS_ROOT
            )
            log_event(
                _LOG, logging.ERROR if hides else logging.INFO, "skipped",
                f"{skipped.path}: {skipped.sentence}",
                path=skipped.path, code=skipped.reason_code,
            )  # fmt: skip
            if hides:
                self.unread += 1
                self.errors.append(
                    ErrorEntry(
                        category="system",
                        code="directory_unread",
                        message=f"{skipped.path}: {skipped.sentence}",
                        context={"path": skipped.path, "reason": skipped.reason_code},
                    )
                )
        if not self.discovery.nodes:
            log_event(
                _LOG, logging.WARNING, "no_nodes",
                f"There is no rubix.db below {', '.join(self.options.roots)}.",
            )  # fmt: skip

    def plan(self, states: Sequence[DatabaseState]) -> Plan:
        options = self.options
        nodes = self.discovery.nodes
        if options.nodes:
            self._know(options.nodes, states)
            nodes = [node for node in nodes if node.name in options.nodes]
            states = [s for s in states if (s.node_name or "") in options.nodes]
        roots = [os.path.abspath(root) for root in options.roots]
        below = tuple(os.path.join(root, "") for root in roots)
        return make_plan(
            options.source,
            nodes,
            states,
            PlanRules(
                options.force, options.only_failed, options.command == "verify", options.recheck
            ),
            now=self.started_at,
            inside=lambda path: path.startswith(below),
            missed=lambda path: left_out(
                path, self.discovery.skipped, roots, exists=os.path.lexists
            ),
        )

    def _know(self, names: Iterable[str], states: Sequence[DatabaseState]) -> None:
        known = {node.name for node in self.discovery.nodes} | {s.node_name for s in states}
        unknown = sorted(set(names) - known)
        if unknown:
            raise SettingsError(
                f"There is no node named {', '.join(unknown)} below the roots.",
                code="no_such_node",
                remedy="`rubix-token-sync discover` lists the nodes with their names.",
                context={"nodes": unknown},
            )

    def jobs(self, plan: Plan, store: Store | None) -> dict[int, Job]:
        options = self.options
        holds_records = store is not None and bool(plan.read) and store.holds_records()
        holds_content = store is not None and holds_records and store.holds_content()
        jobs = {
            number: Job(
                number=number,
                source=options.source,
                node=planned.node,
                database_key=planned.database_key,
                read_known=holds_records,
                ask_target=holds_content,
                retry_content=planned.retry_content,
                max_shrink=options.max_shrink,
                max_shrink_rows=options.max_shrink_rows,
                asked_repository=planned.asked_repository,
            )
            for number, planned in enumerate(plan.read)
        }
        self.progress.begin({n: planned.size for n, planned in enumerate(plan.read)})
        return jobs

    def note_plan(self, plan: Plan, jobs: dict[int, Job]) -> None:
        counters = self.progress.counters
        counters.databases_found = len(plan.read) + len(plan.current) + len(plan.unreadable)
        counters.databases_current = len(plan.current)
        for node in plan.current:
            self.databases[node.db_path] = DatabaseOutcome(node.db_path, node.name, "current")
        for planned in plan.read:
            node = planned.node
            self.databases[node.db_path] = DatabaseOutcome(
                node.db_path, node.name, "pending", planned.reason
            )
        for node, error in plan.unreadable:
            self.fail(None, node.db_path, node.name, error)
        for state, error in plan.unreachable:
            self.fail(None, state.db_path, state.node_name or "", error)
        if self.options.max_shrink is not None:
            for state in plan.missing:
                self._miss(state)
        log_event(
            _LOG, logging.INFO, "planned",
            f"{counters.databases_found} databases found, {len(jobs)} to read, "
            f"{len(plan.current)} unchanged",
            found=counters.databases_found, read=len(jobs), current=len(plan.current),
        )  # fmt: skip

    def crew(self, jobs: int, target: Target | None) -> Crew:
        options = self.options
        processes = self._processes(jobs)
        share = max(1, options.content.workers // max(1, processes))
        context = WorkerContext(
            target,
            replace(options.store, read_only=True),
            replace(options.content, workers=share),
            options.store.batch_size,
            options.scratch,
        )
        return Crew(context, processes)

    def _publish_all(self, store: Store, session: Session, jobs: dict[int, Job]) -> None:
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
            with self.crew(len(jobs), options.target) as crew:
                store.prepare_load()
                for event in self.watched(crew.run(list(jobs.values()))):
                    publisher.check()
                    look_at_session()
                    if event is not None:
                        self._event(event, jobs, publisher)
                    self.tick()
                publisher.finish()
        finally:
            publisher.stop()

    def watched(self, events: Iterator[Event | None]) -> Iterator[Event | None]:
        """The events, up to the stop that was asked for.

        Raises:
            Interrupted: at the first event (or none) after that.
        """
        try:
            for event in events:
                self.stop.check()
                yield event
        except WorkerCrashed:
            self.stop.check()  # a signal to the whole group ends the workers, too
            raise

    def _processes(self, jobs: int) -> int:
        if self.options.processes is not None:
            return self.options.processes
        total = sum(self.progress.weights.values())
        if total < _INLINE_BYTES:
            return 0
        from rubix_token_sync.settings import usable_cpus

        return affordable(min(usable_cpus(), self.options.content.workers, jobs))

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

    # ------------------------------------------------------------------ what goes wrong

    def fail(self, job: int | None, db_path: str, node_name: str, error: SyncError) -> None:
        self.progress.failed(job)
        outcome = self.databases.setdefault(db_path, DatabaseOutcome(db_path, node_name, "failed"))
        outcome.status, outcome.reason = "failed", error.code
        self.errors.append(
            ErrorEntry(
                category=error.category,
                code=error.code,
                message=str(error),
                node_name=node_name,
                db_path=db_path,
                context=error.context,
            )
        )
        log_event(
            _LOG, logging.ERROR, "database_failed", f"{node_name}: {error}",
            node=node_name, db_path=db_path, category=error.category, code=error.code,
        )  # fmt: skip

    def _miss(self, state: DatabaseState) -> None:
        error = SourceError(
            f"{state.db_path} is gone; its {state.record_count:,} records were left as they are.",
            code="database_gone",
            remedy="If it was moved or removed on purpose, run again with --allow-shrink.",
            context={"records": state.record_count},
        )
        self.fail(None, state.db_path, state.node_name or "", error)
        self.databases[state.db_path].status = "missing"

    def _retire(self, store: Store, session: Session, missing: list[DatabaseState]) -> None:
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

    def _reconcile(self, store: Store) -> None:
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

    # ------------------------------------------------------------------ what is told

    def tick(self, *, final: bool = False) -> None:
        self.on_progress(self.progress)
        records, _ = self.progress.so_far()
        if final or self.pace.due(records, time.monotonic()):
            line = self.progress.line()
            log_event(
                _LOG, logging.INFO, "progress", line,
                records=records, share=round(self.progress.share, 4),
            )  # fmt: skip

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

    def outcome(self, status: Status, session_id: str | None, place: str, dead: int = 0) -> Outcome:
        return Outcome(
            options=self.options,
            session_id=session_id,
            started_at=self.started_at,
            seconds=time.monotonic() - self.started,
            status=status,
            counters=self.progress.counters,
            discovery=self.discovery,
            unread=self.unread,
            databases=sorted(self.databases.values(), key=lambda d: d.db_path),
            errors=list(self.errors),
            dead_sessions=dead,
            place=place,
        )


def _unforeseen(error: Exception) -> SyncError:
    return SyncError(f"Unexpected: {error!r}", code="unexpected")
