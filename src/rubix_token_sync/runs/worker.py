"""One job: read a database, find what changed, get its content, publish its records.

`Worker.run` is the seam to executors: it does a whole database, publishing and
mark included, and gives back numbers.  It runs in a worker process, in the
run's own process, or on another machine: the lease is checked inside each
transaction, so it holds anywhere.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rubix_token_sync import failpoints
from rubix_token_sync.errors import (
    LeaseLost,
    RecordRefused,
    SourceError,
    SyncError,
    TargetError,
)
from rubix_token_sync.ipfs.content import FailureCode
from rubix_token_sync.ipfs.fetch import open_chain
from rubix_token_sync.ipfs.repository import repository_fingerprint
from rubix_token_sync.nodes.kinds import as_read, chains_network, network_of
from rubix_token_sync.nodes.snapshot import Snapshot, open_snapshot
from rubix_token_sync.records.build import DatabaseContext, Judging, finish_batch
from rubix_token_sync.records.companions import CHAINS, HISTORIES
from rubix_token_sync.records.schema import RECORD_KEY_BYTES
from rubix_token_sync.runs.companions import Companions, CompanionTables
from rubix_token_sync.runs.compare import Comparison, held_records
from rubix_token_sync.runs.content import Content, ContentOfRows
from rubix_token_sync.runs.jobs import (
    Difference,
    Job,
    JobDone,
    JobFailed,
    Report,
    RowsRead,
    Send,
    Summary,
    Tally,
    WorkerContext,
)
from rubix_token_sync.runs.known_rows import Known
from rubix_token_sync.runs.publishing import DatabasePublisher, Discarding, Publishing
from rubix_token_sync.runs.row_reader import DigestedRows, RowReader, database_context
from rubix_token_sync.targets.base import DatabaseMark, Target, TargetOptions
from rubix_token_sync.targets.registry import TargetAddress, open_target

__all__ = ["Worker"]

Finished: TypeAlias = tuple[Tally, pa.RecordBatch]
"""What became of some rows, and their records."""

_BATCH_BYTES: Final = 8 << 20
"""Records that are finished at a time, whatever BATCH_SIZE says."""
_FIRST_ROWS: Final = 200
"""Before anything is known of their contents, each of which may have 50 KB."""
_FEWEST_ROWS: Final = 20
_ATTEMPTS: Final = 3
"""At a database whose trouble may pass, as long as nothing of it was reported."""
_FINAL: Final = frozenset({"busy", "too_many_files"})
"""Transient, but not to be tried again at once: `open_snapshot` has waited for the one, and
handles do not come free while this very process holds them."""


@dataclass(frozen=True)
class _Left:
    """What reading a database left open."""

    unread: bool
    """Contents that could not be read, for a reason that says nothing of their tokens."""
    unverified: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    """Of a comparison: why content is missing, by code."""


class Worker:
    """Does jobs one after the other; keeps its connection to the target between them."""

    def __init__(
        self,
        context: WorkerContext,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
        opener: Callable[[TargetAddress, TargetOptions], Target] = open_target,
        busy_s: float = 20.0,
    ) -> None:
        """``turn`` is held while a chunk is written; ``opener`` opens the target.

        A database that its node holds is waited for ``busy_s`` seconds.
        """
        self.context = context
        self._turn = turn
        self._opener = opener
        self._busy_s = busy_s
        self._target: Target | None = None
        self._judging: Judging | None = None
        self._batch_size = context.target_options.batch_size
        self._portion = min(self._batch_size, _FIRST_ROWS)
        """Rows that are finished at a time, by the size of those before."""

    @property
    def target(self) -> Target:
        """The target, opened at the first need."""
        if self._target is None:
            if self.context.target is None:
                raise RuntimeError("this run has no target to read from")
            self._target = self._opener(self.context.target, self.context.target_options)
        return self._target

    def close(self) -> None:
        """Give back the connection."""
        if self._target is not None:
            self._target.close()

    def run(self, job: Job, send: Send) -> JobDone | JobFailed:
        """Do a job; what is wrong with its database alone becomes a `JobFailed`.

        ``send`` gets `RowsRead` and `ChunkPublished` on the way.

        Raises:
            TargetError: the target cannot be used, which ends the run.
            LeaseLost: another run has taken over.
        """
        failpoints.point("worker.job")
        counting = _Counting(send)
        attempt = 1
        while True:
            try:
                return JobDone(job.number, self._do(job, counting))
            except (TargetError, LeaseLost) as error:
                if not isinstance(error, RecordRefused):
                    raise
                return JobFailed(job.number, error)  # its mark or its errors: nobody else's
            except SyncError as error:
                # What was reported cannot be taken back, so only a silent job begins anew.
                passing = error.kind == "transient" and error.code not in _FINAL
                if counting.count or not passing or attempt == _ATTEMPTS:
                    return JobFailed(job.number, error)
                attempt += 1

    def _do(self, job: Job, send: Send) -> Summary:
        started = time.monotonic()
        repository = job.node.repository
        # Taken before reading: what changes meanwhile is a change for the next run.
        content_state = repository_fingerprint(repository) if repository else None
        if not job.retry_content and job.asked_repository is not None:
            content_state = job.asked_repository
        known = self._known(job)
        publisher = self._publisher(job, send)
        path, scratch = job.node.db_path, self.context.scratch
        with open_snapshot(path, scratch, busy_s=self._busy_s) as snapshot:
            if job.task == "sync":
                _guard_count(job, known, snapshot.count)
            network = network_of(job.node.db_path)
            rows = RowReader(job, snapshot, network, self._batch_size)
            read = self._read if job.task == "sync" else self._compare
            context = database_context(job, snapshot, network)
            left = read(job, known, snapshot, rows, context, publisher, send)
            if left.unread:
                content_state = None  # says nothing of a token: the next run asks again
            vanished = known.vanished()
            if job.task != "compare":
                _guard_loss(job, known, len(vanished) // RECORD_KEY_BYTES)
            tables = partial(
                CompanionTables,
                job,
                network=network,
                target=lambda: self.target,
                publisher=publisher,
                note=partial(_note, job, snapshot.count, send),
            )
            beside = Companions(job, snapshot, tables(tables=HISTORIES), self._batch_size).run()
            seconds = time.monotonic() - started
            mark = DatabaseMark(
                database_key=job.database_key,
                source_ip=job.source,
                node_name=job.node.name,
                db_path=job.node.db_path,
                ipfs_path=repository,
                fingerprint=as_read(snapshot.fingerprint, network),
                repository_fingerprint=content_state,
                last_modified=snapshot.modified,
                record_count=rows.distinct,
                rejected_count=rows.rejected + beside.rejected,
                processing_duration_seconds=seconds,
                kinds={kind: count for kind, count in rows.kinds.items() if count},
                content_checked=job.retry_content,
                companions=beside.counts,
            )
        errors, chains_unread = [*rows.errors(), *beside.errors], 0
        if job.chains:
            from rubix_token_sync.runs.chain_rows import bring_chains  # few runs read chains

            # After the rows, whose snapshot is closed: a node writes a token's chain first.
            moved = partial(send, RowsRead(job.number, Tally(), rows.distinct))
            of_chains = chains_network(network)
            into = tables(tables=(CHAINS,), network=of_chains)
            chains = bring_chains(job, of_chains, self.context.scratch, into, moved)
            mark = replace(mark, companions={**beside.counts, **chains.counts}, chains=chains.mark)
            errors, chains_unread = [*errors, *chains.errors], chains.unread
        publisher.finish(mark, vanished, errors)
        return Summary(
            rows.distinct,
            len(vanished) // RECORD_KEY_BYTES,
            rows.rejected,
            seconds,
            left.unverified,
            chains_unread,
            dict(left.failures),
        )

    def _compare(
        self,
        job: Job,
        known: Known,
        snapshot: Snapshot,
        rows: RowReader,
        context: DatabaseContext,
        publisher: Publishing,
        send: Send,
    ) -> _Left:
        """Every row beside its record, content included; what differs is published again."""
        chain = open_chain(job.node.repository, self.context.content)
        try:
            repair = publisher.add if job.task == "repair" else None
            comparison = Comparison(job, self.target, chain, context, known, self._judge(), repair)
            for batch in rows:
                if batch.rows:
                    tally, differences = comparison.batch(batch)
                    send(RowsRead(job.number, tally, snapshot.count, differences))
        finally:
            chain.close()
        for lost in comparison.lost(known.vanished()):
            send(RowsRead(job.number, Tally(), snapshot.count, (lost,)))
        return _Left(comparison.unread, comparison.unverified, comparison.failures)

    def _read(
        self,
        job: Job,
        known: Known,
        snapshot: Snapshot,
        rows: RowReader,
        context: DatabaseContext,
        publisher: Publishing,
        send: Send,
    ) -> _Left:
        """All rows of the snapshot, the changed ones published."""
        chain = open_chain(job.node.repository, self.context.content)
        try:
            content = Content(job, lambda: self.target, chain)
            finish = partial(_finished, job, context, known, content, self._judge())
            pending = DigestedRows.none()
            failures: Counter[str] = Counter()
            read = 0

            def flush() -> None:
                nonlocal pending, read
                for tally, records in self._portions(finish, pending):
                    failures.update(tally.failures)
                    tally.read, read = read, 0
                    send(RowsRead(job.number, tally, snapshot.count))
                    publisher.add(tally, records)
                pending = DigestedRows.none()

            for batch in rows:
                changed = batch.take(known.changed_rows(batch.digests))
                if not pending.joins(changed):
                    flush()
                pending = pending.plus(changed)
                read += len(batch.rows)
                if len(pending.rows) >= self._batch_size:
                    flush()
                else:
                    send(RowsRead(job.number, Tally(read=read), snapshot.count))
                    read = 0
            flush()
            return _Left(failures[FailureCode.READ_ERROR] > 0)
        finally:
            chain.close()

    def _judge(self) -> Judging | None:
        """Who gives verdicts, opened once."""
        if self._judging is None and self.context.judge is not None:
            self._judging = self.context.judge.open_for_sync()
        return self._judging

    def _publisher(self, job: Job, send: Send) -> Publishing:
        lease = self.context.lease
        if lease is None:
            return Discarding()
        return DatabasePublisher(
            self.target,
            lease,
            job,
            send,
            bulk_insert_size=self.context.target_options.bulk_insert_size,
            turn=self._turn,
            replace=job.task == "repair",
        )

    def _known(self, job: Job) -> Known:
        if not job.read_known:
            return Known(b"", b"")
        if job.task != "sync":
            return held_records(
                self.target, job.database_key, judged=self.context.judge is not None
            )
        keys, digests = self.target.known_rows(job.database_key)
        failed = self.target.failed_tokens(job.database_key) if job.retry_content and keys else ()
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
                self._portion = max(_FEWEST_ROWS, min(self._batch_size, room))
            yield tally, records


def _finished(
    job: Job,
    context: DatabaseContext,
    known: Known,
    content: Content,
    judge: Judging | None,
    pending: DigestedRows,
) -> Finished:
    keys = pending.keys(job.database_key)
    held = known.see(keys)
    resolved = content.of(pending.kind, pending.rows, keys, held)
    batch = finish_batch(
        pending.kind, pending.rows, keys, pending.digests, resolved, context, judge
    )
    fetched = pc.sum(batch.column("ipfs_fetched")).as_py() or 0
    stale = _failed_again(batch, resolved, known, pending)
    tally = Tally(
        changed=batch.num_rows - len(stale),
        new=batch.num_rows - int(held.sum()),
        fetched=fetched,
        known=resolved.from_target,
        invalid=batch.num_rows - batch.column("validation_errors").null_count,
        healed=resolved.healed,
        failures=Counter(reason.code.value for reason in resolved.failures),
        via=Counter(way for way in resolved.via if way),
    )
    if stale:
        fresh = np.ones(batch.num_rows, np.bool_)
        fresh[stale] = False
        batch = batch.filter(pa.array(fresh))
    return tally, batch


def _note(job: Job, expected: int, send: Send, differences: tuple[Difference, ...]) -> None:
    if differences:
        send(RowsRead(job.number, Tally(), expected, differences))


class _Counting:
    """Passes reports on and counts them."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.count = 0

    def __call__(self, report: Report) -> None:
        self.count += 1
        self._send(report)


def _failed_again(
    batch: pa.RecordBatch, resolved: ContentOfRows, known: Known, pending: DigestedRows
) -> list[int]:
    """Rows that the target holds identically: asked for again, failed for the same reason."""
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
        remedy="If that is right, run `rubix-token-sync sync --allow-shrink`.",
        context={"known": len(known), "lost": lost},
    )
