"""Public keys of DIDs out of a node's directory, as far as they prove themselves.

A node keeps the ``pubKey.pem`` of each DID that it has dealt with in a directory named
after the DID: below ``Rubix/`` on the main net, below ``Rubix/TestNetDID/`` on the test net.
The DID of a lite node follows from the file, so that a key that is not the DID's own is
noticed, whoever put it there.  Other DIDs name more files than a node keeps: their keys come
from elsewhere.
"""

from __future__ import annotations

import os
from typing import Final, Literal

from rubix_token_sync import node_files
from rubix_token_sync.ipfs import cid as cids
from rubix_token_sync.ipfs.lite_did import lite_did_of

__all__ = ["NodeKeys"]

_NAME: Final = b"pubKey.pem"
_LONGEST_DID: Final = 128
_PEM_BYTES: Final = 4096


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
