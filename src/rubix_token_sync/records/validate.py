"""What is wrong with a record, as codes and words, and what is stored instead.

`fit` and the functions named after columns take a value as SQLite has it and
give back a `Cell`: what the target stores, and what is wrong with it.  A value is
never dropped and a record is never refused: what does not fit its column is cut,
and the finding keeps the whole value (above 50 KB its length and SHA-256).

``validation_errors`` is the JSON list of a record's findings, in the order of
the table's columns, then of codes; NULL when nothing is wrong:

    [{"code":"did_malformed","field":"did","message":"did is not …"}]

``value`` is there where the column does not hold the whole original.

Decisions where the sources are silent:

* An integer in ``token_status`` is never wrong: node software uses 0 to 16, other
  integers are an operator's own marker (2302 has been seen).
* An empty text means 'nothing there' (GORM writes it for a string not set): normal
  in ``parent_token_id`` and in times, missing data in the other columns.
* A NULL is missing data only where the node's table has that column.
* ``token_value`` has no size in the target; text above 50 KB is cut all the same,
  to bound memory.
* DIDs are labels, nothing is ever fetched by them: their shape is checked, not
  their bits.

Everything here is a pure function.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from math import isfinite
from typing import Final, NamedTuple

from rubix_token_sync.ipfs import cid
from rubix_token_sync.ipfs.content import CONTENT_LIMIT, Failure, FailureCode
from rubix_token_sync.records.schema import COLUMN_SIZES, RECORDS, SqliteValue
from rubix_token_sync.records.values import cut, to_text, utc_time, utf16_length

__all__ = [
    "LEVELS",
    "TOKEN_VALUE_LIMIT",
    "VALUE_LIMIT",
    "Cell",
    "Code",
    "Finding",
    "TimeCell",
    "attributes",
    "did",
    "errors_text",
    "fit",
    "fit_or_empty",
    "fit_to",
    "parent_token_id",
    "time",
    "token_content",
    "token_id",
    "token_status",
    "token_value",
    "without_sentences",
]

VALUE_LIMIT: Final = CONTENT_LIMIT
"""A finding keeps the whole value up to this many bytes of UTF-8."""

TOKEN_VALUE_LIMIT: Final = CONTENT_LIMIT
"""``token_value`` is cut at this many UTF-16 code units."""

LEVELS: Final = range(1, 79)
"""Levels of whole tokens that exist (the table of limits ends at 78)."""


class Code(StrEnum):
    """What can be wrong with a record; a contract: codes are added, never changed."""

    TOKEN_ID_MISSING = "token_id_missing"  # noqa: S105 - no password
    TOKEN_ID_TOO_LONG = "token_id_too_long"  # noqa: S105 - no password
    TOKEN_ID_NOT_CID = "token_id_not_cid"  # noqa: S105 - no password
    DID_MISSING = "did_missing"
    DID_MALFORMED = "did_malformed"
    TOKEN_STATUS_MISSING = "token_status_missing"  # noqa: S105 - no password
    TOKEN_STATUS_UNKNOWN = "token_status_unknown"  # noqa: S105 - no password
    TOKEN_VALUE_MISSING = "token_value_missing"  # noqa: S105 - no password
    TOKEN_VALUE_NOT_NUMBER = "token_value_not_number"  # noqa: S105 - no password
    PARENT_MALFORMED = "parent_malformed"
    TIMESTAMP_UNREADABLE = "timestamp_unreadable"
    VALUE_NOT_TEXT = "value_not_text"
    VALUE_TOO_LONG = "value_too_long"
    CONTENT_TOO_LARGE = "content_too_large"
    CONTENT_NOT_TEXT = "content_not_text"
    LEVEL_INVALID = "level_invalid"
    CONTENT_NOT_OF_KIND = "content_not_of_kind"
    PARENT_DIFFERS = "parent_differs"
    TOKEN_VALUE_DIFFERS = "token_value_differs"  # noqa: S105 - no password
    FT_NAME_DIFFERS = "ft_name_differs"
    CREATOR_DIFFERS = "creator_differs"
    CONTRACT_HASH_DIFFERS = "contract_hash_differs"


class Finding(NamedTuple):
    """One thing that is wrong with one record.

    ``message`` is what is said of ``field``: 'is missing'.  ``value`` is the whole
    original where ``field`` does not hold it, and ``digest`` its number of bytes and
    their SHA-256 where it is larger than `VALUE_LIMIT`: a batch may have many of them.
    """

    code: Code
    field: str
    message: str
    value: str | None = None
    digest: tuple[int, str] | None = None


class Cell(NamedTuple):
    """What a text column stores for one value, and what is wrong with it."""

    text: str | None
    findings: tuple[Finding, ...] = ()


class TimeCell(NamedTuple):
    """What a time column stores for one value, and what is wrong with it."""

    time: datetime | None
    findings: tuple[Finding, ...] = ()


def fit(field: str, value: SqliteValue) -> Cell:
    """``value`` as text that fits the column ``field``; sizes are `COLUMN_SIZES`."""
    size = TOKEN_VALUE_LIMIT if field == "token_value" else COLUMN_SIZES[field]
    return fit_to(field, value, size)


def fit_to(field: str, value: SqliteValue, size: int | None) -> Cell:
    """``value`` as text of at most ``size`` UTF-16 code units; None: of any length."""
    text = to_text(value)
    if text is None:
        return Cell(None)
    findings: tuple[Finding, ...] = ()
    if isinstance(value, bytes) or (isinstance(value, str) and text is not value):
        message = "is binary or not valid UTF-8 and is stored as a blob literal"
        findings = (Finding(Code.VALUE_NOT_TEXT, field, message),)
    stored = text if size is None else cut(text, size)
    if stored is text:
        return Cell(text, findings)
    code = Code.TOKEN_ID_TOO_LONG if field == "token_id" else Code.VALUE_TOO_LONG
    message = f"has {utf16_length(text)} characters and is cut to {size}"
    return Cell(stored, (*findings, _whole(code, field, message, text)))


def _whole(code: Code, field: str, message: str, text: str) -> Finding:
    """A finding that keeps the whole value, or what identifies it."""
    data = text.encode()
    if len(data) <= VALUE_LIMIT:
        return Finding(code, field, message, text)
    return Finding(code, field, message, digest=(len(data), sha256(data).hexdigest()))


def _with(cell: Cell, code: Code, field: str, message: str) -> Cell:
    return Cell(cell.text, (*cell.findings, Finding(code, field, message)))


def token_id(value: SqliteValue, *, is_cid: bool) -> Cell:
    """The token id; ``is_cid`` says whether it parses as a CID (`cid.parse`)."""
    if value is None or value == "":
        return _with(fit("token_id", value), Code.TOKEN_ID_MISSING, "token_id", "is missing")
    cell = fit("token_id", value)
    if is_cid:
        return cell
    return _with(cell, Code.TOKEN_ID_NOT_CID, "token_id", "is not an IPFS content identifier")


# `bafybmi` is CIDv1, dag-pb, sha3-256, in base32: 59 characters.  Legacy ones are
# CIDv0.  The third is the general syntax of DID Core 3.1 with the method `rubix`.
_DID: Final = re.compile(
    r"bafybmi[a-z2-7]{52}"
    r"|Qm[1-9A-HJ-NP-Za-km-z]{44}"
    r"|did:rubix:(?:[A-Za-z0-9._:-]|%[0-9A-Fa-f]{2})*(?:[A-Za-z0-9._-]|%[0-9A-Fa-f]{2})"
)


def did(value: SqliteValue, *, exists: bool = True) -> Cell:
    """The owner's DID; ``exists``: the node's table has the column."""
    cell = fit("did", value)
    if value is None or value == "":
        if exists:
            return _with(cell, Code.DID_MISSING, "did", "is missing")
    elif not isinstance(value, str) or not _DID.fullmatch(value):
        return _with(cell, Code.DID_MALFORMED, "did", "is not a DID of any known form")
    return cell


_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def token_status(value: SqliteValue, *, exists: bool = True) -> Cell:
    """The token's status; any integer is one, also as text of digits."""
    cell = fit("token_status", value)
    if value is None or value == "":
        if exists:
            return _with(cell, Code.TOKEN_STATUS_MISSING, "token_status", "is missing")
    elif not isinstance(value, int) and not (isinstance(value, str) and _INTEGER.fullmatch(value)):
        return _with(cell, Code.TOKEN_STATUS_UNKNOWN, "token_status", "is not a whole number")
    return cell


