"""One database compared with what the target holds of it, record by record.

Both sides become the same 16-byte digest a record over every column that a
sync writes, computed from the stored values themselves (not from the stored
digest), so that a change behind the tool's back is found.  Content is read and
verified again by the local ways.
"""

from __future__ import annotations

import itertools
import marshal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rubix_token_sync.ipfs.cid import parse
from rubix_token_sync.ipfs.content import FailureCode
from rubix_token_sync.ipfs.fetch import ContentChain
from rubix_token_sync.ipfs.unixfs import matches
from rubix_token_sync.records.binary import joined_values, python_values
from rubix_token_sync.records.build import (
    SIGNATURE_NOT_CHECKED,
    SIGNATURE_VERDICTS,
    VERDICT_COLUMNS,
    DatabaseContext,
    Judging,
    finish_batch,
)
from rubix_token_sync.records.content_text import decode_content
from rubix_token_sync.records.kinds import TokenKind
from rubix_token_sync.records.schema import RECORD_KEY_BYTES, RECORD_SCHEMA, ROW_DIGEST_BYTES
from rubix_token_sync.records.token_content import named_trees, stored_trees
from rubix_token_sync.records.validate import without_sentences
from rubix_token_sync.runs.content import ContentOfRows, content_of_node, prove_trees
from rubix_token_sync.runs.jobs import Difference, Job, Tally
from rubix_token_sync.runs.known_rows import Known
from rubix_token_sync.runs.row_reader import DigestedRows
from rubix_token_sync.targets.base import Target

__all__ = ["Comparison", "held_records", "record_digests"]

_READ_ERROR: Final = FailureCode.READ_ERROR
_FOUND: Final = "validation_errors"
_CONTENT: Final = frozenset({"ipfs_data", "ipfs_fetched", _FOUND})
_OF_CONTENT: Final = _CONTENT | {"attributes", *VERDICT_COLUMNS}
"""Columns that content decides, some of them together with the row."""
# What only says when and why something was written, or why there is no content.
_NOT_COMPARED: Final = frozenset({"record_key", "ipfs_error", "db_last_modified"})
_COMPARED: Final = tuple(name for name in RECORD_SCHEMA.names if name not in _NOT_COMPARED)
_SHARED: Final = ("source_ip", "node_name", "db_path", "ipfs_path", "token_kind", "network")
"""Of these, which come first in a digest, a database's records mostly have the same values."""
_OWN: Final = tuple(name for name in _COMPARED if name not in _SHARED)


def _compared(name: str, value: Any) -> Any:
    """A value as it counts: of findings, not how this version words them."""
    return without_sentences(value) if name == _FOUND else value


def record_digests(batch: pa.RecordBatch, *, judged: bool) -> bytes:
    """16 bytes a record over all compared columns; over verdicts only where they are ``judged``.

    A token without content is judged where there is a table of ids, which this machine may
    not have: audits compare those verdicts.  Whether a signature was checked is an audit's
    finding as well, and counts as not checked here.
    """
    columns = []
    for name in _OWN:
        column = batch.column(name)
        if name in VERDICT_COLUMNS:
            if not judged:
                continue
            column = pc.if_else(batch.column("ipfs_fetched"), column, None)
            if name == "verdict":
                checked = pc.is_in(column, pa.array(SIGNATURE_VERDICTS, pa.string()))
                column = pc.if_else(checked, SIGNATURE_NOT_CHECKED, column)
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        values = python_values(column)
        if name == _FOUND and column.null_count < len(column):
            values = [_compared(name, value) for value in values]
        columns.append(values)
    dumps, digests = marshal.dumps, []
    for begin, row in zip(_beginnings(batch), zip(*columns, strict=True), strict=True):
        digest = begin.copy()
        digest.update(dumps(row, 2))
        digests.append(digest.digest())
    return b"".join(digests)


def _beginnings(batch: pa.RecordBatch) -> Iterable[blake2b]:
    """A digest for each record that has taken the values of `_SHARED`."""
    own = [batch.column(name) for name in _SHARED]
    firsts = [_only_value(column) for column in own]
    if batch.num_rows and all(same for same, _ in firsts):
        return itertools.repeat(_begun(tuple(value for _, value in firsts)), batch.num_rows)
    rows = list(zip(*(column.to_pylist() for column in own), strict=True))
    begun = {row: _begun(row) for row in set(rows)}
    return [begun[row] for row in rows]


def _begun(row: tuple[str | None, ...]) -> blake2b:
    return blake2b(marshal.dumps(row, 2), digest_size=ROW_DIGEST_BYTES)


def _only_value(column: pa.Array) -> tuple[bool, str | None]:
    """Whether there is one value alone, and the first."""
    if column.null_count:
        return column.null_count == len(column), None
    first = column[0]
    return bool(pc.all(pc.equal(column, first)).as_py()), first.as_py()


