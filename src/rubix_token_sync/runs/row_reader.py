"""A database's rows in digested batches, as sync and verify both read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rubix_token_sync.nodes.database_errors import failure
from rubix_token_sync.nodes.snapshot import Snapshot
from rubix_token_sync.records.build import DatabaseContext
from rubix_token_sync.records.kinds import RBT, TokenKind
from rubix_token_sync.records.schema import (
    ROW_DIGEST_BYTES,
    SourceRow,
    SqliteValue,
    digest_prefix,
    record_key,
    record_keys,
    row_digest,
    row_digests,
)
from rubix_token_sync.runs.jobs import Job
from rubix_token_sync.runs.seen_ids import SeenIds
from rubix_token_sync.targets.base import ErrorEntry
from rubix_token_sync.text import counted

__all__ = ["DigestedRows", "RowReader", "database_context"]

_LISTED_DUPLICATES: Final = 100
_SHOWN_CHARACTERS: Final = 40
"""Of each value of a rejected row, in the report."""


def database_context(job: Job, snapshot: Snapshot, network: str | None) -> DatabaseContext:
    """What the records of a job's database have in common."""
    return DatabaseContext(
        source_ip=job.source,
        node_name=job.node.name,
        db_path=job.node.db_path,
        ipfs_path=job.node.repository,
        db_last_modified=snapshot.modified,
        network=network,
        columns={table.kind.name: table.columns for table in snapshot.tables},
    )


@dataclass(frozen=True)
class DigestedRows:
    """Rows of one kind with their digests and, for rows without a token id, their number."""

    rows: list[SourceRow]
    digests: bytes
    occurrences: dict[int, int]
    kind: TokenKind = RBT

    @staticmethod
    def none() -> DigestedRows:
        """No rows."""
        return DigestedRows([], b"", {})

    def joins(self, other: DigestedRows) -> bool:
        """Whether `plus` can be asked: both are of one kind, or one is empty."""
        return self.kind is other.kind or not (self.rows and other.rows)

    def take(self, positions: NDArray[np.int64]) -> DigestedRows:
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
            self.kind,
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
            self.kind,
        )

    def keys(self, database: bytes) -> bytes:
        """The record keys, 24 bytes each."""
        numbers, kind = self.occurrences, self.kind.name
        if not numbers:
            return record_keys(database, [row[0] for row in self.rows], kind)
        return b"".join(
            [
                record_key(database, row[0], numbers.get(i, 0), kind)
                for i, row in enumerate(self.rows)
            ]
        )


class RowReader:
    """A database's rows in digested batches: NULL ids numbered, repeated ids left out.

    The first row (in the database's own order) with a token id is the record; what
    follows with the same id is rejected and reported.  No index is trusted for that: one
    may be damaged, and ids that differ in UTF-16 can be equal in UTF-8.

    Raises:
        SourceError: while iterating; ``corrupt`` where a large database breaks the promise
            of its own index.
    """

    def __init__(self, job: Job, snapshot: Snapshot, network: str | None, batch_size: int) -> None:
        self._snapshot = snapshot
        self._batch_size = batch_size
        self._path = job.node.db_path
        self._node = job.node.name
        self._tables = {
            table.kind.name: _Table(
                SeenIds(promised=table.unique_ids),
                digest_prefix(job.node.name, job.node.repository, table.kind.name, network),
            )
            for table in snapshot.tables
        }
        self._listed: list[str] = []
        self.kinds: Counter[str] = Counter()
        """Rows that are records, by kind."""
        self.rejected = 0

    def __iter__(self) -> Iterator[DigestedRows]:
        for kind, rows in self._snapshot.rows(self._batch_size):
            table = self._tables[kind.name]
            repeated = table.seen.repeated([row[0] for row in rows])
            if repeated:
                self._reject([rows[at] for at in repeated])
                left_out = set(repeated)
                rows = [row for at, row in enumerate(rows) if at not in left_out]
            digests = row_digests(table.prefix, rows)
            numbers = table.number(rows)
            if any(numbers.values()):
                digests = _renumbered(table.prefix, rows, digests, numbers)
            self.kinds[kind.name] += len(rows)
            yield DigestedRows(rows, digests, numbers, kind)
        broken = sum(table.seen.broken_promises() for table in self._tables.values())
        if broken:
            raise failure(
                "corrupt",
                f"{_repeating(broken)}, although an index of the "
                "database keeps ids unique: that index is damaged.",
            )

    def _reject(self, rows: list[SourceRow]) -> None:
        self.rejected += len(rows)
        for row in rows[: _LISTED_DUPLICATES - len(self._listed)]:
            self._listed.append(", ".join(map(_shown, row)))

    @property
    def distinct(self) -> int:
        """Rows that are records."""
        return self.kinds.total()

    def errors(self) -> tuple[ErrorEntry, ...]:
        """What was rejected, once all was read."""
        if not self.rejected:
            return ()
        was = "was" if self.rejected == 1 else "were"
        return (
            ErrorEntry(
                category="validation",
                code="duplicate_token_id",
                message=f"{_repeating(self.rejected)} and {was} left out.",
                node_name=self._node,
                db_path=self._path,
                occurrences=self.rejected,
                context={"rows": self._listed},
            ),
        )


@dataclass
class _Table:
    """What is kept of one table while it is read."""

    seen: SeenIds
    prefix: bytes
    nulls: int = 0

    def number(self, rows: list[SourceRow]) -> dict[int, int]:
        """The rows without a token id, by position, and how many there were before each."""
        if not self.seen.nulls:
            return {}
        numbers = {}
        for at, row in enumerate(rows):
            if row[0] is None:
                numbers[at] = self.nulls
                self.nulls += 1
        return numbers


def _renumbered(
    prefix: bytes, rows: list[SourceRow], digests: bytes, numbers: dict[int, int]
) -> bytes:
    changed = bytearray(digests)
    for at, number in numbers.items():
        start = at * ROW_DIGEST_BYTES
        changed[start : start + ROW_DIGEST_BYTES] = row_digest(prefix, rows[at], number)
    return bytes(changed)


def _repeating(rows: int) -> str:
    repeat = "repeats" if rows == 1 else "repeat"
    return f"{counted(rows, 'row')} {repeat} the token id of an earlier row"


def _shown(value: SqliteValue) -> str:
    """A value for the report, cut before anything is made of it."""
    if isinstance(value, str | bytes) and len(value) > _SHOWN_CHARACTERS:
        return f"{value[:_SHOWN_CHARACTERS]!r}… ({len(value)} long)"
    return repr(value)
