"""Signatures of blocks: two libraries, two curves, one answer; keys prove themselves."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.ipfs.lite_did import lite_did_of
from rubix_token_sync.nodes.chain_blocks import Signature
from rubix_token_sync.nodes.chain_signatures import Counts, SignatureChecks, parse_public_key
from rubix_token_sync.nodes.did_keys import NodeKeys
from rubix_token_sync.testing import make_identity, write_public_keys

ALICE, BOB = make_identity(1, 1), make_identity(1, 2)
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
MESSAGE = b"0123456789abcdef" * 2
SIGNED = bytes.fromhex(ALICE.sign(MESSAGE.decode()))
R, S = decode_dss_signature(SIGNED)
LIBRARIES = [pytest.param(True, id="coincurve"), pytest.param(False, id="cryptography")]


@pytest.fixture(params=LIBRARIES)
def fast(request: pytest.FixtureRequest) -> bool:
    if request.param:
        pytest.importorskip("coincurve")
    return bool(request.param)


def test_both_forms_of_a_signature_are_right(fast: bool) -> None:
    key = parse_public_key(ALICE.public_key, fast=fast)
    assert key is not None
    assert key.verify(MESSAGE, SIGNED)
    assert key.verify(MESSAGE, encode_dss_signature(R, ORDER - S))
    assert not key.verify(MESSAGE[::-1], SIGNED)
    other = parse_public_key(BOB.public_key, fast=fast)
    assert other is not None
    assert not other.verify(MESSAGE, SIGNED)


_NOT_SIGNATURES = [
    b"", b"\x30", b"\x00" * 72, SIGNED[:-1], SIGNED + b"\x00", b"\x30\x00",
    encode_dss_signature(0, S), encode_dss_signature(R, 0), encode_dss_signature(R, ORDER),
    encode_dss_signature(ORDER + R, S), encode_dss_signature(R, S + ORDER),
    encode_dss_signature(2**600, S), bytes.fromhex("30060201ff020101"),
]  # fmt: skip


@pytest.mark.parametrize("signature", _NOT_SIGNATURES, ids=range(len(_NOT_SIGNATURES)))
def test_what_is_not_a_signature_is_wrong(fast: bool, signature: bytes) -> None:
    key = parse_public_key(ALICE.public_key, fast=fast)
    assert key is not None
    assert not key.verify(MESSAGE, signature)


@given(st.data())
def test_both_libraries_agree(data: st.DataObject) -> None:
    pytest.importorskip("coincurve")
    one, other = (parse_public_key(ALICE.public_key, fast=fast) for fast in (True, False))
    assert one is not None
    assert other is not None
    signature = bytearray(SIGNED)
    for _ in range(data.draw(st.integers(0, 3))):
        signature[data.draw(st.integers(0, len(signature) - 1))] = data.draw(st.integers(0, 255))
    message = data.draw(st.sampled_from([MESSAGE, b"\xff" * 32, bytes(32)]))
    assert one.verify(message, bytes(signature)) == other.verify(message, bytes(signature))


def _pem(der: bytes) -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN PUBLIC KEY-----\n" + body + b"-----END PUBLIC KEY-----\n"


def test_p256_for_other_dids() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    key = parse_public_key(pem)
    assert key is not None
    assert key.verify(MESSAGE, private.sign(MESSAGE, ec.ECDSA(Prehashed(SHA256()))))
    assert not key.verify(MESSAGE, SIGNED)


_NOT_KEYS = [
    b"", b"x", ALICE.public_key[:60], ALICE.public_key.replace(b"BEGIN PUBLIC", b"BEGIN PRIVATE"),
    bytes(5000), _pem(b""), _pem(b"\x04" * 65), _pem(bytes(33)), _pem(bytes(range(91))),
    _pem(b"\x30" * 4), b"-----BEGIN PUBLIC KEY-----\n!!\n-----END PUBLIC KEY-----\n",
    ALICE.public_key + b"x" * 5000,
    ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    ),
    ec.generate_private_key(ec.SECP384R1()).public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    ),
]  # fmt: skip


@pytest.mark.parametrize("pem", _NOT_KEYS, ids=range(len(_NOT_KEYS)))
def test_what_is_not_a_key_checks_nothing(pem: bytes) -> None:
    assert parse_public_key(pem) is None


@given(st.binary(max_size=200))
def test_any_key_gives_an_answer(der: bytes) -> None:
    parse_public_key(der)
    parse_public_key(_pem(der))


def test_counts() -> None:
    asked: list[str] = []

    def key(did: str) -> bytes | None:
        asked.append(did)
        return {"a": ALICE.public_key, "broken": b"x"}.get(did)

    checks = SignatureChecks(key)
    dids = ["a", "a", "broken", "nobody"]
    assert checks.count([Signature(did, MESSAGE, SIGNED) for did in dids], 2) == Counts(2, 0, 4)
    assert checks.count([Signature("a", MESSAGE[::-1], SIGNED)], 0) == Counts(1, 1, 0)
    assert asked == ["a", "broken", "nobody"]


def test_without_the_fast_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coincurve", None)
    checks = SignatureChecks({"a": ALICE.public_key}.get)
    assert checks.count([Signature("a", MESSAGE, SIGNED)], 0) == Counts(1, 0, 0)


# --- a node's own keys -----------------------------------------------------------


def test_a_nodes_keys(tmp_path: Path) -> None:
    rubix = tmp_path / "Rubix"
    write_public_keys(rubix, "test", [ALICE])
    write_public_keys(rubix, "main", [BOB])
    test, main = (NodeKeys(str(rubix / "rubix.db"), net) for net in ("test", "main"))  # type: ignore[arg-type]
    assert (test(ALICE.did), main(BOB.did)) == (ALICE.public_key, BOB.public_key)
    assert (test(BOB.did), main(ALICE.did)) == (None, None)


def test_a_key_of_somebody_else_is_not_taken(tmp_path: Path) -> None:
    write_public_keys(tmp_path, "test", [ALICE])
    place = tmp_path / "TestNetDID" / ALICE.did / "pubKey.pem"
    keys = NodeKeys(str(tmp_path / "rubix.db"), "test")
    for pem in (BOB.public_key, ALICE.public_key + b"\n", b"", b"x" * 100_000):
        place.write_bytes(pem)
        assert keys(ALICE.did) is None
    place.unlink()
    place.mkdir()
    assert keys(ALICE.did) is None


@pytest.mark.parametrize("did", ["", "..", "../../x", "/etc", "a\0b", "Qm" + "x" * 500, "é", "."])
def test_nothing_leads_out_of_the_directory(did: str, tmp_path: Path) -> None:
    (tmp_path / "TestNetDID").mkdir()
    (tmp_path / "pubKey.pem").write_bytes(ALICE.public_key)
    assert NodeKeys(str(tmp_path / "rubix.db"), "test")(did) is None


def test_a_did_follows_from_its_key(real_chains: Path) -> None:
    found = list(real_chains.glob("*/Rubix/TestNetDID/*/pubKey.pem"))
    assert len(found) > 30
    for path in found:
        assert lite_did_of(path.read_bytes()) == path.parent.name
    assert lite_did_of(b"short").startswith("bafybmi")
    with pytest.raises(ValueError, match="large"):
        lite_did_of(bytes(2**14))
