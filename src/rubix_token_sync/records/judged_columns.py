"""Columns of a node's rows, judged: the texts and times of records, and what was found in them.

Whole columns are proven clean by a few operations in C; only where that fails, or values
repeat, is a value looked at by itself, and once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import TypeAlias

import pyarrow as pa

from rubix_token_sync.records import validate
from rubix_token_sync.records.schema import COLUMN_SIZES, RECORD_SCHEMA, SqliteValue
from rubix_token_sync.records.validate import Cell, Finding, TimeCell

__all__ = [
    "Found",
    "Texts",
    "Values",
    "all_plain",
    "note",
    "opaque",
    "reals",
    "statuses",
    "texts_of",
    "times",
]

Found: TypeAlias = dict[int, list[Finding]]
"""By row."""
Values: TypeAlias = Sequence[SqliteValue]
Texts: TypeAlias = Sequence[str | None]


def note(found: Found, index: int, findings: Iterable[Finding]) -> None:
    """Add to what was found in a row."""
    found.setdefault(index, []).extend(findings)


def _one_by_one(
    values: Values, judge: Callable[[SqliteValue], Cell], found: Found
) -> list[str | None]:
    texts = []
    for index, value in enumerate(values):
        cell = judge(value)
        texts.append(cell.text)
        if cell.findings:
            note(found, index, cell.findings)
    return texts


def texts_of(values: Values, judge: Callable[[SqliteValue], Cell], found: Found) -> Texts:
    """A column in which values repeat: each is judged once.

    Only for text and NULL: 1 and 1.0 are one key of a dictionary, but not one text.
    """
    if not set(map(type, values)) <= {str, type(None)}:
        return _one_by_one(values, judge, found)
    cells = {value: judge(value) for value in set(values)}
    if all(cell.text is value and not cell.findings for value, cell in cells.items()):
        return values  # type: ignore[return-value] # text and None only, see above
    for index, value in enumerate(values):
        if cells[value].findings:
            note(found, index, cells[value].findings)
    return [cells[value].text for value in values]


def opaque(field: str, values: Values, found: Found) -> Texts:
    """A column of texts that hardly repeat and of which nothing is known; NULL where empty."""
    if set(map(type, values)) <= {str, type(None)}:
        present: list[str] = [*filter(None, values)]  # type: ignore[list-item] # text, see above
        if _fits(present, COLUMN_SIZES[field]):
            return [value or None for value in values]  # type: ignore[misc] # text, see above
    return texts_of(values, partial(validate.fit_or_empty, field), found)


def statuses(values: Values, judge: Callable[[SqliteValue], Cell], found: Found) -> Texts:
    """A column of integers, normally: 64 bits always fit, all are right."""
    if set(map(type, values)) == {int}:
        texts = {value: str(value) for value in set(values)}
        return [texts[value] for value in values]
    return texts_of(values, judge, found)


def reals(values: Values, judge: Callable[[SqliteValue], Cell], found: Found) -> Texts:
    """A column of reals, normally: `repr` is right but for exponents, inf and nan."""
    if set(map(type, values)) != {float}:
        return _one_by_one(values, judge, found)
    texts: list[str | None] = list(map(repr, values))
    joined = "".join(texts)  # type: ignore[arg-type] # all text so far
    if "e" in joined or "n" in joined:
        for index, text in enumerate(texts):
            if text is not None and ("e" in text or "n" in text):
                cell = judge(values[index])
                texts[index] = cell.text
                note(found, index, cell.findings)
    return texts


def all_plain(values: Values, size: int) -> bool:
    """All values are ASCII text without NUL, not empty, and fit into ``size``."""
    if set(map(type, values)) != {str}:
        return False
    texts: Sequence[str] = values  # type: ignore[assignment] # str only, see above
    return _fits(texts, size) and "" not in texts


def _fits(texts: Sequence[str], size: int) -> bool:
    """All are ASCII without NUL, and none is longer than ``size``."""
    joined = "".join(texts)
    return joined.isascii() and "\0" not in joined and max(map(len, texts), default=0) <= size


def times(field: str, values: Values, found: Found) -> pa.Array:
    """A column of times, in whatever forms nodes write them: UTC without a zone."""
    kind = RECORD_SCHEMA.field(field).type
    if values.count(None) == len(values):
        return pa.nulls(len(values), kind)
    times: list[datetime | None] = []
    for index, value in enumerate(values):
        cell: TimeCell = validate.time(field, value)
        times.append(cell.time)
        if cell.findings:
            note(found, index, cell.findings)
    return pa.array(times, kind)
