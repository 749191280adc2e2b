"""From events to the target: gathers a database's batches into chunks and publishes them.

One thread a writer; a database belongs to one writer, so its chunks and its
mark come in order.  Short queues: whoever reads faster than the target takes
waits.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import pyarrow as pa

from rubix_token_sync.errors import SyncError, WorkerCrashed
from rubix_token_sync.os_errors import refusal
from rubix_token_sync.records.schema import RECORD_SCHEMA
from rubix_token_sync.runs.event_queue import EventQueue
from rubix_token_sync.runs.jobs import Batch, Event, Failed, Job, Tally
from rubix_token_sync.targets.base import (
    Chunk,
    DatabaseMark,
    ErrorEntry,
    Lease,
    Published,
    Rejected,
    Target,
)

__all__ = ["DatabaseResult", "Publisher"]

_QUEUED_BYTES: Final = 8 << 20
"""Rows that wait for a writer while it publishes the chunk before."""
_LITTLE_BYTES: Final = _QUEUED_BYTES // 4
"""A writer that so much waits for has no need of a second one, with its own connection."""
_LOOK_SECONDS = 0.2
_LARGEST_CHUNK: Final = 50_000
_LARGEST_CHUNK_BYTES: Final = 32 << 20
"""A transaction ends at so many rows, or bytes of them, whatever BULK_INSERT_SIZE says: they
are held in memory."""


@dataclass
class DatabaseResult:
    """What became of one database."""

    job: Job
    tally: Tally = field(default_factory=Tally)
    published: Published = field(default_factory=Published)
    done: bool = False


@dataclass
class _Open:
    result: DatabaseResult
    pending: list[pa.RecordBatch] = field(default_factory=list)
    rows: int = 0
    new: int = 0
    """Of those pending, how many the target did not hold."""


class Publisher:
    """Publishes the events of all jobs with as many threads as the target likes."""

    def __init__(
        self,
        store: Target,
        lease: Lease,
        jobs: Mapping[int, Job],
        *,
        bulk_insert_size: int,
        on_change: Callable[[DatabaseResult, Published], None],
        while_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_change`` is called (in a writer's thread) after every chunk.

        ``while_waiting`` is called now and then in the caller's thread; what it
        raises ends the waiting.
        """
        self._store = store
        self._lease = lease
        self._jobs = jobs
        self._bulk = bulk_insert_size
        self._on_change = on_change
        self._while_waiting = while_waiting
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._open: dict[int, _Open] = {}
        self._writer_of: dict[int, EventQueue] = {}
        self.results: dict[int, DatabaseResult] = {}
        self._queues = [EventQueue(_QUEUED_BYTES) for _ in range(1)]
        self._threads = [
            # Daemons: `stop` waits for them; where it is never reached, the exit must not.
            threading.Thread(target=self._write, args=(q,), name=f"rubix-writer-{n}", daemon=True)
            for n, q in enumerate(self._queues)
        ]
        for thread in self._threads:
            thread.start()

    def take(self, event: Event) -> None:
        """Hand over an event; waits while the writer is busy.

        Raises:
            Exception: what stopped a writer.
        """
        q = self._writer_of.get(event.job)
        if q is None:
            q = self._writer_of[event.job] = self._writer_for(event)
        self._hand_over(q, event)

    def _writer_for(self, first: Event) -> EventQueue:
        """By a database's first event: one with rows is of a database full of news.

        That keeps a writer busy; a few changes, which come last, seldom do.
        """
        if isinstance(first, Batch) and first.rows is not None:
            return self._queues[first.job % len(self._queues)]
        idle = (q for q in self._queues if q.held_bytes <= _LITTLE_BYTES)
        return next(idle, None) or min(self._queues, key=lambda q: q.held_bytes)

    def check(self) -> None:
        """Raise what stopped a writer, if anything did."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Wait until all is published."""
        for q in self._queues:
            self._hand_over(q, None)
        for thread in self._threads:
            while thread.is_alive():
                thread.join(_LOOK_SECONDS)
                self.check()
                self._while_waiting()
        self.check()

    def stop(self) -> None:
        """Finish the chunks under way and drop what is queued; safe to call at any time."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _hand_over(self, q: EventQueue, event: Event | None) -> None:
        while True:
            self.check()
            self._while_waiting()
            try:
                q.put(event, _LOOK_SECONDS)
                return
            except queue.Full:
                continue

    def _write(self, q: EventQueue) -> None:
        try:
            while not self._stopped.is_set():
                try:
                    event = q.get(_LOOK_SECONDS)
                except queue.Empty:
                    continue
                if event is None:
                    return
                self._process(event)
        except SyncError as error:
            self._error = error
        except BaseException as error:  # noqa: BLE001 - handed to the run, which ends with it
            crash = refusal(error) or WorkerCrashed(
                f"A writer failed: {type(error).__name__}: {error}",
                code="writer_failed",
                remedy="This is a bug; please report it with the log of a --verbose run.",
            )
            crash.__cause__ = error
            self._error = crash

    def _process(self, event: Event) -> None:
        if isinstance(event, Failed):
            self._open.pop(event.job, None)  # the next run reads this database from its start
            return
        job = self._jobs[event.job]
        state = self._open.setdefault(event.job, _Open(DatabaseResult(job)))
        if isinstance(event, Batch):
            state.result.tally.add(event.tally)
            if event.rows is not None and event.rows.num_rows:
                state.pending.append(event.rows)
                state.rows += event.rows.num_rows
                state.new += event.tally.new
            rows = sum(b.num_rows for b in state.pending)
            size = sum(b.nbytes for b in state.pending)
            if rows >= min(self._bulk, _LARGEST_CHUNK) or size >= _LARGEST_CHUNK_BYTES:
                self._publish(state, self._chunk(state))
            return
        summary, result = event.summary, state.result
        rejected = len(result.published.rejected)
        mark = DatabaseMark(
            database_key=job.database_key,
            source_ip=job.source,
            node_name=job.node.name,
            db_path=job.node.db_path,
            ipfs_path=job.node.repository,
            fingerprint=summary.fingerprint,
            repository_fingerprint=summary.repository_fingerprint,
            last_modified=summary.modified,
            record_count=summary.stored - rejected,
            rejected_count=summary.rejected + rejected,
            processing_duration_seconds=summary.seconds,
            content_checked=summary.content_checked,
        )
        last = replace(
            self._chunk(state),
            vanished=summary.vanished,
            mark=mark,
            errors=(*summary.errors, *_content_errors(job, result.tally)),
        )
        self._publish(state, last)
        result.done = True
        self.results[event.job] = result
        del self._open[event.job]

    def _chunk(self, state: _Open) -> Chunk:
        rows = _joined(state.pending)
        return Chunk(rows, bulk=state.rows >= self._bulk, new=0 < rows.num_rows == state.new)

    def _publish(self, state: _Open, chunk: Chunk) -> None:
        state.pending, state.new = [], 0
        published = self._store.publish(self._lease, chunk)
        state.result.published.add(published)
        if published.rejected:
            self._store.record_errors(
                self._lease, [_rejected(state.result.job, r) for r in published.rejected]
            )
        self._on_change(state.result, published)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    if not batches:
        return pa.RecordBatch.from_pylist([], schema=RECORD_SCHEMA)
    return pa.concat_batches(batches)


def _rejected(job: Job, rejected: Rejected) -> ErrorEntry:
    return ErrorEntry(
        category="database",
        code="record_refused",
        message=rejected.reason,
        node_name=job.node.name,
        db_path=job.node.db_path,
        token_id=rejected.token_id,
    )


def _content_errors(job: Job, tally: Tally) -> list[ErrorEntry]:
    """One entry a reason, with its count: the tokens themselves carry theirs."""
    entries = [
        ErrorEntry(
            category="ipfs",
            code=code,
            message=f"{count:,} tokens without content.",
            node_name=job.node.name,
            db_path=job.node.db_path,
            occurrences=count,
        )
        for code, count in sorted(tally.failures.items())
    ]
    if tally.invalid:
        entries.append(
            ErrorEntry(
                category="validation",
                code="invalid_records",
                message=f"{tally.invalid:,} records with validation errors.",
                node_name=job.node.name,
                db_path=job.node.db_path,
                occurrences=tally.invalid,
            )
        )
    if tally.healed:
        entries.append(
            ErrorEntry(
                category="ipfs",
                code="healed",
                message=f"{tally.healed:,} blocks are damaged in the node's store; "
                "their content came from elsewhere.",
                node_name=job.node.name,
                db_path=job.node.db_path,
                occurrences=tally.healed,
            )
        )
    return entries
