"""Every error, one line each, into a file.

The form follows the file's name: ``.csv``, else JSON lines.  JSON lines hold
every value as it is.  In CSV, a cell that a spreadsheet would take for a formula
begins with an apostrophe.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

import sqlalchemy as sa

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.monitor.answers import Answers
from rubix_token_sync.monitor.codes import code_of
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.text import cell

__all__ = ["EXPORT_COLUMNS", "export_errors", "iso"]

EXPORT_COLUMNS: Final = (
    "kind",
    "category",
    "code",
    "message",
    "at",
    "source_ip",
    "node_name",
    "db_path",
    "token_id",
    "occurrences",
    "session_id",
)
"""``kind`` is ``content`` and ``validation`` (one line a record) or ``event`` (SyncErrors)."""

_BLOCK: Final = 5_000


def iso(value: datetime | None) -> str | None:
    """UTC as RFC 3339 with milliseconds."""
    return None if value is None else value.isoformat(timespec="milliseconds") + "Z"


def export_errors(store: Answers, filters: Filters, now: datetime, path: Path) -> int:
    """Write every error that the filters let through; returns how many lines.

    The file appears when it is complete, readable by its owner only.

    Raises:
        SettingsError: the file cannot be written.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")  # `path` may be as long as it can be
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            count = _write(file, _lines(store, filters, now), as_csv=path.suffix.lower() == ".csv")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        _remove(temporary)
        raise SettingsError(
            f"{path} cannot be written: {error.strerror or error}.",
            code="export_unwritable",
            remedy="Choose another file by --export.",
        ) from error
    except BaseException:
        _remove(temporary)
        raise
    return count


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):  # what went wrong first counts
        file.unlink(missing_ok=True)


def _write(file: IO[str], lines: Iterator[Mapping[str, Any]], *, as_csv: bool) -> int:
    count = 0
    if as_csv:
        table = csv.writer(file)
        table.writerow(EXPORT_COLUMNS)
        for line in lines:
            table.writerow([cell(line[name]) for name in EXPORT_COLUMNS])
            count += 1
        return count
    for line in lines:
        # ASCII: a lone surrogate or a line separator in a value cannot break the file.
        file.write(json.dumps(line) + "\n")
        count += 1
    return count


def _lines(store: Answers, filters: Filters, now: datetime) -> Iterator[dict[str, Any]]:
    if filters.category in (None, "ipfs"):
        yield from _records(store, filters, now, "content", "ipfs", "ipfs_error")
    if filters.category in (None, "validation"):
        yield from _records(store, filters, now, "validation", "validation", "validation_errors")
    yield from _events(store, filters, now)


def _records(
    store: Answers, filters: Filters, now: datetime, kind: str, category: str, column: str
) -> Iterator[dict[str, Any]]:
    records = store.tables.records
    text = records.c[column]
    code: sa.ColumnElement[Any] = sa.null()
    if kind == "content":
        code = code_of(text)
    query = sa.select(
        records.c.id.label("id"),
        records.c.synced_at.label("at"),
        *(records.c[name] for name in ("source_ip", "node_name", "db_path", "token_id")),
        text.label("message"),
        code.label("code"),
    ).where(
        text.is_not(None),
        records.c.source_deleted_at.is_(None),
        *filters.by(records, now, time="synced_at"),
    )
    if kind == "content":
        query = query.where(records.c.ipfs_fetched == sa.false())
    for row in _paged(store, query, records.c.id):
        codes = [row.code] if kind == "content" else _codes(row.message)
        for found in codes:
            yield {
                "kind": kind,
                "category": category,
                "code": found,
                "message": row.message,
                "at": iso(row.at),
                "source_ip": row.source_ip,
                "node_name": row.node_name,
                "db_path": row.db_path,
                "token_id": row.token_id,
                "occurrences": 1,
                "session_id": None,
            }


def _codes(message: str) -> list[str]:
    """The codes of a record's ``validation_errors``; of another program's text, ``other``."""
    try:
        found = json.loads(message)
        codes = [str(entry["code"]) for entry in found]
    except (ValueError, TypeError, KeyError):
        return ["other"]
    return codes or ["other"]


def _events(store: Answers, filters: Filters, now: datetime) -> Iterator[dict[str, Any]]:
    errors = store.tables.errors
    query = sa.select(errors).where(*filters.by(errors, now, time="occurred_at"))
    if filters.category:
        query = query.where(errors.c.category == filters.category)
    for row in _paged(store, query, errors.c.id):
        yield {
            "kind": "event",
            "category": row.category,
            "code": row.code,
            "message": row.message,
            "at": iso(row.occurred_at),
            "source_ip": row.source_ip,
            "node_name": row.node_name,
            "db_path": row.db_path,
            "token_id": row.token_id,
            "occurrences": row.occurrences,
            "session_id": str(row.session_id),
        }


def _paged(
    store: Answers, query: sa.Select[Any], key: sa.ColumnElement[int]
) -> Iterator[sa.Row[Any]]:
    """In order of the key, block by block: no cursor stays open while the file is written."""
    after: int | None = None
    while True:
        part = query.order_by(key).limit(_BLOCK)
        if after is not None:
            part = part.where(key > after)
        block = store.read(lambda conn, q=part: conn.execute(q).all())  # type: ignore[misc]
        yield from block
        if len(block) < _BLOCK:
            return
        after = block[-1].id
