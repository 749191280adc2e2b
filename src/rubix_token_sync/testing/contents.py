"""Contents of tokens as real Rubix software makes them (source: rubixgoplatform v0.0.20).

Everything here is pure and deterministic: the same arguments give the same
bytes in every process, so a fleet can be written by many workers and its truth
can be recomputed without reading it.
"""

from __future__ import annotations

import json
from functools import cache
from hashlib import sha3_256, sha256, shake_128
from importlib.resources import files

from libipld import encode_multibase

__all__ = [
    "fungible_token",
    "level_limits",
    "make_did",
    "nft_token",
    "part_token",
    "sized_content",
    "whole_token",
]

_DID_PREFIX = b"\x01\x70\x16\x20"  # CIDv1, dag-pb, sha3-256, 32 bytes: `bafybmi…`


@cache
def level_limits() -> tuple[int, ...]:
    """How many whole tokens each level has; the index is the level (0 has none)."""
    text = files(__package__).joinpath("token_levels.csv").read_text(encoding="ascii")
    rows = [line.split(",") for line in text.splitlines()[1:]]
    if [int(level) for level, _ in rows] != list(range(len(rows))):
        raise ValueError("token_levels.csv must list the levels 0, 1, 2, … in order")
    return tuple(int(limit) for _, limit in rows)


def whole_token(level: int, number: int, *, digits: int = 3, newline: bool = False) -> bytes:
    """Content of the whole token ``number`` of ``level``.

    The level as ``digits`` digits (old software used 2 for level 1), then the
    sha256 of the decimal number as 64 hex characters: 67 bytes.

    Raises:
        ValueError: no such level, or ``number`` is not below the level's limit.
    """
    limits = level_limits()
    if not 0 < level < len(limits) or not 0 <= number < limits[level]:
        raise ValueError(f"level {level} has no token number {number}")
    text = f"{level:0{digits}d}{sha256(b'%d' % number).hexdigest()}"
    return (text + "\n" if newline else text).encode()


def part_token(seed: int, number: int, *, size: int = 240) -> bytes:
    """Content of a part token: ``size`` (even) hex characters that stand for a RAC block."""
    return shake_128(b"part %d %d" % (seed, number)).hexdigest(size // 2).encode()


def fungible_token(name: str, number: int, creator_did: str) -> bytes:
    """Content of a fungible token: ``NAME NUMBER CREATOR_DID``."""
    return f"{name} {number} {creator_did}".encode()


def nft_token(seed: int, number: int) -> bytes:
    """Content of a non-fungible token: JSON in UTF-8 with characters beyond ASCII."""
    document = {"nft": number, "name": f"Kunststück № {number} ☃", "collection": seed}
    return json.dumps(document, ensure_ascii=False).encode()


def sized_content(seed: int, number: int, size: int) -> bytes:
    """``size`` bytes of text that no other number has (from 16 bytes on)."""
    return shake_128(b"sized %d %d" % (seed, number)).hexdigest((size + 1) // 2)[:size].encode()


def make_did(seed: int, number: int) -> str:
    """A DID as current nodes have it: CIDv1, dag-pb, sha3-256, 59 characters."""
    digest = sha3_256(b"did %d %d" % (seed, number)).digest()
    text: str = encode_multibase("b", _DID_PREFIX + digest)
    return text
