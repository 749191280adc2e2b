"""What a sync would do: everything but the writing."""

from __future__ import annotations

from dataclasses import replace

from rubix_token_sync.process_identity import own_machine
from rubix_token_sync.runs.cancel import CancelToken, Interrupted
from rubix_token_sync.runs.jobs import Job, JobDone, JobFailed, Report, RowsRead
from rubix_token_sync.runs.result import RunOptions, RunResult
from rubix_token_sync.runs.survey import Survey
from rubix_token_sync.targets.base import SCHEMA_VERSION, Target
from rubix_token_sync.targets.registry import open_target

__all__ = ["dry_run"]


def dry_run(options: RunOptions, *, stop: CancelToken | None = None) -> RunResult:
    """Read and compare as `sync` would; nothing is written, created or locked anywhere.

    Counts of new, changed and vanished records are what a sync would publish.

    Raises:
        SyncError: the target cannot be read.
        Interrupted: ``stop`` came before anything was planned.
    """
    run = Survey(options, lambda _progress: None, stop)
    run.require_extras()
    if not options.target.exists():
        return _compare(run, None)
    store = open_target(options.target, replace(options.store, read_only=True))
    try:
        with run.stop.at_once():
            usable = store.schema_version() == SCHEMA_VERSION
            if usable and not options.adopt_source:
                store.check_source(options.source, own_machine())
        return _compare(run, store if usable else None)
    finally:
        store.close()


def _compare(run: Survey, store: Target | None) -> RunResult:
    place = store.place if store is not None else "(nothing there yet)"
    with run.stop.at_once():
        states = store.database_states(run.options.source) if store is not None else []
        run.discover()
        plan = run.plan(states)
    jobs = run.jobs(plan, store)
    run.note_plan(plan, jobs)
    if not jobs:
        return run.outcome("COMPLETED", None, place)
    try:
        with run.pool(len(jobs), store) as pool:
            run.work(
                pool, list(jobs.values()), lambda report: _count(run, jobs[report.job], report),
                run.tick,
            )  # fmt: skip
    except Interrupted as interrupt:
        outcome = run.outcome("INTERRUPTED", None, place)
        outcome.signal_number = interrupt.signal_number
        return outcome
    return run.outcome("COMPLETED", None, place)


def _count(run: Survey, job: Job, report: Report) -> None:
    if isinstance(report, JobFailed):
        run.fail(job.number, job.node.db_path, job.node.name, report.error)
        return
    outcome = run.databases[job.node.db_path]
    counters = run.progress.counters
    if isinstance(report, RowsRead):
        run.progress.read(report)
        tally = report.tally
        changed = tally.changed - tally.new
        outcome.read += tally.read
        outcome.inserted += tally.new
        outcome.updated += changed
        outcome.ipfs_success += tally.fetched
        outcome.validation_errors += tally.invalid
        counters.inserted += tally.new
        counters.updated += changed
        counters.ipfs_success += tally.fetched
        counters.ipfs_failures += tally.changed - tally.fetched
        counters.validation_errors += tally.invalid
    elif isinstance(report, JobDone):
        summary = report.summary
        outcome.status = "processed"
        outcome.records = summary.records
        outcome.vanished = summary.vanished
        outcome.seconds = summary.seconds
        counters.vanished += summary.vanished
        counters.databases_processed += 1
        counters.records_processed += summary.records
