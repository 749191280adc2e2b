"""Keys and blocks of token chains, decoded: pure, total, and bounded in size and depth.

Source: the node software v0.0.20 (``block/block.go``, ``core/wallet/token_chain.go``), and
2,871 blocks of real nodes.  A block is CBOR ``{"1": content, "2": signatures}``, each of
them CBOR again; the block's hash is SHA3-256 of field "1".  Of the content:

    "2"  transaction type, see `TRANSACTION_TYPES`      "3"  owner
    "5"  transaction: "4" its id, "6" {token: {"4" number, "5" id of the block before}}
    "6"  consensus contract: {"1" content, "3" {DID: signature}}
    "7"  signatures of the quorum                       "12" signature of the initiator
    "epoch"  Unix seconds (most types have none)

A block's id is ``NUMBER-HASH``.  Each of its four groups of signatures signs the first 32
characters of a hash in hexadecimal: the block's own that of the block, the contract's and
the initiator's that of the contract's content, the quorum's the transaction's id, which is
SHA3-256 of field "6".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import sha3_256
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import cbor2

__all__ = [
    "KINDS",
    "REFERENCE",
    "SIGNED_CHARACTERS",
    "TRANSACTION_TYPES",
    "Block",
    "ChainKey",
    "Signature",
    "TokenPlace",
    "UndecodableError",
    "decode_block",
    "parse_key",
    "parse_reference",
]

TRANSACTION_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "01": "minted",
        "02": "transferred",
        "03": "migrated",
        "04": "pledged",
        "05": "generated",
        "06": "unpledged",
        "07": "committed",
        "08": "burnt",
        "09": "deployed",
        "10": "executed",
        "11": "committed to contract",
        "12": "pinned as service",
        "13": "burnt for FT",
    }
)
"""What a block's transaction type means."""

KINDS: Final = ("dt", "ft", "nt", "pt", "st", "tn", "tp", "tt", "wt")
"""Kinds of chain, in key order: data, FT, NFT, part, contract, and test NFT, part, whole; whole."""
REFERENCE: Final = b"rf-"
"""How the keys of blocks of several tokens begin, and the values that name one."""
SIGNED_CHARACTERS: Final = 32
"""So many characters of a hash in hexadecimal are what a signature signs."""

_KEY: Final = re.compile(
    rb"([a-z]{2})-([A-Za-z0-9]{1,128})-(?:([0-9a-f]{16})|([0-9]{1,19}))-([0-9a-f]{64})"
)
_REFERENCE: Final = re.compile(rb"rf-([0-9a-f]{64})-([0-9a-f]{64})")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_NUMBER: Final = re.compile(r"[0-9]{1,19}")
_NUMBERS: Final = 2**63  # what a signed column of a target holds
_TOKEN_CHARACTERS: Final = 128
_DEPTH: Final = 32
_OWNER_CHARACTERS: Final = 500  # as the column `did` of the records
_EPOCHS: Final = 253_402_300_800  # the year 10000
_SIGNATURES: Final = 256  # of a block; a real one has 8
_SIGNATURE_CHARACTERS: Final = 160  # hexadecimal DER of two numbers of 32 bytes has 144 at most


class UndecodableError(ValueError):
    """The bytes are not a block; the message says why and quotes nothing of them."""


class ChainKey(NamedTuple):
    """The parts of a key ``KIND-TOKEN-NUMBER-HASH``."""

    kind: str
    token: str
    number: int
    hash: str


class TokenPlace(NamedTuple):
    """What a block says of one of its tokens."""

    number: int | None
    previous: str
    """The id of the block before; empty for the first one."""


class Signature(NamedTuple):
    """A signature that can be checked where the signer's public key is at hand."""

    did: str
    message: bytes
    signature: bytes
    """ECDSA, in DER."""


class Block(NamedTuple):
    """A decoded block."""

    hash: str
    type: str
    owner: str
    epoch: int | None
    tokens: Mapping[str, TokenPlace]
    signatures: tuple[Signature, ...]
    uncheckable: int
    """Signatures of a form that cannot be checked, such as those with shares of an image."""


def parse_key(key: bytes) -> ChainKey | None:
    """The parts of a chain's key; None for any other key.

    Sixteen digits are hexadecimal; the older form is decimal and, for real numbers, shorter.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    kind, token, new, old, hash_ = match.groups()
    number = int(new, 16) if new is not None else int(old)
    if number >= _NUMBERS:
        return None
    return ChainKey(kind.decode(), token.decode(), number, hash_.decode())


def parse_reference(value: bytes) -> tuple[str, str] | None:
    """SHA3-256 of the whole block and the block's hash that a reference names; None for no such."""
    match = _REFERENCE.fullmatch(value)
    return (match[1].decode(), match[2].decode()) if match is not None else None


