"""Proof that the target equals the nodes: everything read again, record by record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from rubix_token_sync.errors import SchemaError, SyncError
from rubix_token_sync.nodes.skipped import Skipped
from rubix_token_sync.records.schema import database_key
from rubix_token_sync.runs.cancel import CancelToken, Interrupted
from rubix_token_sync.runs.jobs import Difference, JobDone, JobFailed, Report, RowsRead
from rubix_token_sync.runs.progress import Progress
from rubix_token_sync.runs.result import ContentLeft, RunOptions
from rubix_token_sync.runs.survey import Survey
from rubix_token_sync.runs.sync import sync
from rubix_token_sync.targets.base import SCHEMA_VERSION, DatabaseState
from rubix_token_sync.targets.registry import open_target

__all__ = ["Verification", "repair", "verify"]


@dataclass
class Verification:
    """What a comparison found."""

    place: str
    databases: int = 0
    records: int = 0
    """Records that were compared."""
    differences: Counter[str] = field(default_factory=Counter)
    """By letter, see `Difference`."""
    unverified: int = 0
    """Contents that only the target has and that cannot be proven from them alone."""
    failed: list[tuple[str, SyncError]] = field(default_factory=list)
    """Databases that cannot be read though the target holds records of them."""
    unreadable: list[tuple[str, SyncError]] = field(default_factory=list)
    """Databases that cannot be read, of which the target rightly holds nothing."""
    missing: list[DatabaseState] = field(default_factory=list)
    """Databases that the target holds records of and that are gone from the disk."""
    unread: int = 0
    """Directories that could not be read and may hide nodes."""
    hiding: list[Skipped] = field(default_factory=list)
    """… and which these are."""
    rejected: int = 0
    """Records that the target refused in a repair."""
    chains_unread: int = 0
    """Directories of token chains that could not be read, or not all of a chain there."""
    content_left: list[ContentLeft] = field(default_factory=list)
    """Content that could not be compared, by database."""
    seconds: float = 0.0
    repaired: bool = False
    """What differed was made equal again."""

    @property
    def exit_code(self) -> int:
        """0 equal (now), 5 different, 1 something could not be compared."""
        if self.missing or (self.differences and not self.repaired):
            return 5
        undone = (self.failed, self.unreadable, self.unread, self.rejected, self.chains_unread)
        return 1 if any(undone) else 0


def verify(
    options: RunOptions,
    *,
    on_difference: Callable[[Difference], None],
    on_progress: Callable[[Progress], None] | None = None,
    stop: CancelToken | None = None,
) -> Verification:
    """Compare every database below the roots with the target; writes nothing.

    A database that changes meanwhile differs: verify after a sync, or expect it.

    Raises:
        SyncError: the target cannot be read.
        Interrupted: ``stop`` came before the end.
    """
    run = Survey(options, on_progress or (lambda _progress: None), stop)
    run.require_extras()
    if not options.target.exists():
        raise SchemaError(
            "The target does not exist yet, so nothing can be compared.",
            code="schema_missing",
            remedy="Run `rubix-token-sync sync` first.",
        )
    store = open_target(options.target, replace(options.store, read_only=True))
    try:
        with run.stop.at_once():
            if store.schema_version() != SCHEMA_VERSION:
                store.ensure_schema()  # read-only: says what is wrong with it
            states = store.database_states(options.source)
            run.discover()
            plan = run.plan(states)
        jobs = {
            number: replace(job, task="compare", read_known=True)
            for number, job in run.jobs(plan, store).items()
        }
        result = Verification(
            store.place,
            missing=plan.missing,
            unread=run.unread,
            hiding=_hiding(run.discovery.skipped),
        )
        stored = {state.db_path for state in states}

        def note_failure(path: str, error: SyncError) -> None:
            (result.failed if path[:500] in stored else result.unreadable).append((path, error))

        for node, error in plan.unreadable:
            note_failure(node.db_path, error)
        for state, error in plan.unreachable:
            note_failure(state.db_path, error)
        # What belongs to no database at all was not written by a sync.
        everybodys = [state.database_key for state in store.database_states(None)]
        own = [job.database_key for job in jobs.values()]
        own += [database_key(options.source, node.db_path) for node, _ in plan.unreadable]
        for stray in store.stray_records(options.source, [*everybodys, *own]):
            result.differences["-"] += 1
            on_difference(Difference("-", stray.db_path, stray.token_id, table=stray.table))
        if not jobs:
            return result

        def note(report: Report) -> None:
            if isinstance(report, RowsRead):
                run.progress.read(report)
                for difference in report.differences:
                    result.differences[difference.letter] += 1
                    on_difference(difference)
            elif isinstance(report, JobDone):
                result.databases += 1
                result.records += report.summary.records
                result.unverified += report.summary.unverified
                result.chains_unread += report.summary.chains_unread
                run.note_content(jobs[report.job], report.summary)
            elif isinstance(report, JobFailed):
                note_failure(jobs[report.job].node.db_path, report.error)

        with run.pool(len(jobs), store) as pool:
            run.work(pool, list(jobs.values()), note, lambda: run.on_progress(run.progress))
        result.seconds, result.content_left = run.progress.seconds, run.content_left
        return result
    finally:
        store.close()


def repair(
    options: RunOptions,
    *,
    on_difference: Callable[[Difference], None],
    on_progress: Callable[[Progress], None] | None = None,
    stop: CancelToken | None = None,
) -> Verification:
    """Compare as `verify` does, and make equal again what differs.

    A run like any other: under the source's lease, in the usual transactions,
    with a session of its own.

    Raises:
        SyncError: the run could not start or had to stop.
        Interrupted: ``stop`` came before the end.
    """
    found: Counter[str] = Counter()

    def note(difference: Difference) -> None:
        found[difference.letter] += 1
        on_difference(difference)

    outcome = sync(
        replace(options, command="verify", force=True),
        on_progress=on_progress,
        stop=stop,
        on_difference=note,
    )
    if outcome.signal_number is not None:
        raise Interrupted(outcome.signal_number)
    return Verification(
        outcome.place,
        databases=outcome.counters.databases_processed,
        records=outcome.counters.records_processed,
        differences=found,
        failed=outcome.failed,
        missing=outcome.missing,
        unread=outcome.unread,
        rejected=outcome.counters.rejected,
        chains_unread=sum(database.chains_unread for database in outcome.databases),
        content_left=outcome.content_left,
        hiding=_hiding(outcome.discovery.skipped),
        seconds=outcome.seconds,
        repaired=True,
    )


def _hiding(skipped: Iterable[Skipped]) -> list[Skipped]:
    return [item for item in skipped if item.hides_nodes]
