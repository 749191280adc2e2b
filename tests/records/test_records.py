"""Keys and digests are stable for ever: their values are pinned, their form is spelled out."""

from __future__ import annotations

import struct
import sys
from hashlib import blake2b

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.records.binary import joined_values, python_values
from rubix_token_sync.records.schema import (
    COLUMN_SIZES,
    DATABASE_KEY_BYTES,
    RECORD_KEY_BYTES,
    RECORD_SCHEMA,
    ROW_DIGEST_BYTES,
    SOURCE_COLUMNS,
    SqliteValue,
    database_key,
    digest_prefix,
    record_key,
    record_keys,
    row_digest,
    row_digests,
)

DATABASE = database_key("10.0.0.4", "/datadrive/Rubix/node032/Rubix/rubix.db")
PREFIX = digest_prefix("node032", "/datadrive/Rubix/node032/.ipfs", "rbt", "main")
TOKEN = "QmReB6HPUqm34NBqsYdANCnjQUuZvPiyFbSzLz5jAXVcvp"
ROW = (
    TOKEN,
    "bafybmipz2lxxf4gkzx7b6ctzkkoamozww5rayin3d6xm27w2wav5bollfq",
    None,
    None,
    12,
    "",
    1.0,
    "",
    None,
)
ODD_ROW = (2**63 - 1, b"\x00\xff", "ü\udcff", -(2**31), 2**31, 0.1, None)

values = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=80)
    | st.text(max_size=80)
    | st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape"))
)
rows = st.tuples(*[values] * len(SOURCE_COLUMNS))


def spelled_out(value: SqliteValue | tuple[SqliteValue, ...]) -> bytes:
    """Marshal version 2, written from its description, without marshal."""
    if value is None:
        return b"N"
    if isinstance(value, tuple):
        return b"(" + struct.pack("<i", len(value)) + b"".join(map(spelled_out, value))
    if isinstance(value, float):
        return b"g" + struct.pack("<d", value)
    if isinstance(value, bytes):
        return b"s" + struct.pack("<i", len(value)) + value
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        return b"u" + struct.pack("<i", len(data)) + data
    if -(2**31) <= value < 2**31:
        return b"i" + struct.pack("<i", value)
    digits, rest = [], abs(value)
    while rest:
        digits.append(rest & 0x7FFF)
        rest >>= 15
    count = len(digits) if value > 0 else -len(digits)
    return b"l" + struct.pack(f"<i{len(digits)}H", count, *digits)


def test_database_key_is_pinned() -> None:
    assert DATABASE.hex() == "1c8af723e9d5f852"


@pytest.mark.parametrize(
    ("token_id", "occurrence", "key"),
    [
        (None, 0, "bbb48d5006c304065d67238a65df3c7d"),
        (None, 1, "af5240fefabf9da6ac6866e9a60705c1"),
        ("", 0, "3d59ecb063679db4906d481a214ee8ff"),
        (TOKEN, 0, "544521f734d152432a32f69d08646787"),
        (1, 0, "7697aadfb7cf9267c603626d85d66d89"),
        (1.0, 0, "a8876b8a9235194ee2aa0324206242a5"),
        (b"1", 0, "ed0d58bd2f6f9e3dafc1512dd444eccd"),
        ("1", 0, "d8d8e48ace5fef08b37d2d82796c7e88"),
        ("ü", 0, "60f769967d6b12bcc7f82742ce6239b8"),
        ("\udcff", 0, "78e08a054d5e15b3e6758fc946f3383b"),
    ],
)
def test_record_key_is_pinned(token_id: SqliteValue, occurrence: int, key: str) -> None:
    assert record_key(DATABASE, token_id, occurrence).hex() == DATABASE.hex() + key


def test_row_digest_is_pinned() -> None:
    assert PREFIX.hex() == "4b5325e1e2f0135faf17a3d0651b50fa"
    assert digest_prefix("node032", None, "ft", "test").hex() == "7970412b8407d4c8936313be261510e3"
    assert row_digest(PREFIX, ROW).hex() == "895bfbb4e9e0e31d31d4504dd25e4dd3"
    assert row_digest(PREFIX, ROW, 1).hex() == "f268dc67da56dd4d6575efd34bfb25b1"
    assert row_digest(PREFIX, ODD_ROW).hex() == "3df25e731f46f7f7dbb2775f7cd50808"


