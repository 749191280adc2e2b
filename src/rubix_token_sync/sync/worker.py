"""One job: read a database, find what is new, get its content, finish the records.

Runs in a worker process.  Everything of one database happens here, in one
read transaction, batch by batch; only finished records and counters leave.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rubix_token_sync.errors import SourceError, SyncError, TargetError
from rubix_token_sync.finish import DatabaseContext, decode_content, finish_batch
from rubix_token_sync.ipfs import Failure, FailureCode
from rubix_token_sync.ipfs.chain import ContentChain, open_chain
from rubix_token_sync.ipfs.repository import repository_fingerprint
from rubix_token_sync.records import (
    RECORD_KEY_BYTES,
    ROW_DIGEST_BYTES,
    SourceRow,
    SqliteValue,
    digest_prefix,
    record_key,
    row_digest,
    row_digests,
)
from rubix_token_sync.source import Snapshot, open_snapshot
from rubix_token_sync.store import open_store
from rubix_token_sync.store.base import ErrorEntry, KnownContent, Store
from rubix_token_sync.sync.jobs import (
    Batch,
    Done,
    Emit,
    Failed,
    Job,
    Summary,
    Tally,
    WorkerContext,
)
from rubix_token_sync.sync.known import Known

__all__ = ["Content", "DigestedRows", "RowReader", "Worker", "database_context"]

_LISTED_DUPLICATES = 100


class Worker:
    """Runs jobs one after the other; keeps its connection to the target between them."""

    def __init__(self, context: WorkerContext) -> None:
        self.context = context
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The target, opened for reading at the first need."""
        if self._store is None:
            if self.context.target is None:
                raise RuntimeError("this run has no target to read from")
            self._store = open_store(self.context.target, self.context.store)
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
        try:
            if job.task == "compare":
                from rubix_token_sync.sync.compare import compare_database

                emit(Done(job.number, compare_database(job, self, emit)))
            else:
                emit(Done(job.number, self._sync(job, emit)))
        except TargetError:
            raise
        except SyncError as error:
            emit(Failed(job.number, error))

    def _sync(self, job: Job, emit: Emit) -> Summary:
        started = time.monotonic()
        repository = job.node.repository
        # Taken before reading: what changes meanwhile is a change for the next run.
        content_state = repository_fingerprint(repository) if repository else None
        known = self._known(job)
        with open_snapshot(job.node.db_path, self.context.scratch) as snapshot:
            _guard_count(job, known, snapshot.count)
            context = database_context(job, snapshot)
            rows = RowReader(job, snapshot, self.context.batch_size)
            chain = open_chain(repository, self.context.content)
            try:
                content = Content(job, self, chain)
                pending = DigestedRows.none()
                for batch in rows:
                    news = known.news(batch.digests)
                    pending = pending.plus(batch.take(news))
                    if len(pending.rows) < self.context.batch_size:
                        emit(Batch(job.number, Tally(read=len(batch.rows)), snapshot.count))
                        continue
                    tally, records = self._finished(job, context, known, content, pending)
                    tally.read = len(batch.rows)
                    emit(Batch(job.number, tally, snapshot.count, records))
                    pending = DigestedRows.none()
                if pending.rows:
                    tally, records = self._finished(job, context, known, content, pending)
                    emit(Batch(job.number, tally, snapshot.count, records))
            finally:
                chain.close()
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

    def _finished(
        self,
        job: Job,
        context: DatabaseContext,
        known: Known,
        content: Content,
        pending: DigestedRows,
    ) -> tuple[Tally, pa.RecordBatch]:
        keys = pending.keys(job.database_key)
        held = known.see(keys)
        resolved = content.of(pending.rows, keys, held)
        batch = finish_batch(pending.rows, keys, pending.digests, resolved, context)
        fetched = pc.sum(batch.column("ipfs_fetched")).as_py() or 0
        tally = Tally(
            changed=batch.num_rows,
            new=batch.num_rows - int(held.sum()),
            fetched=fetched,
            known=resolved.from_target,
            invalid=batch.num_rows - batch.column("validation_errors").null_count,
            healed=resolved.healed,
            failures=Counter(f.code.value for f in resolved.failure if f is not None),
            via=Counter(way for way in resolved.via if way),
        )
        return tally, batch


