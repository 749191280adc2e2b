"""From rows of a companion table and their keys to a finished record batch.

Texts are stored whole up to their column's size, as `rubix_token_sync.records.values` has
them; what does not fit is cut and flagged, as in a record.  An empty text is NULL: GORM writes
one for what is not set.

Everything here is a pure function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from rubix_token_sync.records import validate
from rubix_token_sync.records.companions import CompanionSource
from rubix_token_sync.records.schema import Column, RecordTable, SourceRow, SqliteValue
from rubix_token_sync.records.validate import Finding

__all__ = ["CompanionContext", "companion_batch", "empty_batch"]

_Findings = dict[int, list[Finding]]


@dataclass(frozen=True, slots=True)
class CompanionContext:
    """What all rows of one database have in common."""

    source_ip: str
    node_name: str
    db_path: str
    network: str | None


def empty_batch(table: RecordTable) -> pa.RecordBatch:
    """No rows of ``table``."""
    arrays = [pa.array([], column.type) for column in table.schema]
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)


def companion_batch(
    source: CompanionSource,
    rows: Sequence[SourceRow],
    keys: bytes,
    digests: bytes,
    context: CompanionContext,
) -> pa.RecordBatch:
    """``rows``, all of one of a node's tables, as ``source.target.schema`` has them.

    ``keys`` (24 bytes each) and ``digests`` (16 each) are the rows', one after the other.
    """
    table, count = source.target, len(rows)
    if not rows:
        return empty_batch(table)
    found: _Findings = {}
    values = dict(zip(table.source, zip(*rows, strict=True), strict=True))
    given = {
        "source_ip": context.source_ip,
        "node_name": context.node_name,
        "db_path": context.db_path,
        "network": context.network,
        **source.constants,
    }
    fixed = {"record_key": keys, "row_digest": digests}
    arrays: dict[str, pa.Array] = {}
    shared: list[Finding] = []
    for column in table.staged:
        name = column.name
        if name in fixed:
            data = pa.py_buffer(fixed[name])
            arrays[name] = pa.Array.from_buffers(column.arrow, count, [None, data])
        elif name in given:
            cell = validate.fit_to(name, given[name], column.size)
            shared.extend(cell.findings)
            arrays[name] = pa.repeat(pa.scalar(cell.text, pa.string()), count)
        elif name in values:
            judge = _JUDGES.get(column.kind)
            made = judge(column, values[name], found) if judge else values[name]
            arrays[name] = pa.array(made, column.arrow)
    errors = [validate.errors_text(shared, table.names)] * count
    for at, findings in found.items():
        errors[at] = validate.errors_text(findings + shared, table.names)
    arrays["validation_errors"] = pa.array(errors, pa.string())
    return pa.RecordBatch.from_arrays([arrays[name] for name in table.names], schema=table.schema)


def _texts(column: Column, values: Sequence[SqliteValue], found: _Findings) -> Sequence[str | None]:
    # Each text is judged once; 1 and 1.0 are one key of a dictionary, but not one text.
    repeated = set(values) if set(map(type, values)) == {str} else ()
    cells = {value: _cell(column, value) for value in repeated}
    texts = []
    for at, value in enumerate(values):
        cell = cells[value] if cells else _cell(column, value)
        texts.append(cell.text)
        if cell.findings:
            found.setdefault(at, []).extend(cell.findings)
    return texts


def _cell(column: Column, value: SqliteValue) -> validate.Cell:
    if value is None or value == "":
        return validate.Cell(None)
    return validate.fit_to(column.name, value, column.size)


def _times(column: Column, values: Sequence[SqliteValue], found: _Findings) -> Sequence[object]:
    times = []
    for at, value in enumerate(values):
        cell = validate.time(column.name, value)
        times.append(cell.time)
        if cell.findings:
            found.setdefault(at, []).extend(cell.findings)
    return times


_JUDGES: Final = {"text": _texts, "time": _times}
"""By kind of column; numbers and flags are this program's own, made of what was judged."""
