"""What stands beside the tokens of a database: read in the same snapshot, brought into the target.

Each companion table is treated as the records are: rows whose digest the target does not hold
travel, rows that are gone are marked, and `verify` compares every column of every row.
"""

from __future__ import annotations

import marshal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from hashlib import blake2b
from itertools import islice
from typing import Final, Literal

import numpy as np
import pyarrow as pa

from rubix_token_sync.nodes.connection import VALUE_LIMIT_BYTES
from rubix_token_sync.nodes.database_errors import failure
from rubix_token_sync.nodes.did_keys import Network, NodeKeys
from rubix_token_sync.nodes.snapshot import Snapshot
from rubix_token_sync.records.binary import joined_values, python_values
from rubix_token_sync.records.build_companions import CompanionContext, companion_batch
from rubix_token_sync.records.companions import DIDS, CompanionSource, companion_key
from rubix_token_sync.records.schema import (
    RECORD_KEY_BYTES,
    ROW_DIGEST_BYTES,
    RecordTable,
    SourceRow,
    digest_prefix,
    row_digest,
    row_digests,
)
from rubix_token_sync.records.validate import without_sentences
from rubix_token_sync.runs.jobs import Difference, Job
from rubix_token_sync.runs.known_rows import Known
from rubix_token_sync.runs.publishing import Publishing
from rubix_token_sync.runs.seen_ids import SeenIds
from rubix_token_sync.targets.base import ErrorEntry, Target

__all__ = [
    "CompanionOutcome",
    "CompanionRows",
    "CompanionTables",
    "Companions",
    "full_digests",
]

_ASKED_AT_ONCE: Final = 500
_MOST_KEYS: Final = 1_000
"""Public keys that are looked for in a node's directory; real nodes have a handful of DIDs."""
_NOT_COMPARED: Final = "record_key"


@dataclass
class CompanionOutcome:
    """What the companions of one database came to."""

    counts: dict[str, int]
    """Live rows that the target must hold, by table."""
    rejected: int = 0
    errors: list[ErrorEntry] = field(default_factory=list)
    """What was left out."""


class CompanionTables:
    """Some companion tables of one job's database, on their way into the target.

    Attributes:
        counts: rows that were taken, by table.
        network: of the database's tokens; None: nothing says it.
    """

    def __init__(
        self,
        job: Job,
        tables: Sequence[RecordTable],
        network: Network | None,
        target: Callable[[], Target],
        publisher: Publishing,
        note: Callable[[tuple[Difference, ...]], None],
    ) -> None:
        """``target`` opens the target at the first need; ``publisher`` gets what is to travel.

        ``note`` gets the differences, where the job compares.
        """
        self.counts = {table.name: 0 for table in tables}
        self.network = network
        self._database = job.database_key
        self._publisher = publisher
        self._note = note
        self._context = CompanionContext(job.source, job.node.name, job.node.db_path, network)
        self._prefix = partial(digest_prefix, job.node.name, None, network=network)
        kind: type[_Held] = _Change if job.task == "sync" else _Comparison
        self._tables: dict[str, _Held] = {
            table.name: kind(job, table, target, publisher) for table in tables
        }

    def reader(self, source: CompanionSource, *, unique: bool) -> CompanionRows:
        """For the rows of one of a node's tables; ``unique``: its schema promises unique keys."""
        return CompanionRows(source, SeenIds(promised=unique), self._prefix(source.table))

    def take(self, reader: CompanionRows, rows: list[SourceRow]) -> None:
        """Some rows; those that changed are published, or will be at the end.

        Raises:
            TargetError: the target cannot be asked, or takes nothing.
        """
        digested = reader.digested(self._database, rows)
        name = reader.source.target.name
        self.counts[name] += len(digested.rows)
        self._note(self._tables[name].batch(digested, self._context))

    def end(self, *, complete: bool = True) -> None:
        """The last row was taken.  Where not all rows could be, none counts as vanished."""
        for table in self._tables.values():
            if complete:
                self._note(tuple(table.lost()))
            self._publisher.finish_companion(table.table, table.vanished() if complete else b"")


