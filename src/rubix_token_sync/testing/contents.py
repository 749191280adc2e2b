"""Contents of tokens as real Rubix software makes them (rubixgoplatform v0.0.20).

Everything here is pure and deterministic: the same arguments give the same
bytes in every process, so a fleet can be written by many workers and its truth
can be recomputed without reading it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import sha3_256, sha256, shake_128
from importlib.resources import files

import cbor2
from libipld import encode_multibase

__all__ = [
    "contract_document",
    "encode_rac",
    "faucet_token",
    "fungible_token",
    "level_limits",
    "make_did",
    "nft_document",
    "nft_token",
    "part_token",
    "rac_fields",
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
    """``size`` (even) hex characters that stand for a RAC block: cheap, but not one.

    `rubix_token_sync.testing.tokens.make_part` gives real ones.
    """
    return shake_128(b"part %d %d" % (seed, number)).hexdigest(size // 2).encode()


def fungible_token(name: str, number: int, creator_did: str) -> bytes:
    """Content of a fungible token: ``NAME NUMBER CREATOR_DID``."""
    return f"{name} {number} {creator_did}".encode()


def nft_token(seed: int, number: int) -> bytes:
    """JSON in UTF-8 with characters beyond ASCII; nodes write `nft_document`."""
    document = {"nft": number, "name": f"Kunststück № {number} ☃", "collection": seed}
    return json.dumps(document, ensure_ascii=False).encode()


def faucet_token(name: str, level: int, number: int) -> bytes:
    """Content of a test token that a faucet gave away."""
    return f"Faucet Name : {name}, Token Level : {level}, Token Number : {number}".encode()


def nft_document(creator_did: str, artifact: str) -> bytes:
    """Content of an NFT; ``artifact`` is the CID of a directory."""
    return _document({"DID": creator_did, "ArtifactHash": artifact})


def contract_document(creator_did: str, binary_code: str, raw_code: str, schema: str) -> bytes:
    """Content of a smart contract; the last three are CIDs of files."""
    return _document(
        {
            "binaryCodeHash": binary_code,
            "rawCodeHash": raw_code,
            "schemaCodeHash": schema,
            "did": creator_did,
        }
    )


def _document(fields: Mapping[str, str]) -> bytes:
    return json.dumps(fields, indent=2, ensure_ascii=False).encode()


def rac_fields(kind: int, creator_did: str, **more: object) -> dict[str, object]:
    """The fields of a RAC block: ``kind`` 0 for test tokens, 7 for part and data tokens.

    ``more`` are others by their numbers: ``_6`` the time, ``_13`` the part.
    """
    fields: dict[str, object] = {"1": kind, "2": 1, "3": creator_did, "4": 0, "5": 1}
    return fields | {name.removeprefix("_"): value for name, value in more.items()}


def encode_rac(fields: Mapping[str, object], sign: Callable[[str], str]) -> bytes:
    """Content of a part, test or data token: hexadecimal of a signed CBOR block.

    ``sign`` gives the signature, in hexadecimal, for the hash of the fields: 64
    hexadecimal characters (`rubix_token_sync.testing.identities.Identity.sign`).
    """
    # Nodes write canonical CBOR (RFC 7049, 3.9): short keys first, floats as short as they go.
    content = cbor2.dumps(fields, canonical=True)
    block = {"1": content, "2": sign(sha3_256(content).hexdigest())}
    return cbor2.dumps(block).hex().encode()


def sized_content(seed: int, number: int, size: int) -> bytes:
    """``size`` bytes of text that no other number has (from 16 bytes on)."""
    return shake_128(b"sized %d %d" % (seed, number)).hexdigest((size + 1) // 2)[:size].encode()


def make_did(seed: int, number: int) -> str:
    """A DID as current nodes have it: CIDv1, dag-pb, sha3-256, 59 characters."""
    digest = sha3_256(b"did %d %d" % (seed, number)).digest()
    text: str = encode_multibase("b", _DID_PREFIX + digest)
    return text