def decode_block(value: bytes) -> Block:
    """The block in ``value``; costs memory and time in proportion to its length.

    Raises:
        UndecodableError: it is not a block.
    """
    outer = _mapping(_cbor(value, "block"), "block")
    raw = outer.get("1")
    if not isinstance(raw, bytes):
        raise UndecodableError("the block has no content")
    content = _mapping(_cbor(raw, "content"), "content")
    type_, owner = content.get("2"), content.get("3", "")
    if not isinstance(type_, str) or not 0 < len(type_) <= 8:
        raise UndecodableError("the block has no transaction type")
    if not isinstance(owner, str) or len(owner) > _OWNER_CHARACTERS:
        raise UndecodableError("the block's owner is not a DID")
    hash_ = sha3_256(raw).hexdigest()
    transaction = _mapping(content.get("5"), "transaction")
    signatures, uncheckable = _signatures(hash_, outer.get("2"), content, transaction)
    return Block(
        hash_,
        type_,
        owner,
        _epoch(content.get("epoch")),
        _tokens(transaction.get("6")),
        signatures,
        uncheckable,
    )


def _cbor(data: bytes, what: str) -> Any:
    try:
        # Definite or not: the node's own decoder takes both. A key that is there twice, or is
        # not text, has no one meaning.
        return cbor2.loads(
            data, max_depth=_DEPTH, allow_duplicate_keys=False, strict_hashable_types=True
        )
    except (cbor2.CBORError, ArithmeticError, RecursionError, TypeError, ValueError) as error:
        raise UndecodableError(f"the {what} is not valid CBOR") from error


def _mapping(value: Any, what: str) -> Mapping[Any, Any]:
    if not isinstance(value, dict):
        raise UndecodableError(f"the {what} is not a map")
    return value


def _epoch(value: Any) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 < value < _EPOCHS else None


def _tokens(value: Any) -> Mapping[str, TokenPlace]:
    places: dict[str, TokenPlace] = {}
    for token, place in _mapping(value, "list of tokens").items():
        if not isinstance(token, str) or len(token) > _TOKEN_CHARACTERS:
            continue  # no key can name it
        number, previous = _mapping(place, "place of a token").get("4"), place.get("5")
        said = _NUMBER.fullmatch(number) if isinstance(number, str) else None
        places[token] = TokenPlace(
            int(said[0]) if said else None, previous if isinstance(previous, str) else ""
        )
    return places


def _signatures(
    hash_: str, own: Any, content: Mapping[Any, Any], transaction: Mapping[Any, Any]
) -> tuple[tuple[Signature, ...], int]:
    """The signatures of a block, and how many of them cannot be checked."""
    found: list[Signature] = []
    uncheckable = 0
    for did, message, signature in _signed(hash_, own, content, transaction):
        checkable = _checkable(did, message, signature) if len(found) < _SIGNATURES else None
        if checkable is None:
            uncheckable += 1
        else:
            found.append(checkable)
    return tuple(found), uncheckable


def _signed(
    hash_: str, own: Any, content: Mapping[Any, Any], transaction: Mapping[Any, Any]
) -> Iterator[tuple[Any, Any, Any]]:
    """Signer, signed hash and signature of each of a block's signatures, unchecked."""
    if isinstance(own, bytes):
        for did, signature in _mapping(_cbor(own, "signature"), "signature").items():
            yield did, hash_, signature
    agreed: Any = None
    transaction_id = transaction.get("4")
    raw = content.get("6")
    if isinstance(raw, bytes):
        contract = _mapping(_cbor(raw, "contract"), "contract")
        inner, signed = contract.get("1"), contract.get("3")
        if isinstance(inner, bytes) and isinstance(signed, bytes):
            agreed = sha3_256(inner).hexdigest()
            transaction_id = sha3_256(raw).hexdigest()  # whatever the block says
            for did, signature in _mapping(_cbor(signed, "signature"), "signature").items():
                yield did, agreed, signature
    initiator = content.get("12")
    if isinstance(initiator, dict):
        by_key = initiator.get("sign_type") == 0
        message = (agreed or initiator.get("hash")) if by_key else None
        yield initiator.get("InitiatorDID"), message, initiator.get("priv_signature")
    quorum = content.get("7")
    for one in quorum if isinstance(quorum, list) else ():
        if isinstance(one, dict):
            by_key = one.get("sign_type") == "0"
            yield one.get("did"), transaction_id if by_key else None, one.get("priv_signature")


def _checkable(did: Any, message: Any, signature: Any) -> Signature | None:
    if not (isinstance(did, str) and isinstance(message, str) and isinstance(signature, str)):
        return None
    if not _HASH.fullmatch(message) or len(signature) > _SIGNATURE_CHARACTERS:
        return None
    try:
        return Signature(did, message[:SIGNED_CHARACTERS].encode(), bytes.fromhex(signature))
    except ValueError:
        return None