class Companions:
    """The companion tables of one job's database that are in the database itself."""

    def __init__(
        self, job: Job, snapshot: Snapshot, tables: CompanionTables, batch_size: int
    ) -> None:
        self._job = job
        self._snapshot = snapshot
        self._batch_size = batch_size
        self._into = tables
        self._sources = {
            table.kind.name: tables.reader(table.kind, unique=table.unique_ids)
            for table in snapshot.companions
        }

    def run(self) -> CompanionOutcome:
        """Read them to their end; what changed is published, or will be with the mark.

        Raises:
            SourceError: they cannot be read.
            TargetError: the target cannot be asked, or takes nothing.
        """
        keys = _KeysOfDids(NodeKeys(self._job.node.db_path, self._into.network))
        for source, rows in self._snapshot.companion_rows(self._batch_size):
            taken = keys.added(source, rows) if source.target is DIDS else rows
            self._into.take(self._sources[source.name], taken)
        broken = sum(rows.seen.broken_promises() for rows in self._sources.values())
        if broken:
            raise failure(
                "corrupt",
                f"{broken} rows repeat the key of an earlier row, although an index of the "
                "database keeps keys unique: that index is damaged.",
            )
        self._into.end()
        outcome = CompanionOutcome(dict(self._into.counts))
        for reader in self._sources.values():
            self._tell(reader, outcome)
        return outcome

    def _tell(self, rows: CompanionRows, outcome: CompanionOutcome) -> None:
        name, repeated = rows.source.table, rows.repeated
        left_out = len(self._snapshot.left_out.get(rows.source.name, ()))
        for count, code, message in (
            (repeated, "duplicate_row", f"{name} has {repeated} rows whose key an earlier one has"),
            (
                left_out,
                "too_large_value",
                f"{name} has {left_out} rows with a value of more than {VALUE_LIMIT_BYTES} bytes",
            ),
        ):
            if not count:
                continue
            outcome.rejected += count
            outcome.errors.append(
                ErrorEntry(
                    category="validation",
                    code=code,
                    message=f"{message}; they were left out.",
                    node_name=self._job.node.name,
                    db_path=self._job.node.db_path,
                    occurrences=count,
                    context={"table": name},
                )
            )


class _KeysOfDids:
    """Puts the public key of each DID into its row, as far as the node's directory proves it."""

    def __init__(self, keys: NodeKeys) -> None:
        self._keys = keys
        self._left = _MOST_KEYS

    def added(self, source: CompanionSource, rows: list[SourceRow]) -> list[SourceRow]:
        at = source.target.source.index("public_key")
        dids = [row[source.key_at] for row in rows]
        asked = list(islice((did for did in dids if isinstance(did, str)), self._left))
        self._left -= len(asked)
        pems = self._keys.many(asked) if asked else []
        keys = {
            did: pem.decode("ascii", "replace") for did, pem in zip(asked, pems, strict=True) if pem
        }
        return [
            (*row[:at], keys.get(did) if isinstance(did, str) else None, *row[at + 1 :])
            for row, did in zip(rows, dids, strict=True)
        ]


@dataclass(frozen=True)
class _Digested:
    """Rows of one of a node's tables with their keys and digests, one after the other."""

    source: CompanionSource
    rows: list[SourceRow]
    keys: bytes
    digests: bytes

    def take(self, positions: Iterator[int] | list[int]) -> _Digested:
        """Some of them, in order."""
        chosen = list(positions)
        if len(chosen) == len(self.rows):
            return self
        return _Digested(
            self.source,
            [self.rows[i] for i in chosen],
            b"".join([_cell(self.keys, RECORD_KEY_BYTES, i) for i in chosen]),
            b"".join([_cell(self.digests, ROW_DIGEST_BYTES, i) for i in chosen]),
        )


def _cell(data: bytes, width: int, at: int) -> bytes:
    return data[at * width : at * width + width]


@dataclass
class CompanionRows:
    """What is kept of one of a node's tables while it is read."""

    source: CompanionSource
    seen: SeenIds
    prefix: bytes
    nulls: int = 0
    repeated: int = 0

    def digested(self, database: bytes, rows: list[SourceRow]) -> _Digested:
        """Rows without those that repeat a key; those without a key are numbered."""
        at = self.source.key_at
        repeated = set(self.seen.repeated([row[at] for row in rows]))
        if repeated:
            self.repeated += len(repeated)
            rows = [row for number, row in enumerate(rows) if number not in repeated]
        digests = row_digests(self.prefix, rows)
        numbers = dict.fromkeys(range(len(rows)), 0)
        if self.seen.nulls:
            for number, row in enumerate(rows):
                if row[at] is None:
                    numbers[number] = self.nulls
                    self.nulls += 1
            digests = b"".join(
                [row_digest(self.prefix, row, numbers[number]) for number, row in enumerate(rows)]
            )
        table = self.source.table
        keys = [companion_key(database, table, row[at], numbers[n]) for n, row in enumerate(rows)]
        return _Digested(self.source, rows, b"".join(keys), digests)


