"""What every run does, whether it writes or not: find, plan, read, tell."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from rubix_token_sync.audit.judging import judge_for_sync
from rubix_token_sync.errors import SettingsError, SourceError, SyncError, WorkerCrashed
from rubix_token_sync.log import ProgressPace, log_event
from rubix_token_sync.nodes.discovery import Discovery, discover
from rubix_token_sync.runs.cancel import CancelToken
from rubix_token_sync.runs.carried import root_of
from rubix_token_sync.runs.jobs import Job, Report, Summary, WorkerContext
from rubix_token_sync.runs.plan import TARGET_DIFFERS, Plan, PlanRules, inside, left_out, make_plan
from rubix_token_sync.runs.progress import Progress
from rubix_token_sync.runs.result import ContentLeft, DatabaseOutcome, RunOptions, RunResult
from rubix_token_sync.runs.session import Status
from rubix_token_sync.runs.worker_pool import Pool, WorkerPool, affordable
from rubix_token_sync.scratch import Scratch
from rubix_token_sync.targets.base import DatabaseState, ErrorEntry, Lease, Target
from rubix_token_sync.text import counted, told_apart

__all__ = ["Survey"]

_LOG = logging.getLogger(__name__)

_INLINE_BYTES: Final = 2_000_000
"""Less than this to read is done faster than worker processes start."""
_FAR_SECONDS: Final = 0.008
_FAR_WORKERS: Final = 2
"""Workers for each processor where the target takes that long to answer: they mostly wait."""


class Survey:
    """The steps of a run that do not write; `sync`, `dry_run` and `verify` put them together."""

    def __init__(
        self,
        options: RunOptions,
        on_progress: Callable[[Progress], None],
        stop: CancelToken | None = None,
    ) -> None:
        self.options = options
        self.on_progress = on_progress
        self.stop = stop or CancelToken()
        self.progress = Progress()
        self.pace = ProgressPace()
        self.started_at = datetime.now(UTC).replace(tzinfo=None)
        self.started = time.monotonic()
        self.errors: list[ErrorEntry] = []
        self.databases: dict[str, DatabaseOutcome] = {}
        self.discovery = Discovery([], [], 0)
        self._discovered = False
        self.failed: list[tuple[str, SyncError]] = []
        self.missing: list[DatabaseState] = []
        self.content_left: list[ContentLeft] = []
        self.unread = 0

    def require_extras(self) -> None:
        """What the options need and only an extra brings, before anything is written.

        Raises:
            SettingsError: ``extra_missing``.
        """
        if self.options.chains:
            from rubix_token_sync.nodes.chain_store import require_leveldb

            require_leveldb()

    def discover(self) -> None:
        """Find the nodes below the roots, once, and say what was skipped."""
        if self._discovered:
            return
        self.discovery = discover(self.options.roots)
        self._discovered = True
        for skipped in self.discovery.skipped:
            # What cannot be read is not empty: nodes may be there that nobody knows of yet.
            hides = skipped.hides_nodes
            log_event(
                _LOG, logging.ERROR if hides else logging.INFO, "skipped",
                f"{skipped.said} {skipped.remedy}".rstrip(),
                path=skipped.path, code=skipped.reason_code,
            )  # fmt: skip
            if hides:
                self.unread += 1
                self.errors.append(
                    ErrorEntry(
                        category="system",
                        code="directory_unread",
                        message=skipped.said,
                        context={
                            "path": skipped.path,
                            "reason": skipped.reason_code,
                            **self._root(skipped.path),
                        },
                    )
                )
        if not self.discovery.nodes:
            log_event(
                _LOG, logging.WARNING, "no_nodes",
                f"No node database was found below {', '.join(self.options.roots)}.",
            )  # fmt: skip

    def plan(
        self, states: Sequence[DatabaseState], live: Mapping[bytes, Mapping[str, int]] | None = None
    ) -> Plan:
        """What is to be read; ``live`` as in `PlanRules`."""
        options = self.options
        nodes = self.discovery.nodes
        if options.nodes:
            self._know(options.nodes, states)
            nodes = [node for node in nodes if node.name in options.nodes]
            states = [s for s in states if (s.node_name or "") in options.nodes]
        return make_plan(
            options.source,
            nodes,
            states,
            PlanRules(
                options.force,
                options.only_failed,
                options.command == "verify",
                options.recheck,
                live,
                options.chains,
            ),
            now=self.started_at,
            inside=inside(self.discovery.roots),
            missed=lambda path: left_out(path, self.discovery.skipped),
        )

    def _know(self, names: Iterable[str], states: Sequence[DatabaseState]) -> None:
        known = {node.name for node in self.discovery.nodes} | {s.node_name for s in states}
        unknown = sorted(set(names) - known)
        if unknown:
            raise SettingsError(
                f"No node below the roots is named {', '.join(unknown)}.",
                code="no_such_node",
                remedy="`rubix-token-sync discover` lists the nodes with their names.",
                context={"nodes": unknown},
            )

    def jobs(self, plan: Plan, store: Target | None) -> dict[int, Job]:
        options = self.options
        holds_records = store is not None and bool(plan.read) and store.holds_records()
        holds_content = store is not None and holds_records and store.holds_content()
        jobs = {
            number: Job(
                number=number,
                source=options.source,
                node=planned.node,
                database_key=planned.database_key,
                task="repair" if options.force or planned.reason == TARGET_DIFFERS else "sync",
                read_known=holds_records,
                ask_target=holds_content,
                retry_content=planned.retry_content,
                max_shrink=options.max_shrink,
                max_shrink_rows=options.max_shrink_rows,
                asked_repository=planned.asked_repository,
                held=planned.held,
                chains=options.chains,
                chains_held=planned.chains,
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
            f"{counted(counters.databases_found, 'database')} found, {len(jobs)} to read, "
            f"{len(plan.current)} unchanged"
            + (f", {len(plan.unreadable)} unreadable" if plan.unreadable else ""),
            found=counters.databases_found, read=len(jobs), current=len(plan.current),
        )  # fmt: skip

    def _miss(self, state: DatabaseState) -> None:
        error = SourceError(
            f"{state.db_path} is gone; the target keeps its "
            f"{counted(state.record_count, 'record')}.",
            code="database_gone",
            remedy="If it was moved or removed on purpose, run `rubix-token-sync sync "
            "--allow-shrink`.",
            context={"records": state.record_count},
        )
        self.fail(None, state.db_path, state.node_name or "", error)
        self.databases[state.db_path].status = "missing"
        self.failed.pop()
        self.missing.append(state)

    def pool(
        self, jobs: int, store: Target | None, *, lease: Lease | None = None, shared: bool = False
    ) -> Pool:
        """Workers for so many jobs on the target; they publish under ``lease``, if there is one.

        ``shared``: other hosts do jobs of the same lease beside them.
        """
        options = self.options
        if options.executor is not None:
            return options.executor(lease, self.stop)
        processes = self._processes(jobs, store, publishes=lease is not None, shared=shared)
        share = max(1, options.content.workers // max(1, processes))
        scratch = Scratch(options.scratch, tuple(options.roots))
        context = WorkerContext(
            options.target if store is not None else None,
            replace(options.store, read_only=lease is None, pool_size=self._connections(processes)),
            replace(options.content, workers=share, scratch=scratch),
            lease,
            scratch,
            judge_for_sync(options.judge, build=self._work_is_large()) if jobs else None,
        )
        in_turn = lease is not None and store is not None and store.one_writer and processes > 1
        return WorkerPool(context, processes, self.stop, in_turn=in_turn)

    def _connections(self, processes: int) -> int:
        """Of each worker: the run keeps two for itself where it can, one for the heartbeat."""
        return max(1, (self.options.store.pool_size - 2) // max(1, processes))

    def _work_is_large(self) -> bool:
        """Whether what is to be read is worth some seconds of preparation."""
        return sum(self.progress.weights.values()) >= _INLINE_BYTES

    def _processes(
        self, jobs: int, store: Target | None, *, publishes: bool, shared: bool = False
    ) -> int:
        if self.options.processes is not None:
            return self.options.processes
        if not self._work_is_large():
            return 0
        from rubix_token_sync.settings import usable_cpus

        connections = self.options.store.pool_size - 1  # one is the run's own
        if publishes and store is not None and store.bulk_differs:
            connections = max(1, (connections - 1) // 2)  # a bulk copy logs in beside its worker
        workers = usable_cpus()
        if store is not None and not shared and store.answer_seconds() >= _FAR_SECONDS:
            workers *= _FAR_WORKERS
        most = min(workers, self.options.content.workers, jobs, connections)
        return affordable(most)

    def work(
        self,
        pool: Pool,
        jobs: Iterable[Job],
        on_report: Callable[[Report], None],
        on_idle: Callable[[], None],
    ) -> None:
        """Have the jobs done, up to the stop that was asked for.

        Raises:
            Interrupted: after that; ``on_report`` has got all that was done.
            SyncError: what ended the work.
        """

        def look() -> None:
            self.stop.check()
            on_idle()

        try:
            pool.run(jobs, on_report, look)
        except WorkerCrashed:
            self.stop.check()  # a signal to the whole group ends the workers, too
            raise

    def fail(self, job: int | None, db_path: str, node_name: str, error: SyncError) -> None:
        self.progress.failed(job)
        outcome = self.databases.setdefault(db_path, DatabaseOutcome(db_path, node_name, "failed"))
        outcome.status, outcome.reason = "failed", error.code
        self.failed.append((db_path, error))
        self.errors.append(
            ErrorEntry(
                category=error.category,
                code=error.code,
                message=str(error),
                node_name=node_name,
                db_path=db_path,
                context={**error.context, **self._root(db_path)},
            )
        )
        log_event(
            _LOG, logging.ERROR, "database_failed", f"{self.label(node_name, db_path)}: {error}",
            node=node_name, db_path=db_path, category=error.category, code=error.code,
        )  # fmt: skip

    def note_content(self, job: Job, summary: Summary) -> None:
        """Content that a comparison met nowhere."""
        if summary.content_failures:
            self.content_left.append(
                ContentLeft(
                    job.node.name,
                    job.node.db_path,
                    summary.records,
                    summary.content_failures,
                    has_repository=job.node.repository is not None,
                )
            )

    def label(self, node_name: str, db_path: str) -> str:
        """A node's name for people, with what distinguishes it from others of that name."""
        alike = [node.db_path for node in self.discovery.nodes if node.name == node_name]
        paths = [db_path, *(path for path in alike if path != db_path)]
        return told_apart([(node_name, path) for path in paths])[0]

    def _root(self, path: str) -> dict[str, str]:
        """For the context of an error: the root of this run that a path lies below."""
        root = root_of(path, self.discovery.roots)
        return {} if root is None else {"root": root}

    def tick(self, *, final: bool = False) -> None:
        self.on_progress(self.progress)
        records, _ = self.progress.so_far()
        if final or self.pace.due(records, time.monotonic()):
            line = self.progress.line()
            log_event(
                _LOG, logging.INFO, "progress", line,
                records=records, share=round(self.progress.share, 4),
            )  # fmt: skip

    def outcome(
        self, status: Status, session_id: str | None, place: str, dead: int = 0
    ) -> RunResult:
        return RunResult(
            options=self.options,
            session_id=session_id,
            started_at=self.started_at,
            seconds=time.monotonic() - self.started,
            status=status,
            counters=self.progress.counters,
            discovery=self.discovery,
            failed=self.failed,
            missing=self.missing,
            unread=self.unread,
            databases=sorted(self.databases.values(), key=lambda d: d.db_path),
            errors=list(self.errors),
            dead_sessions=dead,
            place=place,
            content_left=self.content_left,
        )
