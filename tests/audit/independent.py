"""Ids of whole tokens computed with nothing of the package: hashlib, protobuf by hand, base58."""

from __future__ import annotations

import hashlib

from tests.ipfs.trees import leaf

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def base58(data: bytes) -> str:
    number = int.from_bytes(data)
    out = ""
    while number:
        number, digit = divmod(number, 58)
        out = ALPHABET[digit] + out
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + out


def content(level: int, number: int, digits: int = 3, end: str = "") -> bytes:
    hash_ = hashlib.sha256(str(number).encode()).hexdigest()
    return (str(level).rjust(digits, "0") + hash_ + end).encode()


def id_of(data: bytes) -> str:
    """What ``ipfs add`` answers for a content of up to one chunk."""
    return base58(b"\x12\x20" + hashlib.sha256(leaf(data)).digest())
