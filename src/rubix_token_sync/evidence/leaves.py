"""The exact bytes that stand for a record in the tree: one line of canonical JSON.

A leaf is an object with sorted keys and without spaces (RFC 8785 for what occurs here: texts,
integers, true and false).  What a record does not have is left out.  ``@type`` comes first, so
that no leaf can be taken for anything else, and the record's identity (machine, database, kind,
token id, key) is part of the bytes: two holders can never share a leaf.

Leaves are made by the batch, for a fleet has millions of them.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rubix_token_sync.errors import EvidenceRefused

__all__ = [
    "CONTENT_DIGEST",
    "LEAF_COLUMNS",
    "LEAF_TYPE",
    "ascending",
    "canonical",
    "content_digests",
    "leaves",
    "lines",
]

LEAF_TYPE: Final = "rubix-token-record/1"
CONTENT_DIGEST: Final = "content_sha256"
"""SHA-256 of the column ``ipfs_data``, as UTF-8, in hexadecimal digits; absent without content."""

LEAF_COLUMNS: Final = tuple(
    sorted(
        (
            "source_ip", "node_name", "db_path", "token_kind", "network", "token_id", "did",
            "token_status", "token_state_hash", "transaction_id", "token_value",
            "parent_token_id", CONTENT_DIGEST, "ipfs_fetched", "ipfs_error", "verdict",
            "verdict_source", "token_level", "token_number", "record_key", "row_digest",
        )
    )
)  # fmt: skip
"""Columns of TokenRecords in a leaf; ``row_digest`` stands for everything that the node's row says.
Binary ones are hexadecimal digits there."""


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and without spaces, in UTF-8."""
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )
    return text.encode()


def ascending(keys: pa.Array, last: bytes) -> bytes:
    """The last key, having seen that each is larger than the one before.

    Raises:
        EvidenceRefused: one is not.
    """
    if len(keys) == 0:
        return last
    rising = pc.all(pc.less(keys[:-1], keys[1:]), min_count=0).as_py()
    if not rising or keys[0].as_py() <= last:
        raise EvidenceRefused(
            "The records do not come in the order of their keys, each once.",
            code="evidence_order",
            remedy="The target's key column needs a binary collation, as `schema show` has it.",
        )
    found: bytes = keys[-1].as_py()
    return found


def content_digests(contents: pa.Array) -> pa.Array:
    """SHA-256 of each content in hexadecimal digits; null where there is none."""
    values = contents.cast(pa.binary()).to_pylist()
    return pa.array([None if v is None else sha256(v).hexdigest() for v in values], pa.string())


def leaves(batch: pa.RecordBatch, end: str = "") -> pa.Array:
    """The leaf of each record, as text, with ``end`` behind it.

    ``batch`` has the `LEAF_COLUMNS`: texts, ``ipfs_fetched`` a flag, level and number integers,
    key and digest bytes of a fixed width.
    """
    parts: list[Any] = []
    text = f'{{"@type":"{LEAF_TYPE}"'
    for name in LEAF_COLUMNS:
        values = batch.column(name)
        if values.null_count == len(values):
            continue
        json_values, quote = _as_json(values)
        before, after = f',"{name}":{quote}', quote
        if values.null_count:
            parts += [text] if text else []
            parts.append(pc.binary_join_element_wise(before, json_values, after, ""))
            text = ""
        else:
            parts += [text + before, json_values]
            text = after
    parts.append(text + "}" + end)
    return pc.binary_join_element_wise(*parts, "", null_handling="replace", null_replacement="")


def lines(batch: pa.RecordBatch) -> memoryview:
    """The leaves of ``batch`` as a file has them: each with the end of its line."""
    ended = leaves(batch, "\n")
    size = int(np.frombuffer(ended.buffers()[1], np.int32)[len(ended)]) if len(ended) else 0
    return memoryview(ended.buffers()[2])[:size]


def _as_json(values: pa.Array) -> tuple[pa.Array, str]:
    """The values as JSON has them, and what stands around each."""
    kind = values.type
    if pa.types.is_boolean(kind):
        return pc.if_else(values, "true", "false"), ""
    if pa.types.is_integer(kind):
        return values.cast(pa.string()), ""
    if pa.types.is_fixed_size_binary(kind):
        return _hexadecimal(values), '"'
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
    if not _needs_escapes(values):
        return values, '"'
    escaped = [None if v is None else canonical(v)[1:-1] for v in values.to_pylist()]
    return pa.array(escaped, pa.binary()).cast(pa.string()), '"'


def _needs_escapes(values: pa.Array) -> bool:
    """Whether JSON writes any of the texts differently."""
    data = values.buffers()[2]
    if data is None:
        return False
    offsets = np.frombuffer(values.buffers()[1], np.int32)
    first, last = offsets[values.offset], offsets[values.offset + len(values)]
    text = data.slice(first, last - first).to_pybytes()
    control = bool(text) and np.frombuffer(text, np.uint8).min() < ord(" ")
    return bool(control or b'"' in text or b"\\" in text)


def _hexadecimal(values: pa.Array) -> pa.Array:
    """Bytes of a fixed width as text; none is null."""
    width = values.type.byte_width
    start = values.offset * width
    data = values.buffers()[1].to_pybytes()[start : start + len(values) * width].hex().encode()
    offsets = np.arange(len(values) + 1, dtype=np.int32) * (2 * width)
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(data))
