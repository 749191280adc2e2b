"""Keys and blocks of token chains: any bytes give an answer, at a bounded cost."""

from __future__ import annotations

import time
from hashlib import sha3_256
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rubix_token_sync.nodes.chain_blocks import (
    ChainKey,
    TokenPlace,
    UndecodableError,
    decode_block,
    parse_key,
    parse_reference,
)
from rubix_token_sync.testing import block_id, generated_block, make_identity, transferred_block
from rubix_token_sync.testing.chains import FT, encode_canonical, generated_content

ALICE, BOB = make_identity(1, 1), make_identity(1, 2)
TOKEN = "Qm" + "a" * 44
HASH = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("0000000000000000", 0),
        ("000000000000000a", 10),
        ("0000000000000010", 16),
        ("7fffffffffffffff", 2**63 - 1),
        ("0", 0),
        ("10", 10),
        ("123456789012345678", 123456789012345678),
    ],
)
def test_numbers_of_keys(number: str, expected: int) -> None:
    key = parse_key(f"tt-{TOKEN}-{number}-{HASH}".encode())
    assert key == ChainKey("tt", TOKEN, expected, HASH)


@pytest.mark.parametrize(
    "key",
    [
        "", "-", "---", f"tt-{TOKEN}-0-", f"tt--0-{HASH}", f"tt-{TOKEN}--{HASH}",
        f"tt-{TOKEN}-8000000000000000-{HASH}", f"tt-{TOKEN}-00000000000000000000-{HASH}",
        f"tt-{TOKEN}-0x1-{HASH}", f"tt-{TOKEN}-+1-{HASH}", f"tt-{TOKEN}-0-{HASH[1:]}",
        f"tt-{TOKEN}-0-{HASH}\n", f"TT-{TOKEN}-0-{HASH}", f"ttt-{TOKEN}-0-{HASH}",
        f"tt-{'a' * 129}-0-{HASH}", f"tt-Qm../..-0-{HASH}", f"tt-Qmé-0-{HASH}",
    ],
)  # fmt: skip
def test_keys_of_no_known_form(key: str) -> None:
    assert parse_key(key.encode()) is None


@given(st.binary(max_size=300))
def test_any_key_gives_an_answer(key: bytes) -> None:
    parse_key(key)
    parse_reference(key)


def test_references() -> None:
    assert parse_reference(f"rf-{HASH}-{HASH[::-1]}".encode()) == (HASH, HASH[::-1])
    assert parse_reference(f"rf-{HASH}-{HASH}x".encode()) is None
    assert parse_reference(f"rf-{HASH}".encode()) is None


def test_a_block_says_what_was_put_into_it() -> None:
    first = generated_block(ALICE, TOKEN, FT, value=0.5, number=3)
    block = decode_block(first)
    assert (block.type, block.owner, block.epoch) == ("05", ALICE.did, None)
    assert block.tokens == {TOKEN: TokenPlace(0, "")}
    assert (len(block.signatures), block.uncheckable) == (1, 0)
    assert f"0-{block.hash}" == block_id(first, TOKEN)
    then = transferred_block(
        ALICE, BOB.did, {TOKEN: block_id(first, TOKEN)}, FT, [ALICE] * 5, epoch=1_795_968_124
    )
    after = decode_block(then)
    assert (after.type, after.owner, after.epoch) == ("02", BOB.did, 1_795_968_124)
    assert after.tokens == {TOKEN: TokenPlace(1, f"0-{block.hash}")}
    assert len(after.signatures) == 1 + 1 + 1 + 5


def _block(content: Any, signatures: Any = None) -> bytes:
    outer = {"1": cbor2.dumps(content)}
    if signatures is not None:
        outer["2"] = cbor2.dumps(signatures)
    return cbor2.dumps(outer)


def _content(**fields: Any) -> dict[str, Any]:
    content = generated_content(ALICE.did, TOKEN, FT)
    return content | {name.removeprefix("f"): value for name, value in fields.items()}


