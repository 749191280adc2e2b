"""Signatures of part, test and data tokens, and the keys of DIDs.

A DID's directory in IPFS holds ``pubKey.pem`` (`rubix_token_sync.ipfs.directories`).  Lite DIDs
sign with secp256k1, and their file holds the bare point instead of a SubjectPublicKeyInfo;
all others sign with P-256.  Both as in rubixgoplatform v0.0.20 (``crypto``, ``did``); the first
is seen on real nodes, the second is known from the source only.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

from rubix_token_sync.ipfs import cid as cids
from rubix_token_sync.ipfs.blocks import Fetch
from rubix_token_sync.ipfs.directories import file_in
from rubix_token_sync.records.rac import RacContent

__all__ = [
    "MAX_KEY_BYTES",
    "PUBLIC_KEY_NAME",
    "KeyOf",
    "keys_from",
    "public_key",
    "signed_by",
]

KeyOf = Callable[[str], bytes | None]
"""Gives the ``pubKey.pem`` of a DID, proven to be this DID's; None where it is not at hand."""

PUBLIC_KEY_NAME: Final = b"pubKey.pem"
"""The file in a DID's directory."""

MAX_KEY_BYTES: Final = 1024
"""Real files have 142 to 178 bytes."""

_PEM: Final = re.compile(
    rb"\s*-----BEGIN PUBLIC KEY-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END PUBLIC KEY-----\s*"
)
_POINT_SIZES: Final = {33: b"\x02\x03", 65: b"\x04"}
"""Length of a bare point (compressed, uncompressed) and the first bytes it may have."""
_PREHASHED: Final = ec.ECDSA(utils.Prehashed(hashes.SHA256()))  # 32 bytes that are signed as is


def public_key(pem: bytes) -> ec.EllipticCurvePublicKey | None:
    """The key in a DID's ``pubKey.pem``; None when it holds none on the two curves."""
    if len(pem) > MAX_KEY_BYTES:
        return None
    match = _PEM.fullmatch(pem)
    if match is None:
        return None
    try:
        data = base64.b64decode(re.sub(rb"[\r\n]", b"", match[1]), validate=True)
    except binascii.Error:
        return None
    try:
        if data[:1] and data[0] in _POINT_SIZES.get(len(data), b""):
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), data)
        key = load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm):  # not on the curve, or another kind of key
        return None
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(
        key.curve, ec.SECP256R1 | ec.SECP256K1
    ):
        return key
    return None


def signed_by(key: ec.EllipticCurvePublicKey, content: RacContent) -> bool:
    """Whether the owner of ``key`` signed this content; about 0.1 ms on P-256, 0.5 on the other."""
    try:
        key.verify(content.signature, content.signed, _PREHASHED)
    except InvalidSignature:
        return False
    return True


def keys_from(fetch: Fetch) -> KeyOf:
    """Keys out of blocks, proven by their hashes from the DID down; nothing is remembered.

    Args:
        fetch: gives a verified block of any hash function that `rubix_token_sync.ipfs.cid`
            knows: DIDs are named by sha3-256.
    """

    def key_of(did: str) -> bytes | None:
        directory = cids.parse(did)
        found = file_in(directory, PUBLIC_KEY_NAME, fetch) if directory is not None else None
        return found if isinstance(found, bytes) else None

    return key_of
