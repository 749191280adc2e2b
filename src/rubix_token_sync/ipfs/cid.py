"""Content identifiers: parsing that refuses everything but a CID, and hash checks.

A CID (https://github.com/multiformats/cid) names content by its hash:

* version 0: 46 characters base58btc, ``Qm…``: sha2-256 of a dag-pb block;
* version 1: a multibase prefix (``b``, ``z``, ``f``, ``k``; ``B``, ``F``, ``K`` in
  upper case), then 1, the codec, the multihash.

Ids come from databases that anyone can write, so `parse` is strict: the text
must be exactly what encoding the parsed CID gives.  No ``/ipfs/`` prefix, no
white space, no padding, no second spelling of the same number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from libipld import decode_multibase, encode_multibase

__all__ = [
    "DAG_PB",
    "IDENTITY",
    "MAX_DIGEST_BYTES",
    "MAX_TEXT",
    "RAW",
    "SHA2_256",
    "Cid",
    "cid_v0",
    "cid_v1",
    "from_bytes",
    "hash_matches",
    "inline_block",
    "parse",
    "sha256_multihash",
    "to_bytes",
]

DAG_PB: Final = 0x70
RAW: Final = 0x55
IDENTITY: Final = 0x00
SHA2_256: Final = 0x12

MAX_DIGEST_BYTES: Final = 128
"""The longest digest accepted, as in Kubo (boxo ``verifcid``)."""

MAX_TEXT: Final = 320
"""The longest text that can be a CID: hexadecimal, longest digest, longest varints."""

_MIN_DIGEST_BYTES = 20  # shorter digests prove nothing; Kubo's bound too
_SHA256_PREFIX = b"\x12\x20"
_BASES = frozenset("bBzfFkK")


class Cid(NamedTuple):
    """A parsed CID.

    ``text`` is the spelling that was given (one of the canonical ones), ``codec``
    the multicodec number of the block, ``multihash`` code, length and digest.
    """

    text: str
    version: int
    codec: int
    multihash: bytes


_made: Final = tuple.__new__
"""A named tuple's own constructor takes 0.1 µs more."""


def parse(text: str) -> Cid | None:
    """The CID that ``text`` spells, or None when it is anything else.

    Costs about 1 µs for the usual ids and never more than a few for others,
    however long they are.
    """
    if len(text) == 46 and text.startswith("Qm"):
        try:
            raw: bytes = decode_multibase("z" + text)[1]
        except ValueError:
            return None
        # Base58 without leading zeros is one to one, so there is no second spelling.
        if len(raw) == 34 and raw.startswith(_SHA256_PREFIX):
            return _made(Cid, (text, 0, DAG_PB, raw))
        return None
    if len(text) > MAX_TEXT or text[:1] not in _BASES or not text.isascii():
        return None
    try:
        base, raw = decode_multibase(text)
    except ValueError:
        return None
    parts = _split_v1(raw)
    if parts is None or encode_multibase(base, raw) != text:
        return None
    return Cid(text, 1, *parts)


def from_bytes(raw: bytes) -> Cid | None:
    """The CID in binary form, as links between blocks hold it; None when it is anything else."""
    if len(raw) == 34 and raw.startswith(_SHA256_PREFIX):
        return Cid(cid_v0(raw[2:]), 0, DAG_PB, raw)
    parts = _split_v1(raw)
    return Cid(encode_multibase("b", raw), 1, *parts) if parts else None


def to_bytes(cid: Cid) -> bytes:
    """The binary form: the multihash alone in version 0."""
    if cid.version == 0:
        return cid.multihash
    return b"\x01" + _encode_varint(cid.codec) + cid.multihash


def sha256_multihash(digest: bytes) -> bytes:
    """The multihash for a sha2-256 digest of 32 bytes."""
    if len(digest) != 32:
        raise ValueError("a sha2-256 digest has 32 bytes")
    return _SHA256_PREFIX + digest


def cid_v0(digest: bytes) -> str:
    """The text of the version 0 CID for a sha2-256 digest of 32 bytes."""
    text: str = encode_multibase("z", sha256_multihash(digest))
    return text[1:]


def cid_v1(
    codec: int, multihash: bytes, base: Literal["b", "B", "z", "f", "F", "k", "K"] = "b"
) -> str:
    """The text of a version 1 CID in the given multibase."""
    text: str = encode_multibase(base, b"\x01" + _encode_varint(codec) + multihash)
    return text


def hash_matches(multihash: bytes, block: bytes) -> bool | None:
    """Whether ``block`` has this multihash; None when the hash function cannot tell.

    None stands for functions this program does not know, for sha1 (collisions
    can be made) and for digests cut so short that a forgery is cheap.
    """
    if multihash.startswith(_SHA256_PREFIX):
        return hashlib.sha256(block).digest() == multihash[2:]
    code, size, digest = _split_multihash(multihash)
    if code == IDENTITY:
        return digest == block
    function = _hash_function(code)
    if function is None or size < _MIN_DIGEST_BYTES:
        return None
    whole = function(block)
    return size <= len(whole) and whole[:size] == digest


def inline_block(cid: Cid) -> bytes | None:
    """The block that an identity CID carries in itself; None for every other CID."""
    if cid.multihash[0] != IDENTITY:
        return None
    return _split_multihash(cid.multihash)[2]


def _split_v1(raw: bytes) -> tuple[int, bytes] | None:
    """Codec and multihash of a binary version 1 CID; None when it is anything else."""
    if raw[:1] != b"\x01":
        return None
    codec = _decode_varint(raw, 1)
    if codec is None:
        return None
    code = _decode_varint(raw, codec[1])
    if code is None:
        return None
    size = _decode_varint(raw, code[1])
    if size is None or size[0] > MAX_DIGEST_BYTES or size[1] + size[0] != len(raw):
        return None
    return codec[0], raw[codec[1] :]


def _split_multihash(multihash: bytes) -> tuple[int, int, bytes]:
    """Code, length and digest of a multihash that has been parsed before."""
    code = _decode_varint(multihash, 0)
    size = _decode_varint(multihash, code[1]) if code else None
    if code is None or size is None:
        raise ValueError("not a multihash")
    return code[0], size[0], multihash[size[1] :]


def _decode_varint(data: bytes, at: int) -> tuple[int, int] | None:
    """An unsigned varint (at most 9 bytes, shortest form only) and where it ends."""
    value = 0
    for index, byte in enumerate(data[at : at + 9]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return None if byte == 0 and index else (value, at + index + 1)
    return None


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _sized(name: str) -> Callable[[bytes], bytes]:
    return lambda block: hashlib.new(name, block).digest()


# Numbers: https://github.com/multiformats/multicodec/blob/master/table.csv
_FUNCTIONS: Final[dict[int, Callable[[bytes], bytes]]] = {
    0x12: _sized("sha256"),
    0x13: _sized("sha512"),
    0x14: _sized("sha3_512"),
    0x15: _sized("sha3_384"),
    0x16: _sized("sha3_256"),
    0x17: _sized("sha3_224"),
    0x20: _sized("sha384"),
    0x56: lambda block: hashlib.sha256(hashlib.sha256(block).digest()).digest(),
}


def _hash_function(code: int) -> Callable[[bytes], bytes] | None:
    if 0xB201 <= code <= 0xB240:  # blake2b, by the length of its digest
        size = code - 0xB200
        return lambda block: hashlib.blake2b(block, digest_size=size).digest()
    if 0xB241 <= code <= 0xB260:  # blake2s
        size = code - 0xB240
        return lambda block: hashlib.blake2s(block, digest_size=size).digest()
    return _FUNCTIONS.get(code)
