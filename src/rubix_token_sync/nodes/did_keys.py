"""Public keys of DIDs out of a node's directory, as far as they prove themselves.

A node keeps the ``pubKey.pem`` of each DID that it has dealt with in a directory named
after the DID: below ``Rubix/`` on the main net, below ``Rubix/TestNetDID/`` on the test net.
The DID of a lite node follows from the file, so that a key that is not the DID's own is
noticed, whoever put it there.  Other DIDs name more files than a node keeps: their keys come
from elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Literal

from rubix_token_sync import node_files
from rubix_token_sync.ipfs import cid as cids
from rubix_token_sync.ipfs.lite_did import lite_did_of

__all__ = ["LONGEST_DID", "TEST_DIDS", "Network", "NodeKeys"]

Network = Literal["main", "test"]
TEST_DIDS: Final = b"TestNetDID"

_NAME: Final = b"pubKey.pem"
LONGEST_DID: Final = 128
_PEM_BYTES: Final = 4096


class NodeKeys:
    """Public keys that a node keeps; a function from DIDs to ``pubKey.pem``.

    Args:
        db_path: the node's database, ``<node>/Rubix/rubix.db``.
        network: whose DIDs; None: it is not known, so both places are looked at.
        stall_s: a file system that gives no answer for this many seconds is given up.
    """

    def __init__(
        self,
        db_path: str,
        network: Network | None,
        *,
        stall_s: float = node_files.STALL_SECONDS,
    ) -> None:
        rubix = os.path.dirname(node_files.bytes_of(db_path))
        places = {"main": rubix, "test": os.path.join(rubix, TEST_DIDS)}
        self._directories = [places[network]] if network else list(places.values())
        self._stall_s = stall_s

    def __call__(self, did: str) -> bytes | None:
        """The DID's ``pubKey.pem``; None where the node has none that is the DID's.

        Raises:
            SourceError: ``stalled``.
        """
        if len(did) > LONGEST_DID or cids.parse(did) is None:
            return None  # and so nothing that could lead out of the directory
        name = did.encode("ascii")
        pems = (self._read(os.path.join(place, name, _NAME)) for place in self._directories)
        return next((pem for pem in pems if pem is not None and lite_did_of(pem) == did), None)

    def _read(self, path: bytes) -> bytes | None:
        try:
            pem, _ = node_files.bounded(
                lambda: node_files.read_file(path, _PEM_BYTES + 1, flags=os.O_NOFOLLOW),
                stall_s=self._stall_s,
            )
        except OSError:  # none there, or none that can be read: its signatures stay unchecked
            return None
        return pem if len(pem) <= _PEM_BYTES else None

    def many(self, dids: Sequence[str]) -> list[bytes | None]:
        """The same of each, by one thread that is waited for, not one for each of the files.

        Raises:
            SourceError: ``stalled``.
        """
        calls = node_files.BoundedCalls(self._stall_s)

        def read() -> list[bytes | None]:
            found = []
            for did in dids:
                found.append(self(did))
                calls.progress()
            return found

        try:
            return calls.call(read)
        finally:
            calls.close()
