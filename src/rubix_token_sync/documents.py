"""The JSON documents and CSV rows of docs/JSON.md: made here for the command line and the page.

A command's ``--json`` and the page's ``.json`` are the same function of the same answer.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import rubix_token_sync as rts

if TYPE_CHECKING:
    from rubix_token_sync import (
        AuditRow,
        Change,
        ChangeCounts,
        ChangeFeed,
        DatabaseRow,
        FailureReport,
        Finding,
        Problem,
        RunRow,
        Status,
        TargetReader,
        TokenView,
        Trend,
        Version,
    )

__all__ = [
    "changes_document",
    "columns_of",
    "csv_head",
    "csv_lines",
    "csv_text",
    "databases_document",
    "errors_document",
    "findings_document",
    "sessions_document",
    "status_document",
    "to_json",
    "token_document",
    "versions_document",
]

Document = dict[str, Any]


def _asked(target: TargetReader) -> Document:
    """Who answered, and when by its clock."""
    return {"server_time": target.server_time(), "target": target.place}


def status_document(target: TargetReader, found: Status) -> Document:
    """`status`."""
    return {
        "ok": found.ok,
        "exit_code": found.exit_code,
        "server_time": found.server_time,
        "target": target.place,
        "problems": found.problems,
        "running": found.running,
        "sources": found.sources,
        "records_by_kind": found.records_by_kind,
        "audit": found.audit,
    }


def sessions_document(target: TargetReader, found: Sequence[RunRow], trend: Trend) -> Document:
    """`sessions`."""
    return {**_asked(target), "sessions": list(found), "trend": trend}


def databases_document(
    target: TargetReader, rows: Sequence[DatabaseRow], problems: Sequence[Problem]
) -> Document:
    """`databases`; ``problems`` are those of every database, whichever rows are listed."""
    exit_code = 1 if any(problem.severity == "error" for problem in problems) else 0
    return {
        "ok": exit_code == 0,
        "exit_code": exit_code,
        **_asked(target),
        "databases": list(rows),
        "problems": list(problems),
    }


def errors_document(
    target: TargetReader, found: FailureReport, exported: Mapping[str, Any] | None = None
) -> Document:
    """`errors`."""
    return {**_asked(target), **asdict(found), "exported": exported}


def findings_document(
    target: TargetReader, audits: Sequence[AuditRow], found: Sequence[Finding]
) -> Document:
    """`findings`; ``audits`` begin with the last one."""
    return {**_asked(target), "audit": audits[0] if audits else None, "findings": list(found)}


def token_document(found: TokenView) -> Document:
    """`token`."""
    return {
        "token_id": found.token_id,
        "content": found.content,
        "holders": found.holders,
        "findings": found.findings,
    }


def versions_document(target: TargetReader, token_id: str, found: Sequence[Version]) -> Document:
    """`history TOKEN`."""
    return {**_asked(target), "token_id": token_id, "versions": list(found)}


def changes_document(
    target: TargetReader,
    feed: ChangeFeed,
    counts: Sequence[ChangeCounts],
    rows: Sequence[Change],
) -> Document:
    """`changes`."""
    return {
        **_asked(target),
        "since": feed.since,
        "cursor": feed.cursor,
        "nodes": list(counts),
        "changes": list(rows),
    }


# --- plain values -------------------------------------------------------------------------


def to_json(value: Any) -> Any:
    """Plain JSON values: dataclasses are taken apart, times are RFC 3339 in UTC."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds") + "Z"
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def columns_of(row: type[Any]) -> list[str]:
    """The keys of a row, which are its columns in CSV."""
    return [field.name for field in fields(row)]


def csv_head(kind: type[Any]) -> str:
    """The first line of CSV."""
    return _csv([columns_of(kind)])


def csv_lines(kind: type[Any], rows: Iterable[Any]) -> str:
    """One line a row, as the command line has them; nested values are JSON."""
    names = columns_of(kind)
    return _csv(
        [
            rts.json_text(values[name], indent=None)
            if isinstance(values[name], dict | list)
            else rts.cell(values[name])
            for name in names
        ]
        for values in map(to_json, rows)
    )


def csv_text(kind: type[Any], rows: Iterable[Any]) -> str:
    """A header and one line a row."""
    return csv_head(kind) + csv_lines(kind, rows)


def _csv(lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
