"""Identities as nodes have them: a key, the DID that is made of it, and what it signs.

A DID of a current ("lite") node is the CID of a directory with one file, ``pubKey.pem``:
the point of a secp256k1 key in base64 (seen on real nodes).  Signatures are ECDSA over the
first 32 characters of a hexadecimal hash.

The keys are made of small numbers and protect nothing.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from hashlib import sha3_256, shake_256
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from libipld import encode_multibase

from rubix_token_sync.testing.flatfs import Block, directory_block

__all__ = ["Identity", "did_of", "make_identity"]

_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # secp256k1's
_SHA3_256: Final = b"\x16\x20"
# The same bytes in every process and on every run (RFC 6979), as fleets need it.
_ECDSA: Final = ec.ECDSA(utils.Prehashed(hashes.SHA256()), deterministic_signing=True)


@dataclass(frozen=True, slots=True)
class Identity:
    """A DID with its key.

    Attributes:
        did: CIDv1, dag-pb, sha3-256, 59 characters.
        public_key: the file ``pubKey.pem``.
        blocks: the DID's directory and that file, for a node's repository.
    """

    did: str
    public_key: bytes
    blocks: tuple[Block, ...]
    _key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    def sign(self, digest: str) -> str:
        """The signature (ASN.1) of a hexadecimal hash of 64 characters, in hexadecimal."""
        return self._key.sign(digest[:32].encode("ascii"), _ECDSA).hex()


def make_identity(seed: int, number: int) -> Identity:
    """Identity ``number`` of ``seed``: always the same one."""
    secret = int.from_bytes(shake_256(b"identity %d %d" % (seed, number)).digest(48))
    key = ec.derive_private_key(secret % (_ORDER - 1) + 1, ec.SECP256K1())
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    text = base64.b64encode(point).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    pem = "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])
    did, blocks = did_of(pem.encode())
    return Identity(did, pem.encode(), blocks, key)


def did_of(public_key: bytes) -> tuple[str, tuple[Block, ...]]:
    """The DID of a file ``pubKey.pem``, and its blocks."""
    file = Block(b"\x01\x55" + _multihash(public_key), public_key)
    data = directory_block([("pubKey.pem", file.cid, len(public_key))])
    directory = Block(b"\x01\x70" + _multihash(data), data)
    return encode_multibase("b", directory.cid), (file, directory)


def _multihash(data: bytes) -> bytes:
    return _SHA3_256 + sha3_256(data).digest()
