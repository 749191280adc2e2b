"""Keys of DIDs on both curves, and what they signed."""

from __future__ import annotations

import base64
from hashlib import sha3_256

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.audit.signatures import (
    MAX_KEY_BYTES,
    keys_from,
    public_key,
    signed_by,
)
from rubix_token_sync.ipfs.lite_did import lite_did_of
from rubix_token_sync.records.rac import RacContent, decode_rac
from tests.audit.real_nodes import RealNodes

PREHASHED = ec.ECDSA(utils.Prehashed(hashes.SHA256()))


def signed_content(key: ec.EllipticCurvePrivateKey, kind: int = 0) -> RacContent:
    """As the node writes it: the signature is over the first 32 characters of the hash's text."""
    inner = cbor2.dumps({"1": kind, "2": 1, "3": "bafybmi…"})
    signature = key.sign(sha3_256(inner).hexdigest()[:32].encode(), PREHASHED)
    block = cbor2.dumps({"1": inner, "2": signature.hex()})
    content = decode_rac(block.hex().encode())
    assert content is not None
    return content


def pem(data: bytes) -> bytes:
    text = base64.encodebytes(data)
    return b"-----BEGIN PUBLIC KEY-----\n" + text + b"-----END PUBLIC KEY-----\n"


def bare(key: ec.EllipticCurvePrivateKey, *, compressed: bool = False) -> bytes:
    """The file of a lite DID."""
    form = serialization.PublicFormat
    return pem(
        key.public_key().public_bytes(
            serialization.Encoding.X962,
            form.CompressedPoint if compressed else form.UncompressedPoint,
        )
    )


def info(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    """The file of any other DID."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


LITE = ec.generate_private_key(ec.SECP256K1())
BASIC = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("owner", "file"),
    [
        (LITE, bare(LITE)),
        (LITE, bare(LITE, compressed=True)),
        (LITE, info(LITE)),
        (BASIC, info(BASIC)),
        (BASIC, info(BASIC).replace(b"\n", b"\r\n")),
        (BASIC, info(BASIC).rstrip()),
    ],
    ids=["bare point", "compressed point", "secp256k1", "P-256", "Windows", "no line end"],
)
def test_both_curves(owner: ec.EllipticCurvePrivateKey, file: bytes) -> None:
    key = public_key(file)
    assert key is not None
    assert signed_by(key, signed_content(owner))
    assert not signed_by(key, signed_content(ec.generate_private_key(owner.curve)))


POINT = LITE.public_key().public_bytes(
    serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
)


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----",
        b"-----BEGIN PUBLIC KEY-----\n===\n-----END PUBLIC KEY-----",
        info(LITE).replace(b"PUBLIC", b"PRIVATE"),
        info(LITE) * 2,
        b" " * MAX_KEY_BYTES + info(LITE),
        pem(b""),
        pem(POINT[:-1]),
        pem(POINT[:-1] + bytes((POINT[-1] ^ 1,))),
        pem(bytes(65)),
        pem(b"\x04" + bytes(64)),
        pem(b"\x02" + b"\xff" * 32),
        info(ec.generate_private_key(ec.SECP384R1())),
        info(ed25519.Ed25519PrivateKey.generate()),
    ],
)
def test_what_is_not_a_key(file: bytes) -> None:
    assert public_key(file) is None


@given(st.binary(max_size=200))
def test_any_file_can_be_looked_at(data: bytes) -> None:
    public_key(data)
    public_key(pem(data))


@given(st.binary(max_size=80))
def test_any_signature_can_be_looked_at(signature: bytes) -> None:
    content = signed_content(LITE)
    changed = RacContent(
        content.type, content.creator_did, None, content.signed_hash, signature, content.fields
    )
    assert not signed_by(LITE.public_key(), changed)


def test_a_lite_did_is_made_of_its_key(nodes: RealNodes) -> None:
    assert len(nodes.key_files) == 12
    for did, file in nodes.key_files.items():
        assert lite_did_of(file) == did
        assert lite_did_of(file + b"\n") != did
    found = [did for did in nodes.key_files if keys_from(nodes.block)(did) is not None]
    assert len(found) >= 7
    assert all(keys_from(nodes.block)(did) == nodes.key_files[did] for did in found)
    for did in ("", "no DID", "bafkqaaa", "Qm" + "1" * 44, next(iter(nodes.contents))):
        assert keys_from(nodes.block)(did) is None
