"""Contents of part, test and data tokens: decoded as the node writes them, or not at all."""

from __future__ import annotations

import json
import tarfile
from hashlib import sha3_256
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.ipfs.content import CONTENT_LIMIT
from rubix_token_sync.records.rac import TEST_TOKEN, RacPart, decode_rac

DID = "bafybmigz5tzuaa3zayunmtl44koczd2qpuxlkrhrvjz5pmpwpizxkfljuy"
PARENT = "QmPZYZdvL7SxorAAFHTEnYLpqXHG81Da8Au5iRo3osAEJe"
FIELDS: dict[str, Any] = {"1": 0, "2": 1, "3": DID, "4": 5, "5": 1, "6": "2026-11-29"}
SIGNATURE = "3006020101020101"


def content(fields: Any, signature: Any = SIGNATURE, **more: Any) -> bytes:
    return cbor2.dumps({"1": cbor2.dumps(fields), "2": signature, **more}).hex().encode()


def part(**changes: Any) -> bytes:
    values = {"1": PARENT, "2": 3, "3": 0.25}
    values |= {key.strip("_"): value for key, value in changes.items()}
    return content(FIELDS | {"1": 7, "13": values})


def test_a_test_token() -> None:
    rac = decode_rac(content(FIELDS))
    assert rac is not None
    assert (rac.type, rac.creator_did, rac.part) == (TEST_TOKEN, DID, None)
    assert (rac.parent, rac.part_number, rac.value) == (None, None, None)
    assert rac.signature == bytes.fromhex(SIGNATURE)
    assert rac.fields == FIELDS
    assert rac.signed_hash == sha3_256(cbor2.dumps(FIELDS)).hexdigest()
    assert rac.signed == rac.signed_hash[:32].encode()


def test_a_part_token() -> None:
    rac = decode_rac(part())
    assert rac is not None
    assert rac.part == RacPart(PARENT, 3, 0.25)
    assert (rac.type, rac.parent, rac.part_number, rac.value) == (7, PARENT, 3, 0.25)
    whole = decode_rac(part(_3=1))
    assert whole is not None
    assert whole.value == 1.0
    assert decode_rac(part().upper()) == rac, "hexadecimal of either case"


def test_the_real_nodes_contents() -> None:
    """898 signed ones of 2,565; every part's value and number can be read."""
    archive = Path(__file__).parents[1] / "data" / "real_nodes.tar.gz"
    with tarfile.open(archive) as opened:
        file = opened.extractfile("fixture/truth.json")
        assert file is not None
        truth = json.load(file)
    texts = {token: said["text"] for token, said in truth["content"].items() if "text" in said}
    decoded = {token: decode_rac(text.encode()) for token, text in texts.items()}
    signed = {token: rac for token, rac in decoded.items() if rac is not None}
    assert len(signed) == 898
    rows = [
        row
        for node in truth["nodes"].values()
        for row in node.get("tables", {}).get("TokensTable", [])
    ]
    parts = {row["token_id"]: row for row in rows if row["parent_token_id"]}
    assert {token for token, rac in signed.items() if rac.part} == set(parts)
    for token, row in parts.items():
        rac = signed[token]
        assert (rac.parent, rac.value) == (row["parent_token_id"], row["token_value"])
    assert all(66 < len(rac.signature) < 73 for rac in signed.values())


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a2",
        b"BIG 634 " + DID.encode(),
        b"001" + b"a" * 64,
        content(FIELDS)[:-2],
        content(FIELDS)[:-1],
        content(FIELDS) + b"00",
        content(FIELDS) + b"\n",
        b" " + content(FIELDS),
        content(FIELDS).replace(b"a2", b"a2 ", 1),
        content([1]),
        content(7),
        content({**FIELDS, "1": "0"}),
        content({**FIELDS, "1": -1}),
        content({**FIELDS, "1": True}),
        content({**FIELDS, "1": 2**63}),
        content({**FIELDS, "3": b"did"}),
        content({**FIELDS, "3": ""}),
        content({**FIELDS, "3": "d" * 1001}),
        content({**FIELDS, 7: 1}),
        content({key: value for key, value in FIELDS.items() if key != "3"}),
        content({**FIELDS, "13": None}),
        content({**FIELDS, "13": {}}),
        part(_1=7),
        part(_1=""),
        part(_2=-1),
        part(_2=1.0),
        part(_2=2**63),
        part(_3="0.25"),
        part(_3=True),
        part(_3=-1),
        part(_3=INF),
        part(_3=NAN),
        part(_3=2**70),
        cbor2.dumps([1, 2]).hex().encode(),
        cbor2.dumps({"1": "text", "2": SIGNATURE}).hex().encode(),
        cbor2.dumps({"2": SIGNATURE}).hex().encode(),
        cbor2.dumps({1: cbor2.dumps(FIELDS)}).hex().encode(),
    ],
)
def test_what_is_not_one(data: bytes) -> None:
    assert decode_rac(data) is None


