"""Proof that the target equals the nodes: everything read again, record by record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rubix_token_sync.errors import SchemaError, SyncError
from rubix_token_sync.records.schema import database_key
from rubix_token_sync.runs.cancel import CancelToken
from rubix_token_sync.runs.jobs import Batch, Difference, Done, Failed
from rubix_token_sync.runs.progress import Progress
from rubix_token_sync.runs.result import RunOptions
from rubix_token_sync.runs.survey import Survey
from rubix_token_sync.targets.base import SCHEMA_VERSION, DatabaseState, ErrorEntry
from rubix_token_sync.targets.registry import open_target

__all__ = ["Verification", "verify"]


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
    """Databases that cannot be read and of which the target holds nothing."""
    missing: list[DatabaseState] = field(default_factory=list)
    """Databases that the target holds records of and that are gone from the disk."""
    unread: list[ErrorEntry] = field(default_factory=list)
    """Directories that could not be read and may hide nodes."""
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 only when everything was compared and is equal; 5 different, 1 not all compared."""
        if self.differences or self.missing:
            return 5
        return 1 if self.failed or self.unreadable or self.unread else 0


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
    if not options.target.exists():
        raise SchemaError(
            "There is no target to compare with yet.",
            code="schema_missing",
            remedy="Run `rubix-token-sync sync` first.",
        )
    store = open_target(options.target, replace(options.store, read_only=True), at_once=True)
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
        result = Verification(store.place, missing=plan.missing, unread=list(run.errors))
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
        for path, token in store.stray_records(options.source, [*everybodys, *own]):
            result.differences["-"] += 1
            on_difference(Difference("-", path, token))
        if not jobs:
            return result
        with run.crew(len(jobs), options.target) as crew:
            for event in run.watched(crew.run(list(jobs.values()))):
                if isinstance(event, Batch):
                    run.progress.batch(event)
                    for difference in event.differences:
                        result.differences[difference.letter] += 1
                        on_difference(difference)
                elif isinstance(event, Done):
                    result.databases += 1
                    result.records += event.summary.stored
                    result.unverified += event.summary.unverified
                elif isinstance(event, Failed):
                    note_failure(jobs[event.job].node.db_path, event.error)
                run.on_progress(run.progress)
        result.seconds = run.progress.seconds
        return result
    finally:
        store.close()