_NOT_BLOCKS = [
    b"", b"\x00", b"\xff", b"rf-", cbor2.dumps([1]), cbor2.dumps({}), cbor2.dumps({"1": "x"}),
    cbor2.dumps({"1": b""}), cbor2.dumps({"1": b"\xa0"}), _block([]), _block({}),
    _block(_content(f2=5)), _block(_content(f2="")), _block(_content(f2="x" * 9)),
    _block(_content(f3=5)), _block(_content(f3="x" * 501)), _block(_content(f5=None)),
    _block(_content(f5={})), _block(_content(f5={"6": [TOKEN]})),
    _block(_content(f5={"6": {TOKEN: 1}})), _block(_content(), signatures=[1]),
    cbor2.dumps({"1": cbor2.dumps(_content()), "2": b"\xff"}),
    b"\xa2\x61\x31\x40\x61\x31\x40",  # a key that is there twice
    b"\xa1\xa0\x00",  # a map for a key
    b"\x81" * 100_000, b"\xa1\x61\x31" * 100_000, b"\xc1" * 100_000,
    b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff", b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff", b"\x9f" * 1_000,
]  # fmt: skip


@pytest.mark.parametrize("value", _NOT_BLOCKS, ids=range(len(_NOT_BLOCKS)))
def test_what_is_not_a_block(value: bytes) -> None:
    begun = time.perf_counter()
    with pytest.raises(UndecodableError):
        decode_block(value)
    assert time.perf_counter() - begun < 5


def test_odd_values_where_little_depends_on_them() -> None:
    place = {"4": "99999999999999999999", "5": 7}
    odd = _content(epoch=-1, f6=7, f7=[3, {"did": 4}], f12={"sign_type": 1, "hash": "x"})
    odd["5"] = {"4": 3, "6": {TOKEN: place, "x" * 129: place, b"b": place}}
    block = decode_block(_block(odd, {ALICE.did: "zz", BOB.did: 3, "": "00" * 100}))
    assert block.epoch is None
    assert block.tokens == {TOKEN: TokenPlace(None, "")}
    assert block.signatures == ()
    assert block.uncheckable == 5
    for epoch in (True, 1.5, "1795968124", 2**70, 253_402_300_800):
        assert decode_block(_block(_content(epoch=epoch))).epoch is None


def test_signatures_are_bounded() -> None:
    many = {f"did{n}": "30" * 70 for n in range(1_000)}
    block = decode_block(_block(_content(), many))
    assert (len(block.signatures), block.uncheckable) == (256, 744)


def test_votes_sign_the_transaction_that_follows_from_the_contract() -> None:
    """A block that states another transaction than its contract gives is not believed."""
    first = generated_block(ALICE, TOKEN, FT)
    then = transferred_block(ALICE, BOB.did, {TOKEN: block_id(first, TOKEN)}, FT, [ALICE])
    content = cbor2.loads(cbor2.loads(then)["1"])
    stated = dict(content, **{"5": dict(content["5"], **{"4": "f" * 64})})
    signed = {signature.message for signature in decode_block(_block(stated)).signatures}
    assert b"f" * 32 not in signed
    assert sha3_256(content["6"]).hexdigest()[:32].encode() in signed


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(st.binary(max_size=500))
def test_any_bytes_give_an_answer(value: bytes) -> None:
    try:
        decode_block(value)
    except UndecodableError as error:
        assert str(error)  # noqa: PT017 - either answer is right


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(["2", "3", "4", "5", "6", "7", "10", "11", "12", "epoch"]), _json
    )
)
def test_any_content_gives_an_answer(fields: dict[str, Any]) -> None:
    value = _block(_content() | fields, fields)
    try:
        decode_block(value)
    except UndecodableError as error:
        assert str(error)  # noqa: PT017 - either answer is right


@given(st.data())
def test_a_damaged_block_gives_an_answer(data: st.DataObject) -> None:
    value = bytearray(generated_block(ALICE, TOKEN, FT))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(value) - 1))
        value[at] = data.draw(st.integers(0, 255))
    try:
        block = decode_block(bytes(value))
    except UndecodableError:
        return
    assert len(block.hash) == 64


def test_encoding_is_canonical() -> None:
    assert encode_canonical({"10": 0.5, "2": 1}) == b"\xa2\x61\x32\x01\x62\x31\x30\xf9\x38\x00"
