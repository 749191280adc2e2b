"""From rows, their keys and their content to a finished record batch.

`finish_batch` is on the hot path of every new or changed token, so it works on
columns: whole columns are proven clean by a few operations in C (types, ASCII,
lengths), repeated values are judged once, and only suspicious values are looked
at one by one.

Everything here is a pure function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from rubix_token_sync.ipfs import cid
from rubix_token_sync.ipfs.content import Failure, FailureCode
from rubix_token_sync.records import validate
from rubix_token_sync.records.content_text import CONTENT_MARKER, encode_content, is_text
from rubix_token_sync.records.judged_columns import (
    Found,
    Texts,
    Values,
    all_plain,
    note,
    opaque,
    reals,
    statuses,
    texts_of,
    times,
)
from rubix_token_sync.records.kinds import RBT, TokenKind
from rubix_token_sync.records.schema import (
    COLUMN_SIZES,
    RECORD_KEY_BYTES,
    RECORD_SCHEMA,
    ROW_DIGEST_BYTES,
    SOURCE_COLUMNS,
    SourceRow,
    SqliteValue,
)
from rubix_token_sync.records.token_content import (
    TREES,
    Attributes,
    NamedTrees,
    NumberedJson,
    attributes_json,
    decode_contents,
)
from rubix_token_sync.records.validate import Cell, Finding

__all__ = [
    "SIGNATURE_NOT_CHECKED",
    "SIGNATURE_VERDICTS",
    "VERDICT_COLUMNS",
    "DatabaseContext",
    "Judging",
    "ResolvedContent",
    "finish_batch",
]


class ResolvedContent(Protocol):
    """What is known of the content of a batch's tokens, at the rows' indexes.

    Neither data nor failure means that nobody looked.
    """

    @property
    def data(self) -> Sequence[bytes | None]:
        """Verified content."""

    @property
    def failure(self) -> Sequence[Failure | None]:
        """Why there is none."""

    @property
    def trees(self) -> Mapping[int, NamedTrees]:
        """By position, what became of the trees that a content names."""


class Judging(Protocol):
    """Who gives verdicts; see `rubix_token_sync.audit.judge.Judge`."""

    @property
    def decodes_ids(self) -> bool:
        """Tokens without content can be judged."""

    @property
    def given_up(self) -> bool:
        """It cannot judge any more: a table is damaged, or memory for it ran out."""

    def judge(
        self,
        ids: Sequence[str | None],
        contents: Sequence[bytes | None],
        kinds: Sequence[str],
    ) -> pa.RecordBatch | None:
        """The columns of `VERDICT_COLUMNS`, a row each; None where that is not possible now."""


@dataclass(frozen=True, slots=True)
class DatabaseContext:
    """What all records of one database have in common.

    ``db_last_modified`` is UTC without a zone; ``columns`` are, by the name of a kind,
    the columns of `SOURCE_COLUMNS` that its table has.
    """

    source_ip: str
    node_name: str
    db_path: str
    ipfs_path: str | None
    db_last_modified: datetime
    network: str | None
    columns: Mapping[str, frozenset[str]] = field(
        default_factory=lambda: {RBT.name: frozenset(SOURCE_COLUMNS)}
    )


SIGNATURE_NOT_CHECKED: Final = "signature_not_checked"
"""The verdict of a sync on a signed content, which an audit replaces by one of …"""
SIGNATURE_VERDICTS: Final = ("signature_checked", "signature_wrong")
VERDICT_COLUMNS: Final = ("verdict", "verdict_source", "token_level", "token_number")


def finish_batch(
    kind: TokenKind,
    rows: Sequence[SourceRow],
    keys: bytes,
    digests: bytes,
    resolved: ResolvedContent,
    context: DatabaseContext,
    judge: Judging | None = None,
) -> pa.RecordBatch:
    """The records of ``rows``, all of one kind, as `RECORD_SCHEMA` has them.

    ``keys`` and ``digests`` are the rows' record keys and row digests, one after
    the other.  Without a ``judge`` there are no verdicts.

    Raises:
        ValueError: the arguments are not of one length.
    """
    count = len(rows)
    data, failure = resolved.data, resolved.failure
    lengths = (len(keys), len(digests), len(data), len(failure))
    if lengths != (count * RECORD_KEY_BYTES, count * ROW_DIGEST_BYTES, count, count):
        raise ValueError(f"{count} rows, but keys, digests and content have lengths {lengths}")
    if not rows:
        return _empty()
    has = context.columns[kind.name].__contains__
    by_column = dict(zip(SOURCE_COLUMNS, zip(*rows, strict=True), strict=False))
    ids, values = by_column["token_id"], by_column["token_value"]
    found: Found = {}

    token_id = _token_ids(ids, resolved, found)
    did = texts_of(by_column["did"], partial(validate.did, exists=has("did")), found)
    judge_status = partial(validate.token_status, exists=has("token_status"))
    status = statuses(by_column["token_status"], judge_status, found)
    parent = texts_of(by_column["parent_token_id"], validate.parent_token_id, found)
    value = reals(values, partial(validate.token_value, exists=has("token_value")), found)
    content, fetched = _contents(kind, data, failure, found)
    trees = resolved.trees
    unproven = {at: tree.failure for at, tree in trees.items() if tree.failure is not None}
    if unproven:  # a token is fetched when all that its content names is
        failure = [unproven.get(at, reason) for at, reason in enumerate(failure)]
        fetched = pa.array(
            [there and at not in unproven for at, there in enumerate(fetched.to_pylist())]
        )
    errors = _ipfs_errors(failure, found)
    shared: list[Finding] = []

    def constant(field: str, text: str | None) -> pa.Array:
        cell = validate.fit(field, text)
        shared.extend(cell.findings)
        return pa.repeat(pa.scalar(cell.text, pa.string()), count)

    columns = {
        "record_key": _fixed(keys, RECORD_KEY_BYTES, count),
        "row_digest": _fixed(digests, ROW_DIGEST_BYTES, count),
        "source_ip": constant("source_ip", context.source_ip),
        "node_name": constant("node_name", context.node_name),
        "did": pa.array(did, pa.string()),
        "token_id": pa.array(token_id, pa.string()),
        "created_at": times("created_at", by_column["created_at"], found),
        "updated_at": times("updated_at", by_column["updated_at"], found),
        "token_status": pa.array(status, pa.string()),
        "parent_token_id": pa.array(parent, pa.string()),
        "token_value": pa.array(value, pa.string()),
        "ipfs_data": content,
        "ipfs_fetched": fetched,
        "ipfs_error": errors,
        "db_path": constant("db_path", context.db_path),
        "ipfs_path": constant("ipfs_path", context.ipfs_path),
        "db_last_modified": pa.repeat(
            pa.scalar(context.db_last_modified, RECORD_SCHEMA.field("db_last_modified").type),
            count,
        ),
        "token_kind": pa.repeat(pa.scalar(kind.name, pa.string()), count),
        "network": pa.repeat(pa.scalar(context.network, pa.string()), count),
        "attributes": _attributes(kind, rows, by_column, resolved, found),
    }
    for name in ("token_state_hash", "transaction_id"):
        columns[name] = pa.array(opaque(name, by_column[name], found), pa.string())
    columns["validation_errors"] = _validation_errors(count, found, shared)
    columns |= _verdicts(judge, token_id, data, kind)
    return pa.RecordBatch.from_arrays(
        [columns[name] for name in RECORD_SCHEMA.names], schema=RECORD_SCHEMA
    )


def _verdicts(
    judge: Judging | None, ids: Texts, data: Sequence[bytes | None], kind: TokenKind
) -> dict[str, pa.Array]:
    """The columns of the verdict; NULL where nobody here can judge."""
    types = {name: RECORD_SCHEMA.field(name).type for name in VERDICT_COLUMNS}
    verdicts = None if judge is None else judge.judge(ids, data, [kind.name] * len(ids))
    if judge is None or verdicts is None:
        return {name: pa.nulls(len(ids), type_) for name, type_ in types.items()}
    columns = {name: verdicts.column(name).cast(type_) for name, type_ in types.items()}
    if judge.decodes_ids or None not in data:
        return columns
    known = pa.array([content is not None for content in data])
    return {name: pc.if_else(known, column, None) for name, column in columns.items()}


def _empty() -> pa.RecordBatch:
    arrays = [pa.array([], field.type) for field in RECORD_SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=RECORD_SCHEMA)


def _fixed(data: bytes, width: int, count: int) -> pa.Array:
    return pa.Array.from_buffers(pa.binary(width), count, [None, pa.py_buffer(data)])


# --- ids ---------------------------------------------------------------------


def _token_ids(values: Values, resolved: ResolvedContent, found: Found) -> Texts:
    """Ids differ from row to row; whoever resolved the content has parsed them."""
    data, failure = resolved.data, resolved.failure
    texts: list[str | None] = list(values)  # type: ignore[arg-type] # made true below
    plain = all_plain(values, COLUMN_SIZES["token_id"])
    for index, value in enumerate(values):
        if plain and (data[index] is not None or _is_cid(value, None, failure[index])):
            continue
        cell = validate.token_id(value, is_cid=_is_cid(value, data[index], failure[index]))
        texts[index] = cell.text
        if cell.findings:
            note(found, index, cell.findings)
    return texts


def _is_cid(value: SqliteValue, data: bytes | None, failure: Failure | None) -> bool:
    if data is not None:
        return True
    if failure is not None:
        return failure.code is not FailureCode.NO_CID
    return isinstance(value, str) and cid.parse(value) is not None


# --- what only one kind has -----------------------------------------------------


def _attributes(
    kind: TokenKind,
    rows: Sequence[SourceRow],
    by_column: Mapping[str, Values],
    resolved: ResolvedContent,
    found: Found,
) -> pa.Array:
    """JSON of what only this kind has: of the content, of the row, of what the content names."""
    start = len(SOURCE_COLUMNS)
    own = {name: [row[start + at] for row in rows] for at, name in enumerate(kind.attributes)}
    decoded, differing = decode_contents(kind.name, {**by_column, **own}, resolved.data)
    for index, findings in differing.items():
        note(found, index, findings)
    numbered = NumberedJson()
    texts: list[str | None] = []
    if not (kind.attributes or resolved.trees):  # a content's alone, which few have
        texts = [numbered.text(said, {}, ()) if said else None for said in decoded]
        return pa.array(texts, pa.string())
    texts_only = all(set(map(type, values)) <= {str, type(None)} for values in own.values())
    known: dict[object, Attributes] = {}  # values of many rows are the same
    for at, (row, attributes) in enumerate(zip(rows, decoded, strict=True)):
        of_row: Attributes = {}
        key: object = row[start:]
        if kind.attributes:
            if not texts_only:
                key = (key, *map(type, row[start:]))  # 1 and 1.0 are one key, not one text
            if key not in known:
                known[key] = validate.attributes(kind.attributes_of(row))
            of_row = known[key]
        if resolved.trees and at in resolved.trees and resolved.trees[at].proven:
            of_row = {**of_row, TREES: resolved.trees[at].proven}
            key = (key, at)
        if attributes:
            texts.append(numbered.text(attributes, of_row, key))
        else:
            texts.append(attributes_json(of_row) if of_row else None)
    return pa.array(texts, pa.string())


# --- content -----------------------------------------------------------------

_LEVEL_PREFIXES: Final = frozenset(b"%03d" % level for level in validate.LEVELS)
_WHOLE_TOKEN_LENGTHS: Final = frozenset({66, 67, 68})


def _contents(
    kind: TokenKind,
    data: Sequence[bytes | None],
    failure: Sequence[Failure | None],
    found: Found,
) -> tuple[pa.Array, pa.Array]:
    """``ipfs_data`` and ``ipfs_fetched``."""
    levels = kind is RBT
    raw = pa.array(data, pa.binary())
    joined = raw.buffers()[2].to_pybytes() if raw.null_count < len(raw) else b""
    suspicious = [
        index
        for index, content in enumerate(data)
        if content is None
        or (levels and content[:3] not in _LEVEL_PREFIXES and len(content) in _WHOLE_TOKEN_LENGTHS)
    ]
    column: pa.Array | None = None
    if b"\0" not in joined and CONTENT_MARKER.encode() not in joined:
        try:
            column = raw.cast(pa.string())
        except pa.ArrowInvalid:  # not all of it is UTF-8
            column = None
    if column is None:
        texts = [None if content is None else encode_content(content) for content in data]
        column = pa.array(texts, pa.string())
        for index, content in enumerate(data):
            if content is not None and not is_text(content):
                note(found, index, validate.token_content(content, None, text=False))
    for index in suspicious:
        content = data[index]
        if content is None or is_text(content):
            note(found, index, validate.token_content(content, failure[index], text=True))
    return column, raw.is_valid()


def _ipfs_errors(failure: Sequence[Failure | None], found: Found) -> pa.Array:
    if failure.count(None) == len(failure):
        return pa.nulls(len(failure), pa.string())
    cells: dict[int, Cell] = {}  # by identity: a reader gives the same failure many times
    texts: list[str | None] = []
    for index, reason in enumerate(failure):
        if reason is None:
            texts.append(None)
            continue
        cell = cells.get(id(reason))
        if cell is None:
            # A sentence can hold a path; it stays readable whatever bytes that has.
            sentence = str(reason).encode("utf-8", "backslashreplace").decode()
            cell = validate.fit("ipfs_error", sentence.replace("\0", "\\x00"))
            cells[id(reason)] = cell
        texts.append(cell.text)
        if cell.findings:
            note(found, index, cell.findings)
    return pa.array(texts, pa.string())


def _validation_errors(count: int, found: Found, shared: list[Finding]) -> pa.Array:
    texts = [validate.errors_text(shared)] * count
    known: dict[tuple[Finding, ...], str | None] = {}
    for index, findings in found.items():
        if findings:
            key = tuple(findings)
            if key not in known:
                known[key] = validate.errors_text(findings + shared)
            texts[index] = known[key]
    return pa.array(texts, pa.string())
