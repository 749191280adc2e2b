"""CIDs: everything that is one parses, nothing else does."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.ipfs.cid import (
    DAG_PB,
    MAX_TEXT,
    RAW,
    Cid,
    cid_v0,
    cid_v1,
    from_bytes,
    hash_matches,
    inline_block,
    parse,
    sha256_multihash,
    to_bytes,
)

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
GOOD = "QmXkvXH9uQK8N8DnvTw6CgoynGwtx82PFHKYtv3G7cErnE"
GOOD_V1 = "bafybeifnswmdxnubmbvhd575eqzcqnz3vflktzp3xjtqgldv3a5ceg6ujm"

digests = st.binary(min_size=32, max_size=32)
multihashes = st.one_of(
    digests.map(sha256_multihash),
    st.tuples(
        st.sampled_from([b"\x13", b"\x16", b"\x00", b"\xa0\xe4\x02"]), st.binary(max_size=128)
    )
    .filter(lambda pair: len(pair[1]) < 128)
    .map(lambda pair: pair[0] + bytes((len(pair[1]),)) + pair[1]),
)


def base58(raw: bytes) -> str:
    number, out = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        out = ALPHABET[digit] + out
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + out


@given(digests)
def test_version_0_is_base58_of_the_multihash(digest: bytes) -> None:
    text = cid_v0(digest)
    assert text == base58(b"\x12\x20" + digest)
    assert parse(text) == Cid(text, 0, DAG_PB, b"\x12\x20" + digest)


@given(multihashes, st.sampled_from([DAG_PB, RAW, 0x71, 0x0200, 0]), st.sampled_from("bBzfFkK"))
def test_version_1_survives_every_multibase(multihash: bytes, codec: int, base: Any) -> None:
    text = cid_v1(codec, multihash, base)
    cid = parse(text)
    assert cid == Cid(text, 1, codec, multihash)
    assert text[0] == base
    binary = from_bytes(to_bytes(cid))
    assert binary is not None
    assert binary[1:] == cid[1:]
    if base == "b":
        expected = base64.b32encode(to_bytes(cid)).decode().rstrip("=").lower()
        assert text == "b" + expected
        assert binary.text == text


@given(st.text())
def test_no_text_makes_parsing_raise_and_what_parses_is_canonical(text: str) -> None:
    cid = parse(text)
    assert cid is None or cid.text == text


@given(
    st.sampled_from([GOOD, GOOD_V1]),
    st.integers(0, 45),
    st.sampled_from([*ALPHABET, "0", "O", "I", "l", "\n", " ", "=", "\0", "é", "/"]),
)
def test_one_changed_character_is_another_cid_or_none(text: str, at: int, char: str) -> None:
    changed = text[:at] + char + text[at + 1 :]
    cid, original = parse(changed), parse(text)
    assert original is not None
    if changed == text:
        assert cid == original
    elif cid is not None:
        assert (cid.version, cid.codec, cid.multihash) != original[1:]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Qm",
        "not-a-cid",
        "../../../../etc/passwd",
        "--help",
        "-o/x",
        "Q'; DROP TABLE TokenRecords;--",
        "Qm11111111111111111111111111111111111111111111",
        GOOD + "\n",
        " " + GOOD,
        GOOD + "/",
        GOOD[:-1],
        GOOD + "1",
        "/ipfs/" + GOOD,
        "ipfs://" + GOOD,
        GOOD.lower(),
        "z" + GOOD,  # version 0 has no multibase form
        "f1220" + "00" * 32,
        "1" * 46,
        GOOD_V1 + "=",
        GOOD_V1 + "a",
        GOOD_V1 + "\n",
        GOOD_V1[:-1],
        GOOD_V1[:-1] + "n",  # the unused last bits are set
        "B" + GOOD_V1[1:],
        "b" + GOOD_V1[1:].upper(),
        "B" + GOOD_V1[1:20].upper() + GOOD_V1[20:],
        "m" + base64.b64encode(b"\x01\x55\x12\x20" + bytes(32)).decode(),
        "f015512" + "20" + "00" * 31,  # a byte missing
        "f01551220" + "00" * 33,  # a byte too many
        "f0155" + "9200" + "20" + "00" * 32,  # 0x12 spelled with two bytes
        "f0181015512" + "20" + "00" * 32,
        "f02551220" + "00" * 32,  # no such version
        "f0155" + "ff" * 10 + "01" + "20" + "00" * 32,
        "f0155" + "00" + "8101" + "00" * 129,  # a digest longer than any
        "F01551220" + "ab" * 32,
        "f01551220" + "AB" * 32,
        "f0",
        "b",
        "x" * 500,
        "Qm" + "1" * 1_000_000,
        "z" + "1" * 1_000_000,
        "b" + "a" * 1_000_000,
        "Q\ud800" + "m" * 44,
        "b\ud800",
        "ｂafybeifnswmdxnubmbvhd575eqzcqnz3vflktzp3xjtqgldv3a5ceg6ujm",
    ],
    ids=lambda text: repr(text[:24]),
)
def test_what_is_no_cid(text: str) -> None:
    assert parse(text) is None


def test_the_longest_legal_text_fits() -> None:
    text = cid_v1(0x7FFFFFFFFFFFFFFF, b"\x00\x80\x01" + bytes(128), "f")
    assert len(text) <= MAX_TEXT
    assert parse(text) is not None


def test_upper_case_spellings_are_legal() -> None:
    assert parse("B" + GOOD_V1[1:].upper()) is not None
    assert parse("F01551220" + "AB" * 32) is not None


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (b"\x12", "sha256"),
        (b"\x13", "sha512"),
        (b"\x14", "sha3_512"),
        (b"\x15", "sha3_384"),
        (b"\x16", "sha3_256"),
        (b"\x17", "sha3_224"),
        (b"\x20", "sha384"),
        (b"\xc0\xe4\x02", "blake2b"),
        (b"\xe0\xe4\x02", "blake2s"),
    ],
)
def test_hash_functions(code: bytes, name: str) -> None:
    digest = hashlib.new(name, b"content").digest()
    multihash = code + bytes((len(digest),)) + digest
    assert hash_matches(multihash, b"content") is True
    assert hash_matches(multihash, b"Content") is False
    short = code + bytes((20,)) + digest[:20]
    assert hash_matches(short, b"content") is True
    assert hash_matches(code + bytes((19,)) + digest[:19], b"content") is None


def test_double_sha256_and_functions_that_prove_nothing() -> None:
    twice = hashlib.sha256(hashlib.sha256(b"content").digest()).digest()
    assert hash_matches(b"\x56\x20" + twice, b"content") is True
    sha1 = hashlib.sha1(b"content").digest()
    assert hash_matches(b"\x11\x14" + sha1, b"content") is None
    assert hash_matches(b"\x1e\x20" + bytes(32), b"content") is None


def test_a_digest_longer_than_the_function_gives_matches_nothing() -> None:
    digest = hashlib.sha256(b"content").digest() + b"\0"
    assert hash_matches(b"\x12\x21" + digest, b"content") is False


def test_identity_cids_carry_their_block() -> None:
    cid = parse(cid_v1(RAW, b"\x00\x05hello"))
    assert cid is not None
    assert cid.text == "bafkqablimvwgy3y"
    assert inline_block(cid) == b"hello"
    assert hash_matches(cid.multihash, b"hello") is True
    assert hash_matches(cid.multihash, b"hullo") is False
    ordinary = parse(GOOD)
    assert ordinary is not None
    assert inline_block(ordinary) is None


def test_a_digest_of_a_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        cid_v0(b"short")


@given(st.binary(max_size=200))
def test_no_bytes_make_binary_parsing_raise(raw: bytes) -> None:
    cid = from_bytes(raw)
    assert cid is None or to_bytes(cid) == raw


def test_every_id_of_the_fixture(expected: dict[str, list[dict[str, Any]]]) -> None:
    for tokens in expected.values():
        for token in tokens:
            text, bad = token["token_id"], token["invalid"]
            if isinstance(text, str):
                no_id = bad is not None and bad != "content over 50 KB"
                assert (parse(text) is None) == no_id, text
