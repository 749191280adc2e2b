"""Contents of part, test and data tokens: hexadecimal text of a signed CBOR block ("RAC").

The node software (rubixgoplatform v0.0.20, package ``rac``) writes, as seen on real nodes::

    {"1": content, "2": signature}                 content: CBOR in a byte string
    content: {"1": type, "2": version, "3": creator's DID, "4": token number, "5": total supply,
              "6": time, …, "13": {"1": parent, "2": part number, "3": value}}

Key 13 is there for part tokens only; type 0 is a test token.  The signature is ECDSA in ASN.1,
as hexadecimal text, over the first 32 characters of the hexadecimal SHA3-256 of ``content``.
The block is what anyone may have added to IPFS: it is decoded without tags, without indefinite
lengths, without repeated keys and without bytes behind it, to a small depth, or not at all.
Proving the signature is `rubix_token_sync.audit`'s part.
"""

from __future__ import annotations

import binascii
import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha3_256
from typing import Any, Final, NoReturn, TypeGuard

import cbor2

from rubix_token_sync.ipfs.content import CONTENT_LIMIT

__all__ = ["MAX_SIGNATURE_BYTES", "TEST_TOKEN", "RacContent", "RacPart", "decode_rac"]

TEST_TOKEN: Final = 0
"""The type of a token that the test network's nodes mint freely."""

MAX_SIGNATURE_BYTES: Final = 256
"""An ECDSA signature in ASN.1 has at most 72 bytes on both curves; more is not one."""

_MAX_DEPTH: Final = 8  # real contents have two levels
_MAX_TEXT: Final = 1000  # the DID's column holds as many
_INTEGERS: Final = range(1 << 63)
_TEXT: Final = frozenset({str})


@dataclass(frozen=True, slots=True)
class RacPart:
    """What a part token says of itself."""

    parent: str
    """The token it was split from; hostile text until it has parsed as a CID."""
    number: int
    """Its place among the parts of its parent, counted from 0; at most 2**63 - 1."""
    value: float
    """Its value in RBT: finite, but otherwise whatever was written."""


@dataclass(frozen=True, slots=True)
class RacContent:
    """A decoded block: the fields that are read by name, and all others as they are."""

    type: int
    """0: test token (`TEST_TOKEN`); other numbers differ between versions of the node."""
    creator_did: str
    """The DID that is said to have signed; 1 to 1,000 characters, otherwise unchecked."""
    part: RacPart | None
    """Set for part tokens, and for nothing else."""
    signed_hash: str
    """SHA3-256 of the content's CBOR, 64 lower-case hexadecimal characters."""
    signature: bytes
    """ASN.1 ECDSA; empty when it is absent, not hexadecimal, or too long to be one."""
    fields: Mapping[str, Any]
    """The whole content by its keys ("1", "2" …): numbers, texts, bytes, lists, maps."""

    @property
    def signed(self) -> bytes:
        """The 32 bytes that were signed: the first half of the hash's hexadecimal text."""
        return self.signed_hash[:32].encode("ascii")

    @property
    def parent(self) -> str | None:
        """The parent of a part token."""
        return self.part.parent if self.part else None

    @property
    def part_number(self) -> int | None:
        """The number of a part token."""
        return self.part.number if self.part else None

    @property
    def value(self) -> float | None:
        """The value of a part token in RBT."""
        return self.part.value if self.part else None


def decode_rac(content: bytes) -> RacContent | None:
    """The block that ``content`` (a token's content as added to IPFS) spells; None: not one.

    Never raises; the cost is bounded by `CONTENT_LIMIT`, and a content of another
    kind (whole token, fungible token, JSON) costs 0.2 µs.
    """
    # A map of 0 to 23 keys, in hexadecimal of either case: what cannot be one leaves here.
    if content[:1] not in (b"a", b"A", b"b", b"B") or not 4 <= len(content) <= CONTENT_LIMIT:
        return None
    try:
        block = binascii.unhexlify(content)
    except binascii.Error:
        return None
    outer = _decode_map(block)
    inner = outer.get("1") if outer else None
    if outer is None or not isinstance(inner, bytes):
        return None
    fields = _decode_map(inner)
    if fields is None:
        return None
    kind, did = fields.get("1"), fields.get("3")
    if not _is_integer(kind) or not _is_name(did):
        return None
    part = _part(fields["13"]) if "13" in fields else None
    if part is None and "13" in fields:
        return None
    return RacContent(
        type=kind,
        creator_did=did,
        part=part,
        signed_hash=sha3_256(inner).hexdigest(),
        signature=_signature(outer.get("2")),
        fields=fields,
    )


def _part(value: Any) -> RacPart | None:
    if not isinstance(value, dict):
        return None
    parent, number, amount = value.get("1"), value.get("2"), value.get("3")
    if not _is_name(parent) or not _is_integer(number) or isinstance(amount, bool):
        return None
    if isinstance(amount, int) and amount in _INTEGERS:
        return RacPart(parent, number, float(amount))
    if isinstance(amount, float) and math.isfinite(amount):
        return RacPart(parent, number, amount)
    return None


def _signature(value: Any) -> bytes:
    if not isinstance(value, str) or len(value) > 2 * MAX_SIGNATURE_BYTES:
        return b""
    try:
        return binascii.unhexlify(value)
    except ValueError:  # not hexadecimal, or not even ASCII
        return b""


def _is_integer(value: Any) -> TypeGuard[int]:
    return type(value) is int and value in _INTEGERS


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT


class _NoTags(Mapping[int, Callable[..., Any]]):
    """For every tag that cbor2 knows (dates, patterns, references …), a decoder that refuses."""

    def __getitem__(self, tag: int) -> Callable[..., Any]:
        return _refuse_tag

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _refuse_tag(*_: object) -> NoReturn:
    raise cbor2.CBORDecodeError("tags are not expected")


_NO_TAGS: Final = _NoTags()


def _decode_map(data: bytes) -> dict[str, Any] | None:
    """The one map with text keys that ``data`` is, from its first to its last byte."""
    decoder = cbor2.CBORDecoder(
        io.BytesIO(data),
        tag_hook=_refuse_tag,
        semantic_decoders=_NO_TAGS,
        max_depth=_MAX_DEPTH,
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
    )
    try:
        value = decoder.decode()
    except cbor2.CBORDecodeError:
        return None
    try:
        decoder.read(1)
    except cbor2.CBORDecodeEOF:
        pass  # nothing behind it
    else:
        return None
    if not isinstance(value, dict) or not _TEXT.issuperset(map(type, value)):
        return None
    return value
