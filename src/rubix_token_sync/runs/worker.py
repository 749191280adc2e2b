"""One job: read a database, find what is new, get its content, finish the records.

Runs in a worker process.  Everything of one database happens here, in one
read transaction, batch by batch; only finished records and counters leave.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rubix_token_sync.errors import SourceError, SyncError, TargetError
from rubix_token_sync.ipfs.content import FailureCode
from rubix_token_sync.nodes.snapshot import open_snapshot
from rubix_token_sync.records.build import DatabaseContext, finish_batch
from rubix_token_sync.records.schema import RECORD_KEY_BYTES
from rubix_token_sync.runs.compare import compare_database
from rubix_token_sync.runs.content import Content, ContentOfRows
from rubix_token_sync.runs.content_access import fingerprint_patiently, open_patiently
from rubix_token_sync.runs.jobs import (
    Batch,
    Done,
    Emit,
    Event,
    Failed,
    Job,
    Summary,
    Tally,
    WorkerContext,
)
from rubix_token_sync.runs.known_rows import Known
from rubix_token_sync.runs.row_reader import DigestedRows, RowReader, database_context
from rubix_token_sync.targets.base import Target
from rubix_token_sync.targets.registry import open_target

__all__ = ["Worker"]

Finished: TypeAlias = tuple[Tally, pa.RecordBatch]
"""What became of some rows, and their records."""

_BATCH_BYTES: Final = 8 << 20
"""Records that leave at a time, whatever BATCH_SIZE says."""
_FIRST_ROWS: Final = 200
"""Before anything is known of their contents, each of which may have 50 KB."""
_FEWEST_ROWS: Final = 20


class Worker:
    """Runs jobs one after the other; keeps its connection to the target between them."""

    def __init__(self, context: WorkerContext) -> None:
        self.context = context
        self._store: Target | None = None
        self._portion = min(context.batch_size, _FIRST_ROWS)
        """Rows that are finished at a time, by the size of those before."""

    @property
    def store(self) -> Target:
        """The target, opened for reading at the first need."""
        if self._store is None:
            if self.context.target is None:
                raise RuntimeError("this run has no target to read from")
            self._store = open_target(self.context.target, self.context.store)
        return self._store

    def close(self) -> None:
        """Give back the connection."""
        if self._store is not None:
            self._store.close()

    def run(self, job: Job, emit: Emit) -> None:
        """Do a job; what is wrong with its database alone becomes a `Failed` event.

        Raises:
            TargetError: the target cannot be read, which ends the run.
        """
        for last in (False, False, True):
            left = _Counting(emit)
            try:
                emit(Done(job.number, self._do(job, left)))
                return
            except TargetError:
                raise
            except SyncError as error:
                # Events that have left cannot be taken back, so only a still quiet job begins anew.
                # Nor do handles come free while this very process holds them.
                tried = last or error.code == "too_many_files"
                if tried or left.count or error.kind != "transient":
                    emit(Failed(job.number, error))
                    return

    def _do(self, job: Job, emit: Emit) -> Summary:
        if job.task == "compare":
            return compare_database(job, self.store, self.context, emit)
        return self._sync(job, emit)

    def _sync(self, job: Job, emit: Emit) -> Summary:
        started = time.monotonic()
        repository = job.node.repository
        # Taken before reading: what changes meanwhile is a change for the next run.
        content_state = fingerprint_patiently(repository)
        if not job.retry_content and job.asked_repository is not None:
            content_state = job.asked_repository
        known = self._known(job)
        with open_snapshot(job.node.db_path, self.context.scratch) as snapshot:
            _guard_count(job, known, snapshot.count)
            context = database_context(job, snapshot)
            rows = RowReader(job, snapshot, self.context.batch_size)
            chain = open_patiently(repository, self.context.content)
            try:
                content = Content(job, lambda: self.store, chain)
                finish = partial(_finished, job, context, known, content)
                pending = DigestedRows.none()
                failures: Counter[str] = Counter()
                for batch in rows:
                    news = known.changed_rows(batch.digests)
                    pending = pending.plus(batch.take(news))
                    read = len(batch.rows)
                    if len(pending.rows) < self.context.batch_size:
                        emit(Batch(job.number, Tally(read=read), snapshot.count))
                        continue
                    for tally, records in self._portions(finish, pending):
                        failures += tally.failures
                        tally.read, read = read, 0
                        emit(Batch(job.number, tally, snapshot.count, records))
                    pending = DigestedRows.none()
                for tally, records in self._portions(finish, pending):
                    failures += tally.failures
                    emit(Batch(job.number, tally, snapshot.count, records))
            finally:
                chain.close()
            if failures[FailureCode.READ_ERROR]:
                content_state = None  # says nothing of a token: the next run asks again
            vanished = known.vanished()
            _guard_loss(job, known, len(vanished) // RECORD_KEY_BYTES)
            return Summary(
                fingerprint=snapshot.fingerprint,
                repository_fingerprint=content_state,
                modified=snapshot.modified,
                stored=rows.distinct,
                known=len(known),
                vanished=vanished,
                rejected=rows.rejected,
                errors=rows.errors(),
                seconds=time.monotonic() - started,
                content_checked=job.retry_content,
            )

    def _known(self, job: Job) -> Known:
        if not job.read_known:
            return Known(b"", b"")
        keys, digests = self.store.known_rows(job.database_key)
        failed = self.store.failed_tokens(job.database_key) if job.retry_content and keys else ()
        return Known(keys, digests, failed)

    def _portions(
        self, finish: Callable[[DigestedRows], Finished], pending: DigestedRows
    ) -> Iterator[Finished]:
        """Finish rows, so many at a time that their contents leave room for others."""
        start = 0
        while start < len(pending.rows):
            part = pending.take(np.arange(start, min(start + self._portion, len(pending.rows))))
            start += len(part.rows)
            tally, records = finish(part)
            if records.num_rows:
                room = _BATCH_BYTES * records.num_rows // records.nbytes
                self._portion = max(_FEWEST_ROWS, min(self.context.batch_size, room))
            yield tally, records


def _finished(
    job: Job,
    context: DatabaseContext,
    known: Known,
    content: Content,
    pending: DigestedRows,
) -> Finished:
    keys = pending.keys(job.database_key)
    held = known.see(keys)
    resolved = content.of(pending.rows, keys, held)
    batch = finish_batch(pending.rows, keys, pending.digests, resolved, context)
    fetched = pc.sum(batch.column("ipfs_fetched")).as_py() or 0
    stale = _failed_again(batch, resolved, known, pending)
    tally = Tally(
        changed=batch.num_rows - len(stale),
        new=batch.num_rows - int(held.sum()),
        fetched=fetched,
        known=resolved.from_target,
        invalid=batch.num_rows - batch.column("validation_errors").null_count,
        healed=resolved.healed,
        failures=Counter(f.code.value for f in resolved.failure if f is not None),
        via=Counter(way for way in resolved.via if way),
    )
    if stale:
        fresh = np.ones(batch.num_rows, np.bool_)
        fresh[stale] = False
        batch = batch.filter(pa.array(fresh))
    return tally, batch


class _Counting:
    """Passes events on and counts them."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.count = 0

    def __call__(self, event: Event) -> None:
        self.count += 1
        self._emit(event)


def _failed_again(
    batch: pa.RecordBatch, resolved: ContentOfRows, known: Known, pending: DigestedRows
) -> list[int]:
    """Rows that the target has just so: asked for again in vain, for the same reason."""
    if not resolved.failed_before:
        return []
    same, now = known.holds(pending.digests), batch.column("ipfs_error")
    return [
        at
        for at, before in resolved.failed_before.items()
        if same[at] and before is not None and now[at].as_py() == before
    ]


def _guard_count(job: Job, known: Known, count: int) -> None:
    _guard_loss(job, known, len(known) - count)


def _guard_loss(job: Job, known: Known, lost: int) -> None:
    if job.max_shrink is None or lost < job.max_shrink_rows or lost <= job.max_shrink * len(known):
        return
    raise SourceError(
        f"{job.node.db_path}: {lost} of {len(known)} known records are gone at once; "
        "nothing was marked as deleted.",
        code="shrunk",
        remedy="If that is right, run again with --allow-shrink.",
        context={"known": len(known), "lost": lost},
    )
