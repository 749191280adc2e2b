"""The bytes of a leaf: canonical JSON, whatever a node's values hold, and bound to one record."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from rubix_token_sync.evidence.leaves import (
    CONTENT_DIGEST,
    LEAF_COLUMNS,
    LEAF_TYPE,
    canonical,
    content_digests,
    leaves,
)
from rubix_token_sync.records.schema import RECORDS

SCHEMA = RECORDS.schema.append(pa.field(CONTENT_DIGEST, pa.string()))
TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ['"', "\\", "\n", "\x00", "\u2028", '","did":"x', "😀"]
)
VALUES = {"text": TEXT, "flag": st.booleans(), "integer": st.integers(-(2**63), 2**63 - 1)}


def values_of(name: str) -> st.SearchStrategy[Any]:
    column = RECORDS[name]
    if column.kind == "bytes":
        return st.binary(min_size=column.size or 0, max_size=column.size)
    values = VALUES[column.kind]
    return values if column.required else st.none() | values


RECORD = st.fixed_dictionaries(
    {name: values_of(name) for name in (*LEAF_COLUMNS, "ipfs_data") if name != CONTENT_DIGEST}
)


@settings(max_examples=25)
@given(st.lists(RECORD, min_size=1, max_size=3))
def test_they_are_what_json_would_write(rows: list[dict[str, Any]]) -> None:
    contents = [row["ipfs_data"] for row in rows]
    digests = content_digests(pa.array(contents, pa.string()))
    arrays = [
        digests if f.name == CONTENT_DIGEST else pa.array([r.get(f.name) for r in rows], f.type)
        for f in SCHEMA
    ]
    made = leaves(pa.RecordBatch.from_arrays(arrays, names=SCHEMA.names)).to_pylist()
    for row, content, leaf in zip(rows, contents, made, strict=True):
        said = {
            name: value.hex() if isinstance(value, bytes) else value
            for name, value in row.items()
            if value is not None and name != "ipfs_data"
        }
        if content is not None:
            said[CONTENT_DIGEST] = sha256(content.encode()).hexdigest()
        assert leaf.encode() == canonical({"@type": LEAF_TYPE, **said})
        assert "\n" not in leaf
        assert json.loads(leaf) == {"@type": LEAF_TYPE, **said}


def test_a_leaf_names_its_record() -> None:
    """Two holders of one token can never share a leaf."""
    assert {"source_ip", "db_path", "token_kind", "token_id", "record_key"} <= set(LEAF_COLUMNS)


def test_slices_are_like_wholes() -> None:
    keys = pa.array([bytes([n]) * 24 for n in range(5)], pa.binary(24))
    columns = {
        f.name: keys
        if f.name == "record_key"
        else pa.array(["a"] * 5, pa.string()).cast(f.type)
        if pa.types.is_string(f.type)
        else pa.array([b"\x01" * 16] * 5, f.type)
        if pa.types.is_fixed_size_binary(f.type)
        else pa.array([True] * 5, f.type)
        if pa.types.is_boolean(f.type)
        else pa.nulls(5, f.type)
        for f in SCHEMA
    }
    whole = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    assert leaves(whole.slice(2, 2)).to_pylist() == leaves(whole).to_pylist()[2:4]
