"""Rows of the older system: how they become records.

What a record holds must be found again in the row, or the row is set aside in
full.  Three things are the same on purpose, because the older system wrote them
for something else: a placeholder (``c not found``) is not a value, an empty list of
validation errors is none, and a content that hashes to its token id is that
content, whatever the row says about having fetched it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any, Final, NamedTuple

from rubix_token_sync.ipfs import cid, unixfs
from rubix_token_sync.ipfs.content import CONTENT_LIMIT, Failure, FailureCode
from rubix_token_sync.migrate.rows import COLUMNS, Aside, Moved, Record, hash_of
from rubix_token_sync.records.content_text import decode_content, encode_content
from rubix_token_sync.records.kinds import RBT
from rubix_token_sync.records.schema import COLUMN_SIZES, ROW_DIGEST_BYTES, database_key, record_key
from rubix_token_sync.records.values import blob_literal, cut, utc_time

__all__ = ["OLDER_COLUMNS", "OlderForm", "OlderRow"]

Text = str | bytes | None
"""A column as text; bytes where they are no text in the source's encoding."""


class OlderRow(NamedTuple):
    """One row of the older system's ``tokenrecords``, every column as text."""

    id: Text
    source_ip: Text
    node_name: Text
    did: Text
    token_id: Text
    created_at: Text
    updated_at: Text
    token_status: Text
    parent_token_id: Text
    token_value: Text
    ipfs_data: Text
    ipfs_fetched: Text
    ipfs_error: Text
    db_path: Text
    ipfs_path: Text
    db_last_modified: Text
    validation_errors: Text


OLDER_COLUMNS: Final = OlderRow._fields
"""What is read of the older table, in this order; columns it lacks are NULL."""

_UNKNOWN_DIGEST: Final = bytes(ROW_DIGEST_BYTES)  # equals no real one: a sync compares anew
_LONG_AGO: Final = datetime(1970, 1, 1)
_TRUE: Final = frozenset({"true", "t", "1", "yes", "y", "on"})
_WRAPPED: Final = "older_system"
_HAS_ZONE: Final = re.compile(r"(?:Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)\s*$|^\s*-?[\d.]+\s*$")
_NOT_ADOPTED: Final = str(
    Failure(
        FailureCode.NOT_ADOPTED,
        "the older system's content is not what the token id names; it is set aside",
    )
)
_TOO_LARGE: Final = str(
    Failure(FailureCode.TOO_LARGE, f"the content is larger than {CONTENT_LIMIT:,} bytes")
)
_LOST: Final = str(
    Failure(FailureCode.NOT_ADOPTED, "the older system said fetched, but holds no content")
)


