"""One database compared with what the target holds of it, record by record.

Both sides become the same 16-byte digest a record over every column that a
sync writes, computed from the stored values themselves (not from the stored
digest), so that a change behind the tool's back is found.  Content is read and
verified again by the local ways.
"""

from __future__ import annotations

import marshal
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa

from rubix_token_sync.ipfs.cid import parse
from rubix_token_sync.ipfs.fetch import ContentChain
from rubix_token_sync.ipfs.unixfs import matches
from rubix_token_sync.nodes.snapshot import open_snapshot
from rubix_token_sync.records.build import decode_content, finish_batch
from rubix_token_sync.records.schema import RECORD_KEY_BYTES, RECORD_SCHEMA, ROW_DIGEST_BYTES
from rubix_token_sync.runs.content_access import open_patiently
from rubix_token_sync.runs.jobs import (
    Difference,
    Job,
    RowsRead,
    Send,
    Summary,
    Tally,
    WorkerContext,
)
from rubix_token_sync.runs.known_rows import Known
from rubix_token_sync.runs.row_reader import DigestedRows, RowReader, database_context
from rubix_token_sync.targets.base import Target

__all__ = ["compare_database", "record_digests"]

_CONTENT: Final = ("ipfs_data", "ipfs_fetched")
# What only says when and why something was written, or why there is no content.
_NOT_COMPARED: Final = frozenset({"record_key", "ipfs_error", "db_last_modified"})
_COMPARED: Final = tuple(name for name in RECORD_SCHEMA.names if name not in _NOT_COMPARED)


def record_digests(batch: pa.RecordBatch) -> bytes:
    """16 bytes a record over all compared columns."""
    columns = []
    for name in _COMPARED:
        column = batch.column(name)
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        columns.append(column.to_pylist())
    return b"".join(
        [
            blake2b(marshal.dumps(row, 2), digest_size=ROW_DIGEST_BYTES).digest()
            for row in zip(*columns, strict=True)
        ]
    )


def compare_database(job: Job, store: Target, shared: WorkerContext, send: Send) -> Summary:
    """Compare; differences go out as reports, the counts come back.

    Raises:
        SourceError: the database cannot be read.
        TargetError: the target cannot be read.
    """
    started = time.monotonic()
    held = _held(job, store)
    unverified = 0
    with open_snapshot(job.node.db_path, shared.scratch) as snapshot:
        context = database_context(job, snapshot)
        reader = RowReader(job, snapshot, shared.target_options.batch_size)
        chain = open_patiently(job.node.repository, shared.content)
        try:
            for rows in reader:
                if not rows.rows:
                    continue
                fresh, via = _fresh(rows, job, chain, context)
                keys = b"".join(fresh.column("record_key").to_pylist())
                there, same = held.match(keys, record_digests(fresh))
                found, doubts = _examine(fresh, there, np.flatnonzero(~same), store)
                unverified += doubts
                tally = Tally(read=len(rows.rows), via=via, changed=len(found))
                send(RowsRead(job.number, tally, snapshot.count, tuple(found)))
        finally:
            chain.close()
        vanished = held.vanished()
        for lost in _vanished(vanished, job, store):
            send(RowsRead(job.number, Tally(), snapshot.count, (lost,)))
        return Summary(
            records=reader.distinct,
            vanished=len(vanished) // RECORD_KEY_BYTES,
            rejected=reader.rejected,
            seconds=time.monotonic() - started,
            unverified=unverified,
        )


def _held(job: Job, store: Target) -> Known:
    if not job.read_known:
        return Known(b"", b"")
    keys, digests = bytearray(), bytearray()
    for batch in store.stored_records(job.database_key):
        keys += b"".join(batch.column("record_key").to_pylist())
        digests += record_digests(batch)
    return Known(bytes(keys), bytes(digests))


def _fresh(
    rows: DigestedRows, job: Job, chain: ContentChain, context: Any
) -> tuple[pa.RecordBatch, Counter[str]]:
    """The records as a sync would finish them now, content read anew."""
    ids = [row[0] if isinstance(row[0], str) else None for row in rows.rows]
    resolved = chain.resolve(ids)
    keys = rows.keys(job.database_key)
    batch = finish_batch(rows.rows, keys, rows.digests, resolved, context)
    return batch, Counter(way for way in resolved.via if way)


def _examine(
    fresh: pa.RecordBatch, there: np.ndarray, suspects: np.ndarray, store: Target
) -> tuple[list[Difference], int]:
    """What really differs among the records whose digests do, and how many are in doubt."""
    path = fresh.column("db_path")
    found: list[Difference] = []
    doubts = 0
    held = [int(i) for i in suspects if there[i]]
    keys = fresh.column("record_key")
    stored = store.records_by_key([keys[i].as_py() for i in held]) if held else {}
    for i in suspects.tolist():
        row = {name: fresh.column(name)[i].as_py() for name in RECORD_SCHEMA.names}
        other = stored.get(row["record_key"])
        if other is None:
            found.append(Difference("+", path[i].as_py(), row["token_id"]))
            continue
        columns = [name for name in _COMPARED if row[name] != other[name]]
        if not row["ipfs_fetched"] and other["ipfs_fetched"]:
            # The target got it elsewhere or earlier; content is immutable, so it can be proven.
            proven = _proven(other)
            doubts += proven is None
            if proven is not False:
                columns = [c for c in columns if c not in (*_CONTENT, "validation_errors")]
        if columns:
            only_content = set(columns) <= {*_CONTENT, "validation_errors"}
            letter: Literal["c", "*"] = "c" if only_content else "*"
            found.append(Difference(letter, path[i].as_py(), row["token_id"], tuple(columns)))
    return found, doubts


def _proven(record: dict[str, Any]) -> bool | None:
    """Whether stored content hashes to its token id; None where that cannot be told from it."""
    cid = parse(record["token_id"] or "")
    if cid is None or record["ipfs_data"] is None:
        return False
    try:
        return matches(cid, decode_content(record["ipfs_data"]))
    except ValueError:
        return False


def _vanished(keys: bytes, job: Job, store: Target) -> Iterable[Difference]:
    split: Sequence[bytes] = [
        keys[i : i + RECORD_KEY_BYTES] for i in range(0, len(keys), RECORD_KEY_BYTES)
    ]
    for start in range(0, len(split), 500):
        records = store.records_by_key(split[start : start + 500])
        for record in records.values():
            yield Difference("-", job.node.db_path, record["token_id"])
