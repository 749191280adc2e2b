"""The Merkle tree of RFC 6962 (SHA-256), and proofs that a leaf is in it.

The tree of a list is defined recursively: the hash of a leaf is SHA-256 of a zero byte and the
leaf; that of a node SHA-256 of a one byte and its two children; the left child is the largest
complete tree that leaves something for the right one.  So a list is cut into complete trees of
`BLOCK` leaves, each hashed when it is full: what is kept of a million leaves is 4,000 hashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

__all__ = [
    "BLOCK",
    "EMPTY_ROOT",
    "HASH_BYTES",
    "BlockTree",
    "inclusion_path",
    "leaf_hash",
    "node_hash",
    "root_from_path",
    "root_of",
]

HASH_BYTES: Final = 32
BLOCK: Final = 256
"""Leaves of one complete tree; a power of two."""
EMPTY_ROOT: Final = sha256().digest()


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf."""
    return sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two trees beside each other."""
    return sha256(b"\1" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The hash of the tree whose leaves, or whose complete trees of one size, have these hashes."""
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    while len(level) > 1:
        level = _above(level)
    return level[0]


def _above(level: Sequence[bytes]) -> list[bytes]:
    """Pairs as one hash each; a last one without a sibling moves up as it is."""
    whole = len(level) & ~1
    joined = b"".join(level[:whole])
    new, size = sha256, 2 * HASH_BYTES
    above = [new(b"\1" + joined[at : at + size]).digest() for at in range(0, len(joined), size)]
    above.extend(level[whole:])
    return above


def inclusion_path(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """What a verifier needs beside the hash at ``index``, from the leaf upwards (RFC 6962, 2.1.1).

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < len(hashes):
        raise IndexError(index)
    path, level = [], list(hashes)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        level, index = _above(level), index // 2
    return path


def root_from_path(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes | None:
    """The root of a tree of ``size`` leaves in which the hash ``leaf`` stands at ``index``.

    None: the path has the wrong length for that place.  (RFC 9162, 2.1.3.2.)
    """
    if not 0 <= index < size:
        return None
    place, last, found = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    return found if last == 0 else None


class BlockTree:
    """A tree that is given its leaves in order; memory: 32 bytes for `BLOCK` of them."""

    def __init__(self) -> None:
        self.size = 0
        self.blocks: list[bytes] = []
        """Hashes of the complete trees of `BLOCK` leaves so far."""
        self._rest: list[bytes] = []

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Add leaves behind those that are there."""
        new = sha256
        self._rest += [new(b"\0" + leaf).digest() for leaf in leaves]
        self.size += len(leaves)
        whole = len(self._rest) // BLOCK * BLOCK
        for at in range(0, whole, BLOCK):
            self.blocks.append(root_of(self._rest[at : at + BLOCK]))
        del self._rest[:whole]

    def all_blocks(self) -> list[bytes]:
        """The hashes of all blocks, the last one with fewer leaves if need be."""
        return [*self.blocks, root_of(self._rest)] if self._rest else list(self.blocks)

    def root(self) -> bytes:
        """The hash of the tree so far."""
        return root_of(self.all_blocks())
