"""RFC 6962, section 2.1, word for word: slow, recursive, and written without the program."""

from __future__ import annotations

import hashlib


def mth(leaves: list[bytes]) -> bytes:
    """The Merkle Tree Hash of a list."""
    n = len(leaves)
    if n == 0:
        return hashlib.sha256(b"").digest()
    if n == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = split(n)
    return hashlib.sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def split(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """The audit path of the leaf m."""
    n = len(leaves)
    if n == 1:
        return []
    k = split(n)
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def root(m: int, n: int, leaf: bytes, audit_path: list[bytes]) -> bytes:
    """The root that the path gives, from the definition of the path itself."""
    if n == 1:
        if audit_path:
            raise ValueError("too long")
        return hashlib.sha256(b"\x00" + leaf).digest()
    *inner, last = audit_path
    k = split(n)
    if m < k:
        return hashlib.sha256(b"\x01" + root(m, k, leaf, inner) + last).digest()
    return hashlib.sha256(b"\x01" + last + root(m - k, n - k, leaf, inner)).digest()