@pytest.mark.parametrize(
    "signature", [None, 7, b"\x30\x06", "", "3", "zz", "ü", "30" * 257, ["30"]]
)
def test_a_signature_that_is_not_one(signature: Any) -> None:
    rac = decode_rac(content(FIELDS, signature))
    assert rac is not None
    assert rac.signature == b""


TAGS = [0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 100, 256, 258, 260, 261, 1004, 43000, 55799]


@pytest.mark.parametrize("tag", [*TAGS, 6, 24, 1_000_000, 2**64 - 1])
@pytest.mark.parametrize("value", [1, "(a*)*", b"\x01", [1, 2], {"a": 1}, 1.5])
def test_no_tag_is_decoded(tag: int, value: Any) -> None:
    """Dates, patterns, fractions, shared values: none of it is expected, all of it costs."""
    assert decode_rac(content({**FIELDS, "9": cbor2.CBORTag(tag, value)})) is None
    block = cbor2.dumps({"1": cbor2.CBORTag(tag, cbor2.dumps(FIELDS)), "2": SIGNATURE})
    assert decode_rac(block.hex().encode()) is None


def test_no_indefinite_length_no_repeated_key_no_depth() -> None:
    inner = cbor2.dumps(FIELDS)
    ordinary = cbor2.dumps({"1": inner, "2": SIGNATURE})
    assert decode_rac(ordinary.hex().encode()) is not None
    assert decode_rac((b"\xbf" + ordinary[1:] + b"\xff").hex().encode()) is None
    twice = b"\xa3" + ordinary[1:] + cbor2.dumps("1") + cbor2.dumps(inner)
    assert decode_rac(twice.hex().encode()) is None
    nested: Any = 1
    for _ in range(20):
        nested = [nested]
    assert decode_rac(content({**FIELDS, "9": nested})) is None
    deep = b"\xa1\x61\x31" + b"\x81" * 20_000 + b"\x01"
    assert decode_rac(deep.hex().encode()) is None


@pytest.mark.parametrize("head", [b"\x9b", b"\x5b", b"\x7b", b"\xbb"])
def test_a_length_that_is_said_and_not_there(head: bytes) -> None:
    """Nothing is made room for before it is there."""
    for length in (2**64 - 1, 2**63, 2**40, 2**31):
        claimed = b"\xa1\x61\x31" + head + length.to_bytes(8, "big")
        assert decode_rac(claimed.hex().encode()) is None
        if head == b"\xbb":
            assert decode_rac((head + length.to_bytes(8, "big")).hex().encode()) is None


def test_the_largest_content() -> None:
    room = CONTENT_LIMIT // 2 - len(content({**FIELDS, "8": ""})) // 2 - 10
    large = content({**FIELDS, "8": "x" * room})
    assert CONTENT_LIMIT - 100 < len(large) <= CONTENT_LIMIT
    assert decode_rac(large) is not None
    assert decode_rac(content({**FIELDS, "8": "x" * (room + 100)})) is None


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)


@given(plain, plain)
def test_any_value_in_any_field(value: Any, other: Any) -> None:
    for fields in (value, FIELDS | {"1": value}, FIELDS | {"13": value}, FIELDS | {"9": value}):
        rac = decode_rac(content(fields, other))
        if rac is not None:
            assert 0 <= rac.type < 2**63
            assert rac.creator_did
            assert len(rac.signature) <= 256
    decode_rac(cbor2.dumps(value).hex().encode())


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    decode_rac(data)
    decode_rac(data.hex().encode())
    inner = cbor2.dumps({"1": data, "2": SIGNATURE})
    decode_rac(inner.hex().encode())


@given(st.integers(0, len(part()) - 1), st.sampled_from(b"0123456789abcdefAF zg\xff"))
def test_a_changed_character_changes_the_hash_or_ends_it(at: int, character: int) -> None:
    data = bytearray(part())
    data[at] = character
    whole, changed = decode_rac(part()), decode_rac(bytes(data))
    assert whole is not None
    if changed is not None and bytes(data).lower() != part():
        assert changed.signed_hash != whole.signed_hash or changed.signature != whole.signature