@dataclass
class Comparison:
    """One database of a node beside what the target holds of it.

    ``repair`` gets the records that are to be written so that both are equal
    again, each with the tally of its batch.  ``unverified`` counts contents that
    only the target has and that cannot be proven from them alone; ``unread`` says
    whether some could not be read now, ``failures`` why nobody has content, by code.
    """

    job: Job
    target: Target
    chain: ContentChain
    context: DatabaseContext
    held: Known
    judge: Judging | None = None
    repair: Callable[[Tally, pa.RecordBatch], None] | None = None
    unverified: int = 0
    unread: bool = False
    failures: Counter[str] = field(default_factory=Counter)

    def batch(self, rows: DigestedRows) -> tuple[Tally, tuple[Difference, ...]]:
        """Compare some rows, content read anew.

        Raises:
            TargetError: the target cannot be read, or takes no repair.
        """
        keys = rows.keys(self.job.database_key)
        resolved = content_of_node(self.chain, rows.kind, rows.rows)
        self.unread |= any(reason.code is _READ_ERROR for reason in resolved.failures)
        via = Counter(way for way in resolved.via if way)
        fresh = self._records(rows, keys, resolved)
        there, same = self.held.match(keys, record_digests(fresh, judged=self.judge is not None))
        suspects = np.flatnonzero(~same)
        stored = self._stored(fresh, suspects[there[suspects]])
        fetched = pc.sum(fresh.column("ipfs_fetched")).as_py() or 0
        if self._keep(rows.kind, fresh, stored, resolved):
            fresh = self._records(rows, keys, resolved)
        self.failures.update(reason.code.value for reason in resolved.failures)
        found = self._examine(fresh, suspects, stored)
        tally = Tally(
            read=len(rows.rows),
            via=via,
            changed=len(found),
            new=sum(difference.letter == "+" for difference in found.values()),
            fetched=fetched,
        )
        if self.repair is not None and found:
            self.repair(tally, fresh.take(pa.array(list(found), pa.int64())))
        return tally, tuple(found.values())

    def _records(self, rows: DigestedRows, keys: bytes, content: ContentOfRows) -> pa.RecordBatch:
        return finish_batch(
            rows.kind, rows.rows, keys, rows.digests, content, self.context, self.judge
        )

    def _stored(self, fresh: pa.RecordBatch, held: NDArray[np.int64]) -> dict[int, dict[str, Any]]:
        """What the target has of some records, by their positions."""
        keys = fresh.column("record_key")
        at = {keys[i].as_py(): i for i in held.tolist()}
        found = self.target.records_by_key(list(at)) if at else {}
        return {at[key]: record for key, record in found.items()}

    def _keep(
        self,
        kind: TokenKind,
        fresh: pa.RecordBatch,
        stored: Mapping[int, dict[str, Any]],
        content: ContentOfRows,
    ) -> bool:
        """Put what only the target has beside what the node has; whether there is any.

        It got it elsewhere or earlier, and content is immutable, so it can be proven: content
        by its hash, what content names not at all.
        """
        ids, kept = fresh.column("token_id"), False
        for i, other in stored.items():
            proven: bool | None = True
            if content.data[i] is None:
                if not (other["ipfs_fetched"] or (kind.names_trees and other["ipfs_data"])):
                    continue
                proven = _proven(other, ids[i].as_py())
                if proven is not False:
                    kept = True
                    content.data[i], content.failure[i] = decode_content(other["ipfs_data"]), None
            data = content.data[i]
            named = named_trees(kind.name, data) if data is not None else {}
            if named:
                here = content.trees.get(i) or prove_trees(named, {}, self.chain.tree)
                content.trees[i] = here
                held = stored_trees(other["attributes"])
                if held.keys() & named.keys() - here.proven.keys():
                    kept, proven = True, None
                    known = held | here.proven
                    content.trees[i] = prove_trees(named, known, self.chain.tree)
            self.unverified += proven is None
        return kept

    def _examine(
        self,
        fresh: pa.RecordBatch,
        suspects: NDArray[np.int64],
        stored: Mapping[int, dict[str, Any]],
    ) -> dict[int, Difference]:
        """What really differs among the records whose digests do, by position."""
        found: dict[int, Difference] = {}
        path = self.job.node.db_path
        for i in suspects.tolist():
            row = {name: fresh.column(name)[i].as_py() for name in RECORD_SCHEMA.names}
            other = stored.get(i)
            if other is None:
                found[i] = Difference("+", path, row["token_id"])
                continue
            # Where nobody has judged a stored record yet, the next audit does; and where nobody
            # here can judge any more (no memory for the tables), nothing is known.
            judges = self.judge is not None and not self.judge.given_up
            judged = judges and row["ipfs_fetched"] and other["verdict"] is not None
            columns = {
                name
                for name in _COMPARED
                if _compared(name, row[name]) != _compared(name, other[name])
                and (judged or name not in VERDICT_COLUMNS)
                and not (row[name] == SIGNATURE_NOT_CHECKED and other[name] in SIGNATURE_VERDICTS)
            }
            if columns:
                letter: Literal["c", "*"] = "*"
                if columns <= _OF_CONTENT and not columns.isdisjoint(_CONTENT):
                    letter = "c"
                found[i] = Difference(
                    letter, path, row["token_id"], tuple(n for n in _COMPARED if n in columns)
                )
        return found

    def lost(self, keys: bytes) -> Iterator[Difference]:
        """The records of ``keys`` (24 bytes each), which only the target has."""
        split = [keys[i : i + RECORD_KEY_BYTES] for i in range(0, len(keys), RECORD_KEY_BYTES)]
        for start in range(0, len(split), 500):
            for record in self.target.records_by_key(split[start : start + 500]).values():
                yield Difference("-", self.job.node.db_path, record["token_id"])


def held_records(target: Target, database_key: bytes, *, judged: bool) -> Known:
    """Live records of a database with the digests of what is stored, 40 bytes each."""
    keys, digests = bytearray(), bytearray()
    for batch in target.stored_records(database_key):
        keys += joined_values(batch.column("record_key"))
        digests += record_digests(batch, judged=judged)
    return Known(bytes(keys), bytes(digests))


def _proven(record: dict[str, Any], token_id: str | None) -> bool | None:
    """Whether stored content hashes to the node's token id; None where it alone cannot tell."""
    cid = parse(token_id or "")
    if cid is None or record["ipfs_data"] is None:
        return False
    try:
        return matches(cid, decode_content(record["ipfs_data"]))
    except ValueError:
        return False
