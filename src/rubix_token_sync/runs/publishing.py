"""A database's way into the target: chunks of records, a transaction each, then its mark."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from rubix_token_sync.errors import Category
from rubix_token_sync.records.schema import RECORDS, RecordTable
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
"""A transaction holds at most this many rows, or bytes of them, whatever BULK_INSERT_SIZE says:
they are held in memory."""


class Discarding:
    """Where the records of a run go that publishes nothing."""

    def add(self, tally: Tally, rows: pa.RecordBatch) -> None:
        """Rows that a sync would publish."""

    def add_companion(self, table: RecordTable, rows: pa.RecordBatch, new: int) -> None:
        """Rows of a companion table that a sync would publish."""

    def finish_companion(self, table: RecordTable, vanished: bytes) -> None:
        """The end of a companion table."""

    def finish(self, mark: DatabaseMark, vanished: bytes, errors: Sequence[ErrorEntry]) -> None:
        """What a sync would write last."""


@dataclass
class _Pending:
    """Rows of one table that wait for their transaction."""

    table: RecordTable
    batches: list[pa.RecordBatch] = field(default_factory=list)
    count: int = 0
    size: int = 0
    new: int = 0
    rows: int = 0
    """All that came, published ones included."""

    def add(self, rows: pa.RecordBatch, new: int) -> None:
        if rows.num_rows:
            self.batches.append(rows)
            self.count += rows.num_rows
            self.size += rows.nbytes
            self.new += new
            self.rows += rows.num_rows

    def take(self, bulk: int, *, replace: bool) -> Chunk:
        rows = _joined(self.batches, self.table)
        new = 0 < rows.num_rows == self.new and not replace
        self.batches = []
        self.count = self.size = self.new = 0
        return Chunk(rows, bulk=self.rows >= bulk, new=new, replace=replace, table=self.table.name)


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
        self._records = _Pending(RECORDS)
        self._beside: dict[str, _Pending] = {}
        self._tally = Tally()
        self._rejected: Counter[str] = Counter()
        """By table."""

    def add(self, tally: Tally, rows: pa.RecordBatch) -> None:
        """Take finished records (RECORD_SCHEMA); publishes when there are enough of them.

        Raises:
            TargetError, LeaseLost: as `Target.publish`.
        """
        self._tally.add(tally)
        self._records.add(rows, tally.new)
        self._publish_full(self._records)

    def add_companion(self, table: RecordTable, rows: pa.RecordBatch, new: int) -> None:
        """Take finished rows of a companion table, of which ``new`` are new to the target.

        Raises:
            TargetError, LeaseLost: as `Target.publish`.
        """
        pending = self._beside.setdefault(table.name, _Pending(table))
        pending.add(rows, new)
        self._publish_full(pending)

    def finish_companion(self, table: RecordTable, vanished: bytes) -> None:
        """Publish the rest of a companion table; ``vanished`` is keys, 24 bytes each.

        Raises:
            TargetError, LeaseLost: as `Target.publish`.
        """
        pending = self._beside.setdefault(table.name, _Pending(table))
        if pending.count or vanished:
            self._publish(dataclasses.replace(self._take(pending), vanished=vanished))

    def finish(self, mark: DatabaseMark, vanished: bytes, errors: Sequence[ErrorEntry]) -> None:
        """Publish the rest with the mark; ``vanished`` is record keys, 24 bytes each.

        ``mark`` counts the rows that the node has; those that the target
        refuses are taken off here.

        Raises:
            TargetError, LeaseLost, ReportMismatch: as `Target.publish`.
        """
        refused = self._rejected
        mark = dataclasses.replace(
            mark,
            record_count=mark.record_count - refused[RECORDS.name],
            rejected_count=mark.rejected_count + refused.total(),
            companions={
                name: None if n is None else n - refused[name]
                for name, n in mark.companions.items()
            },
        )
        entries = (*errors, *content_errors(self._job, self._tally))
        last = self._take(self._records)
        self._publish(dataclasses.replace(last, vanished=vanished, mark=mark, errors=entries))

    def _publish_full(self, pending: _Pending) -> None:
        if pending.count >= self._most_rows or pending.size >= self._most_bytes:
            self._publish(self._take(pending))

    def _take(self, pending: _Pending) -> Chunk:
        return pending.take(self._bulk, replace=self._replace)

    def _publish(self, chunk: Chunk) -> None:
        with self._turn():
            published = self._target.publish(self._lease, chunk)
            if published.rejected:
                entries = [
                    _rejected(self._job, rejected, chunk.table) for rejected in published.rejected
                ]
                self._target.record_errors(self._lease, entries)
            self._rejected[chunk.table] += len(published.rejected)
            self._send(_report(self._job.number, published, chunk.table))


Publishing = DatabasePublisher | Discarding


def _report(job: int, published: Published, table: str) -> ChunkPublished:
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
        table=table,
    )


def _joined(batches: list[pa.RecordBatch], table: RecordTable) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    if not batches:
        return pa.RecordBatch.from_pylist([], schema=table.schema)
    return pa.concat_batches(batches)


def _rejected(job: Job, rejected: Rejected, table: str) -> ErrorEntry:
    of_records = table == RECORDS.name
    label = json.dumps(rejected.token_id)  # quoted: it is hostile
    return ErrorEntry(
        category="database",
        code="record_refused",
        message=rejected.reason if of_records else f"{table} {label}: {rejected.reason}",
        node_name=job.node.name,
        db_path=job.node.db_path,
        token_id=rejected.token_id if of_records else None,
        context={} if of_records else {"table": table},
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