class OlderForm:
    """Turns rows into records; ``zone`` is what times without a zone were written in."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone
        self._utc = lru_cache(maxsize=4_096)(self._utc_time)
        self._database = lru_cache(maxsize=64)(database_key)

    # ---------------------------------------------------------------- rows to records

    def move(self, rows: Iterable[OlderRow]) -> Iterator[Moved]:
        """Rows of one database, equal token ids together, the newest of them first.

        The newest becomes the record, with its own content or, where that is not
        proven, the first proven content of a duplicate.  However many duplicates
        there are, only the newest row waits.
        """
        waiting: OlderRow | None = None
        current: Text = None
        key: bytes | None = None
        nulls = 0
        for row in rows:
            content = self._proven(row)
            if row.token_id is not None and row.token_id == current:
                aside = Aside("duplicate", (), _number(row.id), key, _json(row))
                yield Moved(hash_of(self._canonical(row, content is not None)), None, aside)
                if waiting is not None and content is not None:
                    yield self._move_one(waiting, content, 0, healed=True)
                    waiting = None
                continue
            if waiting is not None:
                yield self._move_one(waiting, None, 0)
                waiting = None
            current = row.token_id
            if current is None:
                yield self._move_one(row, None, nulls)
                nulls += 1
                continue
            key = self._key(row, 0) if _has_home(row) else None
            if content is not None:
                yield self._move_one(row, content, 0)
            else:
                waiting = row
        if waiting is not None:
            yield self._move_one(waiting, None, 0)

    def _move_one(
        self, row: OlderRow, content: str | None, occurrence: int, *, healed: bool = False
    ) -> Moved:
        own = self._canonical(row, content is not None and not healed)
        if not _has_home(row):
            return self.homeless(row)
        record = self._record(row, content, occurrence)
        stored = self._stored_canonical(record, proven=content is not None)
        aside = None
        if own != stored:
            changed = tuple(
                name for name, a, b in zip(_CANONICAL, own, stored, strict=True) if a != b
            )
            reason = "healed" if healed else "changed"
            aside = Aside(reason, changed, _number(row.id), record[0], _json(row))
        return Moved(
            hash_of(own),
            record,
            aside,
            adopted=content is not None,
            content_refused=content is None and bool(row.ipfs_data),
            original=row,
        )

    def _key(self, row: OlderRow, occurrence: int) -> bytes:
        return record_key(self._database(row.source_ip, row.db_path), row.token_id, occurrence)

    def homeless(self, row: OlderRow) -> Moved:
        """A row that belongs to no database: no record can hold it."""
        aside = Aside("refused", ("source_ip", "db_path"), _number(row.id), None, _json(row))
        return Moved(hash_of(self._canonical(row, self._proven(row) is not None)), None, aside)

    def refuse(self, moved: Moved) -> Aside:
        """See `Form`."""
        row: OlderRow = moved.original
        key = moved.record[0] if moved.record is not None else None
        return Aside("refused", (), _number(row.id), key, _json(row))

    def _record(self, row: OlderRow, content: str | None, occurrence: int) -> Record:
        error: str | None = None
        if content is None:
            error = _sized("ipfs_error", row.ipfs_error)
            if row.ipfs_data:
                data = row.ipfs_data
                size = len(data if isinstance(data, bytes) else data.encode())
                error = _TOO_LARGE if size > CONTENT_LIMIT else _NOT_ADOPTED
            elif error is None and _flag(row.ipfs_fetched):
                error = _LOST
        return (
            self._key(row, occurrence),
            _UNKNOWN_DIGEST,
            _sized("source_ip", row.source_ip),
            _sized("node_name", row.node_name) or "",
            _sized("did", row.did),
            _sized("token_id", row.token_id),
            self._time_or_none(row.created_at),
            self._time_or_none(row.updated_at),
            _sized("token_status", row.token_status),
            _sized("parent_token_id", row.parent_token_id),
            _value("token_value", row.token_value),
            content,
            content is not None,
            error,
            _sized("db_path", row.db_path),
            _sized("ipfs_path", row.ipfs_path),
            self._time_or_none(row.db_last_modified) or _LONG_AGO,
            _wrap(row.validation_errors),
            *_NOT_OF_THE_OLDER,
        )

    def _proven(self, row: OlderRow) -> str | None:
        """The content in the form of ``ipfs_data``, if it hashes to the token id."""
        if not row.ipfs_data or not isinstance(row.token_id, str):
            return None
        return proven_content(row.token_id, row.ipfs_data)

    # ---------------------------------------------------------------- canonical forms

    def _canonical(self, row: OlderRow, proven: bool) -> tuple[Any, ...]:
        return (
            row.source_ip,
            row.node_name,
            _real("did", row.did),
            row.token_id,
            self._time_text(row.created_at),
            self._time_text(row.updated_at),
            _real("token_status", row.token_status),
            _real("parent_token_id", row.parent_token_id),
            _real("token_value", row.token_value),
            True if proven else row.ipfs_data or None,
            proven or _flag(row.ipfs_fetched),
            None if proven else row.ipfs_error,
            row.db_path,
            _real("ipfs_path", row.ipfs_path),
            self._time_text(row.db_last_modified),
            row.validation_errors or None,
        )

    def _stored_canonical(self, record: Sequence[Any], *, proven: bool) -> tuple[Any, ...]:
        return (
            *record[2:6],
            _iso(record[6]),
            _iso(record[7]),
            *record[8:11],
            True if proven else record[11] or None,
            bool(record[12]),
            None if proven else record[13],
            *record[14:16],
            _iso(record[16]),
            _unwrap(record[17]),
        )

    def stored_hash(self, record: Sequence[Any], *, vanished: bool) -> int:
        """See `Form`.  The content's proof is done again."""
        token, data = record[COLUMNS["token_id"]], record[COLUMNS["ipfs_data"]]
        proven = bool(record[COLUMNS["ipfs_fetched"]]) and is_proven(token, data)
        canonical = self._stored_canonical(record, proven=proven)
        return hash_of((*canonical, "vanished") if vanished else canonical)

    def aside_hashes(self, aside: Aside) -> tuple[int, int | None]:
        """See `Form`."""
        row = _from_json(aside.row)
        content = self._proven(row)
        own = hash_of(self._canonical(row, content is not None))
        if aside.reason not in ("changed", "healed"):
            return own, None
        if aside.reason == "healed":
            content = ""  # a duplicate's, which is proven too
        record = self._record(row, content, 0)
        return own, hash_of(self._stored_canonical(record, proven=content is not None))

    # ---------------------------------------------------------------- times

    def _utc_time(self, text: Text) -> datetime | None:
        if not isinstance(text, str):
            return None
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            found = utc_time(text)  # whatever else a text column can hold
            if found is None or _HAS_ZONE.search(text):
                return found
            moment = found
        if moment.tzinfo is None:
            if self._zone is UTC:
                return moment
            moment = moment.replace(tzinfo=self._zone)
        try:
            return moment.astimezone(UTC).replace(tzinfo=None)
        except OverflowError:
            return None

    def time(self, text: Text) -> datetime | None:
        """A time of the source in UTC; None where there is none or it cannot be told."""
        return self._time_or_none(text)

    def _time_or_none(self, text: Text) -> datetime | None:
        return None if text is None or text in _PLACEHOLDERS else self._utc(text)

    def _time_text(self, text: Text) -> Text:
        if text is None or text in _PLACEHOLDERS:
            return None
        moment = self._utc(text)
        return text if moment is None else moment.isoformat()


