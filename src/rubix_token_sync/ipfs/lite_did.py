"""The DID of a lite node, which follows from its public key.

It is the CID of an IPFS directory with the one file ``pubKey.pem``, as the node software
adds it: CIDv1 with sha3-256, the file as a raw block (seen on the DIDs of ten real nodes).
"""

from __future__ import annotations

from hashlib import sha3_256
from typing import Final

from rubix_token_sync.ipfs.cid import DAG_PB, cid_v1

__all__ = ["lite_did_of"]

_LONGEST_PEM: Final = 2**14 - 1  # what a length of two bytes can say
_NAME: Final = b"pubKey.pem"
_SHA3_256: Final = b"\x16\x20"  # of a multihash: the function and the length
_RAW_CID: Final = b"\x01\x55"
_DIRECTORY: Final = b"\x0a\x02\x08\x01"  # of UnixFS, after the links


def lite_did_of(pem: bytes) -> str:
    """The DID, 59 characters, for the contents of a ``pubKey.pem``.

    Raises:
        ValueError: it is larger than any public key.
    """
    length = len(pem)
    if length > _LONGEST_PEM:
        raise ValueError("no public key is that large")
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    file = _RAW_CID + _SHA3_256 + sha3_256(pem).digest()
    link = _field(b"\x0a", file) + _field(b"\x12", _NAME) + b"\x18" + size
    directory = _field(b"\x12", link) + _DIRECTORY
    return cid_v1(DAG_PB, _SHA3_256 + sha3_256(directory).digest())


def _field(tag: bytes, value: bytes) -> bytes:
    return tag + bytes([len(value)]) + value
