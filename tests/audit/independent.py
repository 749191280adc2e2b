"""Ids of whole tokens computed with nothing of the package: hashlib, protobuf by hand, base58."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rubix_token_sync.ipfs.cid import Cid
from rubix_token_sync.ipfs.content import Failure, FailureCode
from tests.ipfs.trees import key_of, leaf

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


class Blocks:
    """The blocks of repositories on disk (flatfs, by multihash), proven by their hashes."""

    def __init__(self, *repositories: Path) -> None:
        self.repositories = repositories

    def __call__(self, cid: Cid) -> bytes | Failure:
        key = key_of(cid.multihash)
        for repository in self.repositories:
            path = repository / "blocks" / key[-3:-1] / f"{key}.data"
            if path.is_file():
                block = path.read_bytes()
                function = {0x12: hashlib.sha256, 0x16: hashlib.sha3_256}[cid.multihash[0]]
                assert function(block).digest() == cid.multihash[2:]
                return block
        return Failure(FailureCode.NOT_IN_REPOSITORY, "not here")