_CANONICAL: Final = tuple(COLUMNS)[2 : COLUMNS["validation_errors"] + 1]
"""What both have: without key and digest in front, and what was added behind."""
_NOT_OF_THE_OLDER: Final = tuple(
    RBT.name if name == "token_kind" else None
    for name in tuple(COLUMNS)[COLUMNS["validation_errors"] + 1 :]
)
"""The older system knew one kind of token, and nothing of what was added."""

_PLACEHOLDERS: Final = frozenset({"c not found"})


def _real(column: str, value: Text) -> Text:
    """The value, unless it is what the older system wrote for a missing column."""
    if (
        type(value) is str
        and value[-10:] == " not found"
        and (value == "c not found" or value == f"{column} not found")
    ):
        return None
    return value


def _value(column: str, value: Text) -> str | None:
    value = _real(column, value)
    return blob_literal(value) if isinstance(value, bytes) else value


def _sized(column: str, value: Text) -> str | None:
    size = COLUMN_SIZES[column]
    if type(value) is str and len(value) * 2 <= size and value[-10:] != " not found":
        return value  # most are
    text = _value(column, value)
    return None if text is None else cut(text, size)


def _has_home(row: OlderRow) -> bool:
    return isinstance(row.source_ip, str) and isinstance(row.db_path, str)


def _flag(value: Text) -> bool:
    return isinstance(value, str) and value.lower() in _TRUE


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _number(value: Text) -> int | None:
    try:
        return int(value) if value is not None else None
    except ValueError:
        return None


def _wrap(errors: Text) -> str | None:
    """Validation errors are a JSON list here; the older system's text becomes an entry of one."""
    text = _value("validation_errors", errors)
    if not text:
        return None
    if _is_list(text):
        return text
    return json.dumps([{"code": _WRAPPED, "message": text}], ensure_ascii=False)


def _unwrap(errors: str | None) -> str | None:
    if errors and errors.startswith(f'[{{"code": "{_WRAPPED}", "message": '):
        message: str = json.loads(errors)[0]["message"]
        return message
    return errors or None


def _is_list(text: str) -> bool:
    if not text.startswith("["):
        return False
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def proven_content(token_id: str, text: str | bytes) -> str | None:
    """The content that ``token_id`` names, as ``ipfs_data`` holds it, if ``text`` is it.

    The older system stripped line ends and guessed encodings; the hash tells
    which bytes were meant.
    """
    name = cid.parse(token_id)
    if name is None:
        return None
    for content in _readings(text):
        if len(content) <= CONTENT_LIMIT and unixfs.matches(name, content) is True:
            return encode_content(content)
    return None


def _readings(text: str | bytes) -> Iterator[bytes]:
    first = text if isinstance(text, bytes) else text.encode()
    yield first
    yield first + b"\n"
    if isinstance(text, str):
        if not text.isascii():
            for encoding in ("latin-1", "cp1252"):
                try:
                    yield text.encode(encoding)
                except UnicodeEncodeError:
                    continue
        if text.startswith("data:"):
            try:
                yield decode_content(text)
            except ValueError:
                return


def is_proven(token_id: str | None, data: str | None) -> bool:
    """Whether a stored content is the one that its token id names."""
    name = cid.parse(token_id) if token_id else None
    if name is None or data is None:
        return False
    try:
        return unixfs.matches(name, decode_content(data)) is True
    except ValueError:
        return False


def _json(row: OlderRow) -> str:
    values: Mapping[str, Any] = {
        name: {"bytes": value.hex()} if isinstance(value, bytes) else value
        for name, value in row._asdict().items()
        if value is not None
    }
    return json.dumps(values, ensure_ascii=False)


def _from_json(text: str) -> OlderRow:
    values = json.loads(text)
    return OlderRow(
        *(
            bytes.fromhex(value["bytes"]) if isinstance(value, dict) else value
            for value in map(values.get, OLDER_COLUMNS)
        )
    )
