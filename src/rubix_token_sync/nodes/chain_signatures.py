"""Signatures of blocks: checked with the signer's public key, or counted as not checked.

A lite DID signs with secp256k1, any other with P-256 (node software v0.0.20,
``did/lite.go``, ``did/basic.go``).  Which one a key is for shows in its form: a bare point
in PEM, or a PKIX structure that names its curve.

OpenSSL takes 0.3 to 0.5 ms for one secp256k1 signature; libsecp256k1, through the package
`coincurve`, 0.04 ms.  Without that package the answers are the same, and later.
"""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, Final, NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from rubix_token_sync.nodes.chain_blocks import Signature

__all__ = ["Counts", "PublicKey", "SignatureChecks", "Verifier", "parse_public_key"]

PublicKey = Callable[[str], bytes | None]
"""The contents of a DID's ``pubKey.pem``; None where it is not at hand."""

_PEM_BYTES: Final = 4096
_POINT_BYTES: Final = (33, 65)
_KEYS: Final = 10_000  # remembered; a node deals with tens
_SECP256K1_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_PREHASHED: Final = ec.ECDSA(Prehashed(SHA256()))  # of 32 bytes: the signed ones are not hashed


class Verifier(Protocol):
    """A public key that checks signatures."""

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether the key's owner signed the 32 bytes of ``message``; total."""
        ...


class Counts(NamedTuple):
    """How the signatures of a block, or of a chain, turned out."""

    checked: int = 0
    """Right or wrong."""
    wrong: int = 0
    unchecked: int = 0
    """No public key at hand, or of a form that cannot be checked."""


class SignatureChecks:
    """Checks signatures; remembers the keys it was given."""

    def __init__(self, public_key: PublicKey) -> None:
        self._public_key = public_key
        self._keys: OrderedDict[str, Verifier | None] = OrderedDict()

    def count(self, signatures: Iterable[Signature], uncheckable: int) -> Counts:
        """How these signatures turn out; ``uncheckable`` further ones are not checked."""
        checked = wrong = 0
        for did, message, signature in signatures:
            key = self._key(did)
            if key is None:
                uncheckable += 1
                continue
            checked += 1
            wrong += not key.verify(message, signature)
        return Counts(checked, wrong, uncheckable)

    def _key(self, did: str) -> Verifier | None:
        try:
            self._keys.move_to_end(did)
            return self._keys[did]
        except KeyError:
            pem = self._public_key(did)
        key = self._keys[did] = parse_public_key(pem) if pem is not None else None
        if len(self._keys) > _KEYS:
            self._keys.popitem(last=False)
        return key


def parse_public_key(pem: bytes, *, fast: bool = True) -> Verifier | None:
    """The key in a ``pubKey.pem``; None where it is none of the two curves.

    Args:
        pem: hostile as everything of a node.
        fast: use `coincurve` where it is installed.
    """
    lines = pem[: _PEM_BYTES + 1].split()
    if len(pem) > _PEM_BYTES or lines[:3] != [b"-----BEGIN", b"PUBLIC", b"KEY-----"]:
        return None
    try:
        raw = base64.b64decode(b"".join(lines[3 : lines.index(b"-----END")]), validate=True)
        if len(raw) in _POINT_BYTES:
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), raw)
        else:
            loaded = load_der_public_key(raw)
            if not isinstance(loaded, ec.EllipticCurvePublicKey):
                return None
            point = loaded
    except (binascii.Error, UnsupportedAlgorithm, ValueError):
        return None
    if isinstance(point.curve, ec.SECP256K1):
        native = _libsecp256k1() if fast else None
        return _Fast(native(_encoded(point))) if native is not None else _Usual(point)
    return _Usual(point) if isinstance(point.curve, ec.SECP256R1) else None


def _encoded(point: ec.EllipticCurvePublicKey) -> bytes:
    numbers = point.public_numbers()
    return b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def _libsecp256k1() -> Callable[[bytes], Any] | None:
    try:
        public_key: Callable[[bytes], Any] = import_module("coincurve").PublicKey
    except ImportError:  # it is optional, and cryptography can do the same
        return None
    return public_key


class _Usual:
    def __init__(self, point: ec.EllipticCurvePublicKey) -> None:
        self._point = point

    def verify(self, message: bytes, signature: bytes) -> bool:
        try:
            decode_dss_signature(signature)  # one judge of the form for both libraries
            self._point.verify(signature, message, _PREHASHED)
        except (InvalidSignature, ValueError):
            return False
        return True


class _Fast:
    def __init__(self, native: Any) -> None:
        self._native = native

    def verify(self, message: bytes, signature: bytes) -> bool:
        try:
            r, s = decode_dss_signature(signature)
        except ValueError:
            return False
        if not (0 < r < _SECP256K1_ORDER and 0 < s < _SECP256K1_ORDER):
            return False
        if s > _SECP256K1_ORDER // 2:
            # Of the two valid forms libsecp256k1 accepts one; nodes write either.
            signature = encode_dss_signature(r, _SECP256K1_ORDER - s)
        return bool(self._native.verify(signature, message, hasher=None))
