"""One database compared with what the target holds of it, record by record.

Both sides become the same 16-byte digest a record over every column that a
sync writes, computed from the stored values themselves (not from the stored
digest), so that a change behind the tool's back is found.  Content is read and
verified again by the local ways.
"""

from __future__ import annotations

import marshal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from rubix_token_sync.records.build import (
    VERDICT_COLUMNS,
    DatabaseContext,
    Judging,
    decode_content,
    finish_batch,
)
from rubix_token_sync.records.schema import RECORD_KEY_BYTES, RECORD_SCHEMA, ROW_DIGEST_BYTES
from rubix_token_sync.records.validate import without_sentences
from rubix_token_sync.runs.content import ContentOfRows
from rubix_token_sync.runs.jobs import Difference, Job, Tally
from rubix_token_sync.runs.known_rows import Known
from rubix_token_sync.runs.row_reader import DigestedRows
from rubix_token_sync.targets.base import Target

__all__ = ["Comparison", "held_records", "record_digests"]

_READ_ERROR: Final = FailureCode.READ_ERROR
_FOUND: Final = "validation_errors"
_CONTENT: Final = ("ipfs_data", "ipfs_fetched")
# What only says when and why something was written, or why there is no content.
_NOT_COMPARED: Final = frozenset({"record_key", "ipfs_error", "db_last_modified"})
_COMPARED: Final = tuple(name for name in RECORD_SCHEMA.names if name not in _NOT_COMPARED)


def _compared(name: str, value: Any) -> Any:
    """A value as it counts: of findings, not how this version words them."""
    return without_sentences(value) if name == _FOUND else value


def record_digests(batch: pa.RecordBatch, *, judged: bool) -> bytes:
    """16 bytes a record over all compared columns; over verdicts only where they are ``judged``.

    A token without content is judged where there is a table of ids, which this machine may
    not have: audits compare those verdicts.
    """
    columns = []
    for name in _COMPARED:
        column = batch.column(name)
        if name in VERDICT_COLUMNS:
            if not judged:
                continue
            column = pc.if_else(batch.column("ipfs_fetched"), column, None)
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        values = column.to_pylist()
        columns.append([_compared(name, value) for value in values] if name == _FOUND else values)
    return b"".join(
        [
            blake2b(marshal.dumps(row, 2), digest_size=ROW_DIGEST_BYTES).digest()
            for row in zip(*columns, strict=True)
        ]
    )


@dataclass
class Comparison:
    """One database of a node beside what the target holds of it.

    ``repair`` gets the records that are to be written so that both are equal
    again, each with the tally of its batch.  ``unverified`` counts contents that
    only the target has and that cannot be proven from them alone; ``unread`` says
    whether some could not be read now.
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

    def batch(self, rows: DigestedRows) -> tuple[Tally, tuple[Difference, ...]]:
        """Compare some rows, content read anew.

        Raises:
            TargetError: the target cannot be read, or takes no repair.
        """
        keys = rows.keys(self.job.database_key)
        resolved = self.chain.resolve(
            [row[0] if isinstance(row[0], str) else None for row in rows.rows]
        )
        fresh = finish_batch(
            rows.kind, rows.rows, keys, rows.digests, resolved, self.context, self.judge
        )
        self.unread |= any(f is not None and f.code is _READ_ERROR for f in resolved.failure)
        digests = record_digests(fresh, judged=self.judge is not None)
        there, same = self.held.match(keys, digests)
        found, kept = self._examine(fresh, there, np.flatnonzero(~same))
        tally = Tally(
            read=len(rows.rows),
            via=Counter(way for way in resolved.via if way),
            changed=len(found),
            new=sum(difference.letter == "+" for difference in found.values()),
            fetched=len(fresh) - resolved.data.count(None),
        )
        if self.repair is not None and found:
            for at, content in kept.items():
                resolved.data[at], resolved.failure[at] = content, None
            part = rows.take(np.array(list(found)))
            chosen = ContentOfRows(
                [resolved.data[i] for i in found], [resolved.failure[i] for i in found], []
            )
            part_keys = part.keys(self.job.database_key)
            records = finish_batch(
                part.kind, part.rows, part_keys, part.digests, chosen, self.context, self.judge
            )
            self.repair(tally, records)
        return tally, tuple(found.values())

    def _examine(
        self, fresh: pa.RecordBatch, there: NDArray[np.bool_], suspects: NDArray[np.int64]
    ) -> tuple[dict[int, Difference], dict[int, bytes]]:
        """What really differs among the records whose digests do, by position.

        Also the contents that only the target has, for those that are to stay.
        """
        found: dict[int, Difference] = {}
        kept: dict[int, bytes] = {}
        held = [int(i) for i in suspects if there[i]]
        keys = fresh.column("record_key")
        stored = self.target.records_by_key([keys[i].as_py() for i in held]) if held else {}
        path = self.job.node.db_path
        for i in suspects.tolist():
            row = {name: fresh.column(name)[i].as_py() for name in RECORD_SCHEMA.names}
            other = stored.get(row["record_key"])
            if other is None:
                found[i] = Difference("+", path, row["token_id"])
                continue
            # Where nobody has judged a stored record yet, the next audit does.
            judged = self.judge is not None and row["ipfs_fetched"] and other["verdict"] is not None
            columns = [
                name
                for name in _COMPARED
                if _compared(name, row[name]) != _compared(name, other[name])
                and (judged or name not in VERDICT_COLUMNS)
            ]
            if not row["ipfs_fetched"] and other["ipfs_fetched"]:
                # The target got it elsewhere or earlier; content is immutable, so it can be proven.
                proven = _proven(other, row["token_id"])
                self.unverified += proven is None
                if proven is not False:
                    kept[i] = decode_content(other["ipfs_data"])
                    columns = [c for c in columns if c not in (*_CONTENT, _FOUND)]
            if columns:
                only_content = set(columns) <= {*_CONTENT, _FOUND}
                letter: Literal["c", "*"] = "c" if only_content else "*"
                found[i] = Difference(letter, path, row["token_id"], tuple(columns))
        return found, kept

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
        keys += b"".join(batch.column("record_key").to_pylist())
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
