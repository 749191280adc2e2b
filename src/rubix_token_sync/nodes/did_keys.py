"""Public keys of DIDs out of a node's directory, as far as they prove themselves.

A node keeps the ``pubKey.pem`` of each DID that it has dealt with in a directory named
after the DID: below ``Rubix/`` on the main net, below ``Rubix/TestNetDID/`` on the test net.
The DID of a lite node is the CID of an IPFS directory with that one file, so it follows from
the file: a key that is not the DID's own is noticed, whoever put it there.
"""

from __future__ import annotations

import os
from hashlib import sha3_256
from typing import Final, Literal

from rubix_token_sync import node_files
from rubix_token_sync.ipfs import cid as cids
from rubix_token_sync.ipfs.cid import DAG_PB

__all__ = ["NodeKeys", "lite_did_of"]

_NAME: Final = b"pubKey.pem"
_LONGEST_DID: Final = 128
_PEM_BYTES: Final = 4096
_SHA3_256: Final = b"\x16\x20"  # of a multihash: the function and the length
_RAW_CID: Final = b"\x01\x55"
_DIRECTORY: Final = b"\x0a\x02\x08\x01"  # of UnixFS, after its links


class NodeKeys:
    """Public keys that a node keeps; a function from DIDs to ``pubKey.pem``.

    Args:
        db_path: the node's database, ``<node>/Rubix/rubix.db``.
        network: whose DIDs.
        stall_s: a file system that gives no answer for this many seconds is given up.
    """

    def __init__(
        self,
        db_path: str,
        network: Literal["main", "test"],
        *,
        stall_s: float = node_files.STALL_SECONDS,
    ) -> None:
        rubix = os.path.dirname(node_files.bytes_of(db_path))
        self._directory = rubix if network == "main" else os.path.join(rubix, b"TestNetDID")
        self._stall_s = stall_s

    def __call__(self, did: str) -> bytes | None:
        """The DID's ``pubKey.pem``; None where the node has none that is the DID's.

        Raises:
            SourceError: ``stalled``.
        """
        if len(did) > _LONGEST_DID or cids.parse(did) is None:
            return None  # and so nothing that could lead out of the directory
        path = os.path.join(self._directory, did.encode("ascii"), _NAME)
        try:
            pem, _ = node_files.bounded(
                lambda: node_files.read_file(path, _PEM_BYTES + 1, flags=os.O_NOFOLLOW),
                stall_s=self._stall_s,
            )
        except OSError:  # none there, or none that can be read: its signatures stay unchecked
            return None
        return pem if len(pem) <= _PEM_BYTES and lite_did_of(pem) == did else None


def lite_did_of(pem: bytes) -> str:
    """The DID of a lite node with this ``pubKey.pem``: the CID of a directory of that file."""
    if len(pem) >= 2**14:
        raise ValueError("no public key is that large")
    size = bytes([len(pem)]) if len(pem) < 128 else bytes([len(pem) & 127 | 128, len(pem) >> 7])
    file = _RAW_CID + _SHA3_256 + sha3_256(pem).digest()
    link = b"\x0a" + bytes([len(file)]) + file + b"\x12" + bytes([len(_NAME)]) + _NAME
    link += b"\x18" + size
    directory = b"\x12" + bytes([len(link)]) + link + _DIRECTORY
    return cids.cid_v1(DAG_PB, _SHA3_256 + sha3_256(directory).digest())