def database_context(job: Job, snapshot: Snapshot) -> DatabaseContext:
    """What the records of a job's database have in common."""
    return DatabaseContext(
        source_ip=job.source,
        node_name=job.node.name,
        db_path=job.node.db_path,
        ipfs_path=job.node.repository,
        db_last_modified=snapshot.modified,
        columns=frozenset(snapshot.columns),
    )


@dataclass(frozen=True)
class DigestedRows:
    """Rows with their digests and, for rows without a token id, their number."""

    rows: list[SourceRow]
    digests: bytes
    occurrences: dict[int, int]

    @staticmethod
    def none() -> DigestedRows:
        """No rows."""
        return DigestedRows([], b"", {})

    def take(self, positions: np.ndarray) -> DigestedRows:
        """Some of them, in order."""
        if len(positions) == len(self.rows):
            return self
        width = ROW_DIGEST_BYTES
        chosen = positions.tolist()
        return DigestedRows(
            [self.rows[i] for i in chosen],
            b"".join([self.digests[i * width : i * width + width] for i in chosen]),
            {
                new: self.occurrences[old]
                for new, old in enumerate(chosen)
                if old in self.occurrences
            }
            if self.occurrences
            else {},
        )

    def plus(self, other: DigestedRows) -> DigestedRows:
        """These, then the other ones."""
        if not self.rows:
            return other
        if not other.rows:
            return self
        shift = len(self.rows)
        return DigestedRows(
            self.rows + other.rows,
            self.digests + other.digests,
            self.occurrences | {shift + at: number for at, number in other.occurrences.items()},
        )

    def keys(self, database: bytes) -> bytes:
        """The record keys, 24 bytes each."""
        numbers = self.occurrences
        if not numbers:
            return b"".join([record_key(database, row[0]) for row in self.rows])
        return b"".join(
            [record_key(database, row[0], numbers.get(i, 0)) for i, row in enumerate(self.rows)]
        )


class RowReader:
    """A database's rows in digested batches: NULL ids numbered, repeated ids left out.

    The first row (in the database's own order) with a token id is the record;
    what follows with the same id is rejected and told.
    """

    def __init__(self, job: Job, snapshot: Snapshot, batch_size: int) -> None:
        self._snapshot = snapshot
        self._batch_size = batch_size
        self._path = job.node.db_path
        self._node = job.node.name
        self._prefix = digest_prefix(job.node.name, job.node.repository)
        self._repeated = snapshot.duplicates()
        self._met: set[SqliteValue] = set()
        self._nulls = 0
        self._listed: list[str] = []
        self.distinct = 0
        self.rejected = 0

    def __iter__(self) -> Iterator[DigestedRows]:
        for rows in self._snapshot.rows(self._batch_size):
            if self._repeated:
                rows = [row for row in rows if self._first(row)]
            digests = row_digests(self._prefix, rows)
            numbers = self._number(rows)
            if any(numbers.values()):
                digests = self._renumbered(rows, digests, numbers)
            self.distinct += len(rows)
            yield DigestedRows(rows, digests, numbers)

    def _first(self, row: SourceRow) -> bool:
        token = row[0]
        if token not in self._repeated:
            return True
        if token not in self._met:
            self._met.add(token)
            return True
        self.rejected += 1
        if len(self._listed) < _LISTED_DUPLICATES:
            self._listed.append(repr(row))
        return False

    def _number(self, rows: list[SourceRow]) -> dict[int, int]:
        if None not in [row[0] for row in rows]:
            return {}
        numbers = {}
        for at, row in enumerate(rows):
            if row[0] is None:
                numbers[at] = self._nulls
                self._nulls += 1
        return numbers

    def _renumbered(self, rows: list[SourceRow], digests: bytes, numbers: dict[int, int]) -> bytes:
        changed = bytearray(digests)
        for at, number in numbers.items():
            start = at * ROW_DIGEST_BYTES
            changed[start : start + ROW_DIGEST_BYTES] = row_digest(self._prefix, rows[at], number)
        return bytes(changed)

    def errors(self) -> tuple[ErrorEntry, ...]:
        """What was rejected, once all was read."""
        if not self.rejected:
            return ()
        return (
            ErrorEntry(
                category="validation",
                code="duplicate_token_id",
                message=f"{self.rejected} rows repeat the token id of an earlier row and were "
                "left out.",
                node_name=self._node,
                db_path=self._path,
                occurrences=self.rejected,
                context={"rows": self._listed},
            ),
        )