@given(rows, st.integers(0, 2**40), values)
def test_keys_and_digests_are_what_their_description_says(
    row: tuple[SqliteValue, ...], occurrence: int, token_id: SqliteValue
) -> None:
    source = ("10.0.0.4", "/a/Rubix/rubix.db")
    database = blake2b(spelled_out(source), digest_size=8, person=b"rubix-database").digest()
    assert database_key(*source) == database
    name = spelled_out((token_id, occurrence))
    token = blake2b(name, digest_size=16, person=b"rubix-token").digest()
    assert record_key(database, token_id, occurrence) == database + token
    of_kind = blake2b(spelled_out((token_id, occurrence, "nft")), digest_size=16,
                      person=b"rubix-token").digest()  # fmt: skip
    assert record_key(database, token_id, occurrence, "nft") == database + of_kind
    data = PREFIX + spelled_out(row) + (occurrence.to_bytes(8, "big") if occurrence else b"")
    assert row_digest(PREFIX, row, occurrence) == blake2b(data, digest_size=16).digest()


@given(st.lists(rows, max_size=10))
def test_digests_of_many_rows_are_the_rows_digests(many: list[tuple[SqliteValue, ...]]) -> None:
    assert row_digests(PREFIX, many) == b"".join(row_digest(PREFIX, row) for row in many)


@given(st.lists(values, max_size=10), st.sampled_from(["rbt", "ft"]))
def test_keys_of_many_tokens_are_the_tokens_keys(ids: list[SqliteValue], kind: str) -> None:
    every = [record_key(DATABASE, token_id, 0, kind) for token_id in ids]
    assert record_keys(DATABASE, ids, kind) == b"".join(every)


@given(st.lists(st.none() | st.binary(min_size=24, max_size=24), max_size=10), st.integers(0, 3))
def test_bytes_leave_arrow_as_they_came(keys: list[bytes | None], start: int) -> None:
    column = pa.array(keys, pa.binary(24))
    assert python_values(column.slice(start)) == keys[start:]
    there = [key for key in keys if key is not None]
    assert joined_values(pa.array(there, pa.binary(24)).slice(start)) == b"".join(there[start:])


@given(rows, rows)
def test_rows_that_differ_in_value_or_type_have_different_digests(
    one: tuple[SqliteValue, ...], other: tuple[SqliteValue, ...]
) -> None:
    # repr tells 1 from 1.0 and 0.0 from -0.0, which == does not.
    same = repr(one) == repr(other)
    assert (row_digest(PREFIX, one) == row_digest(PREFIX, other)) is same


@given(st.text(max_size=20))
def test_the_same_text_has_the_same_digest_however_python_holds_it(text: str) -> None:
    interned = sys.intern(text)
    copy = text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass")
    # The same object twice in a row must not become a reference.
    assert row_digest(PREFIX, (interned, interned)) == row_digest(PREFIX, (copy, text))
    assert record_key(DATABASE, interned) == record_key(DATABASE, copy)


def test_names_do_not_run_into_each_other() -> None:
    assert database_key("a", "b/c") != database_key("a/b", "c")
    assert database_key("ab", "c") != database_key("a", "bc")
    assert digest_prefix("a", "b", "ft", "") != digest_prefix("ab", "", "ft", "")
    assert digest_prefix("a", None, "ft", "") != digest_prefix("a", "None", "ft", "")
    assert digest_prefix("a", None, "ft", "main") != digest_prefix("a", None, "ft", "test")
    assert digest_prefix("a", None, "ft", "main") != digest_prefix("a", None, "nft", "main")


def test_widths_are_what_the_tables_have() -> None:
    assert len(DATABASE) == DATABASE_KEY_BYTES == 8
    assert len(record_key(DATABASE, TOKEN)) == RECORD_KEY_BYTES == 24
    assert len(row_digest(PREFIX, ROW)) == ROW_DIGEST_BYTES == 16
    assert RECORD_SCHEMA.field("record_key").type == pa.binary(24)
    assert RECORD_SCHEMA.field("row_digest").type == pa.binary(16)
    assert set(COLUMN_SIZES) <= set(RECORD_SCHEMA.names)