def token_value(value: SqliteValue, *, exists: bool = True) -> Cell:
    """The token's value: a finite number, also as text of one."""
    cell = fit("token_value", value)
    if value is None or value == "":
        if exists:
            return _with(cell, Code.TOKEN_VALUE_MISSING, "token_value", "is missing")
        return cell
    if isinstance(value, str):
        good = len(value) <= 1000 and _NUMBER.fullmatch(value) is not None
    else:
        good = isinstance(value, int) or (isinstance(value, float) and isfinite(value))
    if good:
        return cell
    return _with(cell, Code.TOKEN_VALUE_NOT_NUMBER, "token_value", "is not a number")


def parent_token_id(value: SqliteValue) -> Cell:
    """The token this one is a part of; NULL and empty for whole tokens."""
    cell = fit("parent_token_id", value)
    if value is None or value == "":
        return cell
    if isinstance(value, str) and cid.parse(value) is not None:
        return cell
    message = "is not an IPFS content identifier"
    return _with(cell, Code.PARENT_MALFORMED, "parent_token_id", message)


def fit_or_empty(field: str, value: SqliteValue) -> Cell:
    """A text of which nothing is known; empty (as GORM writes what is not set) is NULL."""
    return Cell(None) if value == "" else fit(field, value)


_ATTRIBUTE_UNITS: Final = 2_000


