"""A database's way into the target: chunks of records, a transaction each, then its mark."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

import pyarrow as pa

from rubix_token_sync.errors import Category
from rubix_token_sync.records.schema import RECORD_SCHEMA
from rubix_token_sync.runs.jobs import ChunkPublished, Job, Send, Tally
from rubix_token_sync.targets.base import (
    Chunk,
    DatabaseMark,
    ErrorEntry,
    Lease,
    Published,
    Rejected,
    Target,
)
from rubix_token_sync.text import counted

__all__ = ["DatabasePublisher", "Discarding", "Publishing"]

_LARGEST_CHUNK: Final = 50_000
_LARGEST_CHUNK_BYTES: Final = 32 << 20
"""A transaction ends at so many rows, or bytes of them, whatever BULK_INSERT_SIZE says: they
are held in memory."""


class Discarding:
    """Where the records of a run go that publishes nothing."""

    def add(self, tally: Tally, rows: pa.RecordBatch) -> None:
        """Rows that a sync would publish."""

    def finish(self, mark: DatabaseMark, vanished: bytes, errors: Sequence[ErrorEntry]) -> None:
        """What a sync would write last."""


class DatabasePublisher:
    """Publishes one database's records, in order, under the run's lease."""

    def __init__(
        self,
        target: Target,
        lease: Lease,
        job: Job,
        send: Send,
        *,
        bulk_insert_size: int,
        turn: Callable[[], AbstractContextManager[None]],
        replace: bool = False,
        largest_chunk: int = _LARGEST_CHUNK,
        largest_chunk_bytes: int = _LARGEST_CHUNK_BYTES,
    ) -> None:
        """``turn`` is held while a chunk is written; ``replace`` as in `Chunk`."""
        self._target = target
        self._lease = lease
        self._job = job
        self._send = send
        self._bulk = bulk_insert_size
        self._turn = turn
        self._replace = replace
        self._most_rows = min(bulk_insert_size, largest_chunk)
        self._most_bytes = largest_chunk_bytes
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = self._pending_bytes = self._pending_new = 0
        self._tally = Tally()
        self._rows = 0
        self._rejected = 0

    def add(self, tally: Tally, rows: pa.RecordBatch) -> None:
        """Take finished records (RECORD_SCHEMA); publishes when there are enough of them.

        Raises:
            TargetError, LeaseLost: as `Target.publish`.
        """
        self._tally.add(tally)
        if rows.num_rows:
            self._pending.append(rows)
            self._rows += rows.num_rows
            self._pending_rows += rows.num_rows
            self._pending_bytes += rows.nbytes
            self._pending_new += tally.new
        if self._pending_rows >= self._most_rows or self._pending_bytes >= self._most_bytes:
            self._publish(self._take())

    def finish(self, mark: DatabaseMark, vanished: bytes, errors: Sequence[ErrorEntry]) -> None:
        """Publish the rest with the mark; ``vanished`` is record keys, 24 bytes each.

        ``mark`` counts the records that the node has; those that the target
        refuses are taken off here.

        Raises:
            TargetError, LeaseLost, ReportMismatch: as `Target.publish`.
        """
        mark = dataclasses.replace(
            mark,
            record_count=mark.record_count - self._rejected,
            rejected_count=mark.rejected_count + self._rejected,
        )
        entries = (*errors, *content_errors(self._job, self._tally))
        self._publish(
            dataclasses.replace(self._take(), vanished=vanished, mark=mark, errors=entries)
        )

    def _take(self) -> Chunk:
        rows = _joined(self._pending)
        new = 0 < rows.num_rows == self._pending_new and not self._replace
        self._pending = []
        self._pending_rows = self._pending_bytes = self._pending_new = 0
        return Chunk(rows, bulk=self._rows >= self._bulk, new=new, replace=self._replace)

    def _publish(self, chunk: Chunk) -> None:
        with self._turn():
            published = self._target.publish(self._lease, chunk)
            if published.rejected:
                entries = [_rejected(self._job, rejected) for rejected in published.rejected]
                self._target.record_errors(self._lease, entries)
            self._rejected += len(published.rejected)
            self._send(_report(self._job.number, published))


Publishing = DatabasePublisher | Discarding


def _report(job: int, published: Published) -> ChunkPublished:
    return ChunkPublished(
        job,
        inserted=published.inserted,
        updated=published.updated,
        vanished=published.vanished,
        rejected=len(published.rejected),
        bulk_loads=published.bulk_loads,
        batches=published.batches,
        retries=published.retries,
        marked=published.marked,
    )


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


def content_errors(job: Job, tally: Tally) -> list[ErrorEntry]:
    """One entry a reason, with its count: the tokens themselves carry theirs."""

    def entry(category: Category, code: str, message: str, count: int) -> ErrorEntry:
        return ErrorEntry(
            category=category,
            code=code,
            message=message,
            node_name=job.node.name,
            db_path=job.node.db_path,
            occurrences=count,
        )

    entries = [
        entry("ipfs", code, f"{counted(count, 'token')} without content.", count)
        for code, count in sorted(tally.failures.items())
    ]
    if tally.invalid:
        message = f"{counted(tally.invalid, 'record')} with validation errors."
        entries.append(entry("validation", "invalid_records", message, tally.invalid))
    if tally.healed:
        message = (
            f"{counted(tally.healed, 'block')} {'is' if tally.healed == 1 else 'are'} damaged in "
            "the node's store; the content came from elsewhere."
        )
        entries.append(entry("ipfs", "healed", message, tally.healed))
    return entries