class _Held(ABC):
    """One companion table beside what the target holds of it."""

    def __init__(
        self, job: Job, table: RecordTable, target: Callable[[], Target], publisher: Publishing
    ) -> None:
        self.table = table
        self._job = job
        self._target = target
        self._publisher = publisher

    @abstractmethod
    def _read(self) -> tuple[bytes, bytes]:
        """Keys and digests of the live rows that the target holds, one after the other."""

    @abstractmethod
    def batch(self, rows: _Digested, context: CompanionContext) -> tuple[Difference, ...]:
        """Publish what is to be written of some rows; what differs, where that is asked for."""

    @cached_property
    def _known(self) -> Known:
        return Known(*self._read()) if self._job.read_known else Known(b"", b"")

    def lost(self) -> Iterator[Difference]:
        """What only the target has; only a comparison tells."""
        return iter(())

    def vanished(self) -> bytes:
        """Keys of what the node no longer has."""
        return self._known.vanished()


class _Change(_Held):
    """In a sync: rows whose digest the target lacks are published."""

    def _read(self) -> tuple[bytes, bytes]:
        return self._target().known_rows(self._job.database_key, self.table)

    def batch(self, rows: _Digested, context: CompanionContext) -> tuple[Difference, ...]:
        """Publish those that changed."""
        known = self._known
        changed = rows.take(known.changed_rows(rows.digests).tolist())
        if changed.rows:
            held = known.see(changed.keys)
            records = companion_batch(
                rows.source, changed.rows, changed.keys, changed.digests, context
            )
            new = len(changed.rows) - int(held.sum())
            self._publisher.add_companion(self.table, records, new)
        return ()

    def vanished(self) -> bytes:
        """Keys of what the node no longer has; asks the target only where it holds anything."""
        held = self._job.held
        if "_known" not in vars(self) and held is not None and not held.get(self.table.name):
            return b""
        return super().vanished()


class _Comparison(_Held):
    """In a verify or a repair: every column of every row is compared."""

    def _read(self) -> tuple[bytes, bytes]:
        keys, digests = bytearray(), bytearray()
        for block in self._target().stored_records(self._job.database_key, self.table):
            keys += joined_values(block.column("record_key"))
            digests += full_digests(block)
        return bytes(keys), bytes(digests)

    def batch(self, rows: _Digested, context: CompanionContext) -> tuple[Difference, ...]:
        """What differs; a repair publishes it."""
        fresh = companion_batch(rows.source, rows.rows, rows.keys, rows.digests, context)
        there, same = self._known.match(rows.keys, full_digests(fresh))
        found = np.flatnonzero(~same).tolist()
        if not found:
            return ()
        part = fresh.take(pa.array(found, pa.int64()))
        if self._job.task == "repair":
            new = len(found) - int(there[found].sum())
            self._publisher.add_companion(self.table, part, new)
        keys = part.column("record_key").to_pylist()
        stored = self._stored(keys)
        return tuple(
            self._difference(row, stored.get(key))
            for key, row in zip(keys, part.to_pylist(), strict=True)
        )

    def _stored(self, keys: list[bytes]) -> dict[bytes, dict[str, object]]:
        target, found = self._target(), dict[bytes, dict[str, object]]()
        if self._job.read_known:
            for start in range(0, len(keys), _ASKED_AT_ONCE):
                part = keys[start : start + _ASKED_AT_ONCE]
                found |= target.records_by_key(part, self.table)
        return found

    def _difference(self, row: dict[str, object], other: dict[str, object] | None) -> Difference:
        columns: tuple[str, ...] = ()
        letter: Literal["+", "*"] = "+"
        if other is not None:
            letter = "*"
            columns = tuple(name for name in self.table.names if row[name] != other[name])
        return self._named(letter, row, columns)

    def _named(
        self,
        letter: Literal["+", "-", "*"],
        row: dict[str, object],
        columns: tuple[str, ...] = (),
    ) -> Difference:
        label = row[self.table.label]
        name = label if label is None else str(label)
        return Difference(letter, self._job.node.db_path, name, columns, self.table.name)

    def lost(self) -> Iterator[Difference]:
        """What only the target has."""
        gone = self.vanished()
        keys = [_cell(gone, RECORD_KEY_BYTES, i) for i in range(len(gone) // RECORD_KEY_BYTES)]
        for row in self._stored(keys).values():
            yield self._named("-", row)


def full_digests(batch: pa.RecordBatch) -> bytes:
    """16 bytes a row over all columns that a sync writes, from the values themselves."""
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name == _NOT_COMPARED:
            continue
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        values = python_values(column)
        if name == "validation_errors":
            values = [without_sentences(value) for value in values]
        columns.append(values)
    return b"".join(
        [
            blake2b(marshal.dumps(row, 2), digest_size=ROW_DIGEST_BYTES).digest()
            for row in zip(*columns, strict=True)
        ]
    )