def attributes(values: Mapping[str, SqliteValue]) -> dict[str, str]:
    """What a row says of attributes, as texts.

    A value longer than 2,000 UTF-16 code units is cut: no column of a node that is read
    for it holds more than some hundred.
    """
    texts = {name: to_text(value) for name, value in values.items()}
    return {name: cut(text, _ATTRIBUTE_UNITS) for name, text in texts.items() if text is not None}


def time(field: str, value: SqliteValue) -> TimeCell:
    """``created_at`` or ``updated_at`` as UTC; what names no time becomes NULL."""
    if value is None or value == "":
        return TimeCell(None)
    moment = utc_time(value)
    if moment is not None:
        return TimeCell(moment)
    message = "is not a readable time in the years 1 to 9999; NULL is stored"
    return TimeCell(
        None, (_whole(Code.TIMESTAMP_UNREADABLE, field, message, to_text(value) or ""),)
    )


# --- content ---------------------------------------------------------------

_TOO_LARGE: Final = frozenset({FailureCode.TOO_LARGE, FailureCode.TOO_LARGE_TO_STORE})
# Level, then sha256 of the token number in hex.  Old software wrote two digits.
_WHOLE_TOKEN: Final = re.compile(rb"([0-9]{2,3})[0-9a-f]{64}\n?")


def token_content(
    data: bytes | None, failure: Failure | None, *, text: bool
) -> tuple[Finding, ...]:
    """What is wrong with a token's content; ``text``: it is stored as text."""
    if data is None:
        if failure is not None and failure.code in _TOO_LARGE:
            message = f"is not stored: the content is larger than {CONTENT_LIMIT} bytes"
            return (Finding(Code.CONTENT_TOO_LARGE, "ipfs_data", message),)
        return ()
    if not text:
        message = "is not valid UTF-8 and is stored as a data: URL in base64"
        return (Finding(Code.CONTENT_NOT_TEXT, "ipfs_data", message),)
    whole = _WHOLE_TOKEN.fullmatch(data)
    if whole and int(whole[1]) not in LEVELS:
        message = f"is a whole token of level {int(whole[1])}; levels are 1 to {LEVELS[-1]}"
        return (Finding(Code.LEVEL_INVALID, "ipfs_data", message),)
    return ()


# --- JSON ------------------------------------------------------------------

_ORDER: Final[Sequence[str]] = RECORDS.names


def errors_text(findings: Iterable[Finding], order: Sequence[str] = _ORDER) -> str | None:
    """``validation_errors`` of one record: compact JSON, None when nothing is wrong.

    ``order`` are the columns of its table.
    """
    entries = []
    for finding in sorted(findings, key=lambda f: (order.index(f.field), f.code)):
        entry: dict[str, str | int] = {
            "code": finding.code.value,
            "field": finding.field,
            "message": f"{finding.field} {finding.message}",
        }
        if finding.value is not None:
            entry["value"] = finding.value
        if finding.digest is not None:
            entry["value_bytes"], entry["value_sha256"] = finding.digest
        entries.append(entry)
    if not entries:
        return None
    return json.dumps(entries, ensure_ascii=False, separators=(",", ":"))


def without_sentences(text: str | None) -> str | None:
    """``validation_errors`` without its sentences, to compare what two versions found.

    A later version of this program may word a sentence differently; code, field and value
    are the finding.  What is not such a list is returned as it is.
    """
    if text is None:
        return None
    try:
        entries = json.loads(text)
        bare = [{k: v for k, v in entry.items() if k != "message"} for entry in entries]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return text
    return json.dumps(bare, ensure_ascii=False, sort_keys=True)