@dataclass
class ContentOfRows:
    """What is known of the content of some rows, at their positions."""

    data: list[bytes | None]
    failure: list[Failure | None]
    via: list[str]
    healed: int = 0
    from_target: int = 0


class Content:
    """Where the content of new and changed rows comes from.

    First what the target already has: of the same record (what failed stays
    failed until it is due again), then of any record with the same token id.
    The rest is asked of the node.
    """

    def __init__(self, job: Job, worker: Worker, chain: ContentChain) -> None:
        self._job = job
        self._worker = worker
        self._chain = chain

    def of(self, rows: Sequence[SourceRow], keys: bytes, held: np.ndarray) -> ContentOfRows:
        """Content or failure for each row; ``held`` tells which records the target has."""
        count = len(rows)
        ids = [row[0] if isinstance(row[0], str) else None for row in rows]
        if not (self._job.ask_target or held.any()):
            resolved = self._chain.resolve(ids)
            return ContentOfRows(resolved.data, resolved.failure, resolved.via, resolved.healed)
        found = ContentOfRows([None] * count, [None] * count, [""] * count)
        if held.any():
            self._recall(keys, held, found)
        if self._job.ask_target:
            self._borrow(ids, found)
        missing = [i for i in range(count) if found.data[i] is None and found.failure[i] is None]
        if missing:
            resolved = self._chain.resolve([ids[i] for i in missing])
            for at, i in enumerate(missing):
                found.data[i] = resolved.data[at]
                found.failure[i] = resolved.failure[at]
                found.via[i] = resolved.via[at]
            found.healed = resolved.healed
        return found

    def _recall(self, keys: bytes, held: np.ndarray, found: ContentOfRows) -> None:
        width = RECORD_KEY_BYTES
        at = {keys[i * width : i * width + width]: i for i in np.flatnonzero(held).tolist()}
        for key, content in self._worker.store.known_content(list(at)).items():
            if content.ipfs_fetched and content.ipfs_data is not None:
                found.data[at[key]] = decode_content(content.ipfs_data)
                found.via[at[key]] = "target"
                found.from_target += 1
            elif not self._job.retry_content:
                found.failure[at[key]] = _failure(content)

    def _borrow(self, ids: Sequence[str | None], found: ContentOfRows) -> None:
        wanted = [
            token
            for i, token in enumerate(ids)
            if token and found.data[i] is None and found.failure[i] is None
        ]
        held = self._worker.store.content_of_tokens(wanted) if wanted else {}
        for i, token in enumerate(ids):
            if found.data[i] is None and token in held:
                found.data[i] = decode_content(held[token])
                found.failure[i] = None
                found.via[i] = "target"
                found.from_target += 1


def _failure(content: KnownContent) -> Failure | None:
    """A stored ``ipfs_error`` as it was; None where there is none that this version knows."""
    code, _, sentence = (content.ipfs_error or "").partition(": ")
    try:
        return Failure(FailureCode(code), sentence)
    except ValueError:
        return None


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
