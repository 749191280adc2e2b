"""Rows of a database in bounded parts, and what is published of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import pyarrow as pa

from rubix_token_sync.migrate.report import DatabaseOutcome
from rubix_token_sync.migrate.rows import COLUMNS, Aside, Digest, Moved, Record
from rubix_token_sync.migrate.source import PlannedDatabase
from rubix_token_sync.records.schema import RECORD_SCHEMA
from rubix_token_sync.targets.base import ChainsMark, DatabaseMark

__all__ = ["Part", "batch_of", "mark_of", "parts_of"]

_PART_ROWS: Final = 2_500
_PART_BYTES: Final = 3_000_000
_LONG_AGO: Final = datetime(1970, 1, 1)


@dataclass
class Part:
    """Some rows of a database that are published together."""

    moved: list[Moved]

    @property
    def records(self) -> list[Record]:
        """What goes into the table of records."""
        return [one.record for one in self.moved if one.record is not None]

    @property
    def asides(self) -> list[Aside]:
        """What is kept aside."""
        return [one.aside for one in self.moved if one.aside is not None]

    @property
    def vanished(self) -> bytes:
        """Keys of the records that the source's nodes no longer have."""
        return b"".join(one.record[0] for one in self.moved if one.vanished and one.record)


def parts_of(rows: Iterator[Moved], read: Digest, outcome: DatabaseOutcome) -> Iterator[Part]:
    """Rows in bounded parts; counts and sums them up on the way."""
    content = COLUMNS["ipfs_data"]
    part: list[Moved] = []
    size = 0
    for moved in rows:
        read.add(moved.row_hash)
        outcome.rows_read += 1
        outcome.contents_adopted += moved.adopted
        outcome.contents_refused += moved.content_refused
        if moved.aside is not None:
            reason = moved.aside.reason
            outcome.duplicates_merged += reason == "duplicate"
            outcome.rows_refused += reason == "refused"
            outcome.rows_changed += reason in ("changed", "healed")
            size += len(moved.aside.row)
        if moved.record is not None:
            size += len(moved.record[content] or "")
        part.append(moved)
        if len(part) >= _PART_ROWS or size >= _PART_BYTES:
            yield Part(part)
            part, size = [], 0
    if part:
        yield Part(part)


def batch_of(records: list[Record]) -> pa.RecordBatch:
    """The records as a store takes them."""
    columns: list[Any] = list(zip(*records, strict=True)) or [()] * len(RECORD_SCHEMA)
    arrays = [
        pa.array(values, field.type) for values, field in zip(columns, RECORD_SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=RECORD_SCHEMA)


def mark_of(
    database: PlannedDatabase, outcome: DatabaseOutcome, last: Record | None, vanished: int
) -> DatabaseMark:
    """A mark that makes the next sync read the database, unless the source knew better."""
    state = database.state
    common: dict[str, Any] = {
        "database_key": database.key,
        "source_ip": database.source_ip[:45],
        "db_path": database.db_path,
        "record_count": outcome.rows_stored - vanished,
        "rejected_count": outcome.rows_refused,
        "processing_duration_seconds": outcome.seconds,
    }
    if state is not None:
        return DatabaseMark(
            **common,
            node_name=state.node_name or "",
            ipfs_path=state.ipfs_path,
            fingerprint=state.fingerprint,
            repository_fingerprint=state.repository_fingerprint,
            last_modified=state.last_modified,
            chains=ChainsMark(state.chains_fingerprint, state.chains_error)
            if state.chains_read_at is not None
            else None,
        )
    return DatabaseMark(
        **common,
        node_name=last[COLUMNS["node_name"]] if last else "",
        ipfs_path=last[COLUMNS["ipfs_path"]] if last else None,
        fingerprint=None,
        repository_fingerprint=None,
        last_modified=database.last_modified
        or (last[COLUMNS["db_last_modified"]] if last else _LONG_AGO),
        content_checked=False,
    )
