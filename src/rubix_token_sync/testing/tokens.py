"""Tokens of every kind as nodes make them: id, content, and all blocks that belong to it.

Everything here is pure and deterministic, signatures included.  The blocks go to a
repository by `rubix_token_sync.testing.flatfs.FlatfsWriter.put`; the row belongs to the
kind's table (see `rubix_token_sync.testing.database` for TokensTable).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from rubix_token_sync.testing.contents import (
    contract_document,
    encode_rac,
    faucet_token,
    fungible_token,
    nft_document,
    rac_fields,
)
from rubix_token_sync.testing.flatfs import Block, Files, encode_directory, encode_file
from rubix_token_sync.testing.identities import Identity

__all__ = [
    "MadeToken",
    "go_time",
    "make_contract",
    "make_data",
    "make_faucet",
    "make_ft",
    "make_nft",
    "make_part",
    "make_test",
]

_TEST_TOKEN: Final = 0
_SIGNED_TOKEN: Final = 7
_MOMENT: Final = 1_780_000_000_000_000_000
_STARTED_BEFORE: Final = 60_000_000_000  # nanoseconds


class MadeToken(NamedTuple):
    """A token: ``blocks`` are its own and those of all that its content names."""

    token_id: str
    content: bytes
    blocks: tuple[Block, ...]


def make_test(creator: Identity, number: int) -> MadeToken:
    """A whole token of the test network, minted ``number`` nanoseconds after a fixed moment."""
    fields = rac_fields(_TEST_TOKEN, creator.did, _6=go_time(_MOMENT + number))
    return _token(encode_rac(fields, creator.sign))


def make_part(
    creator: Identity, parent: str, part_number: int, value: float, *, moment: int = _MOMENT
) -> MadeToken:
    """A part of the token ``parent``, worth ``value`` RBT; ``moment`` as for `go_time`."""
    part = {"1": parent, "2": part_number, "3": float(value)}
    fields = rac_fields(_SIGNED_TOKEN, creator.did, _6=go_time(moment), _13=part)
    return _token(encode_rac(fields, creator.sign))


def make_faucet(name: str, level: int, number: int) -> MadeToken:
    """A token that a faucet gave away."""
    return _token(faucet_token(name, level, number))


def make_ft(name: str, number: int, creator_did: str) -> MadeToken:
    """A fungible token; names may hold spaces and any script."""
    return _token(fungible_token(name, number, creator_did))


def make_data(
    creator: Identity,
    user_id: str,
    files: Mapping[str, str],
    *,
    info: str = "",
    contents: Mapping[str, bytes] | None = None,
) -> MadeToken:
    """A data token: ``files`` are hashes by name; ``contents`` files that are put into IPFS."""
    more: dict[str, object] = {"_7": user_id}
    if info:
        more["_8"] = info
    more["_10"] = dict(files)
    blocks: list[Block] = []
    if contents:
        ids = {}
        for name, content in contents.items():
            ids[name], below = encode_file(content)
            blocks += below
        more["_11"] = ids
    return _token(encode_rac(rac_fields(_SIGNED_TOKEN, creator.did, **more), creator.sign), blocks)


def make_nft(creator_did: str, artifact: Files) -> MadeToken:
    """An NFT and the directory that is its artifact."""
    cid, blocks = encode_directory(artifact)
    return _token(nft_document(creator_did, cid), blocks)


def make_contract(creator_did: str, binary: bytes, raw: bytes, schema: bytes) -> MadeToken:
    """A smart contract and its three files; above 262,144 bytes they span several blocks."""
    ids: list[str] = []
    blocks: list[Block] = []
    for content in (binary, raw, schema):
        cid, below = encode_file(content)
        ids.append(cid)
        blocks += below
    return _token(contract_document(creator_did, *ids), blocks)


def go_time(nanoseconds: int) -> str:
    """A moment (since 1970, UTC) as Go prints it, with the reading of a clock of its process."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    fraction = f".{rest:09d}".rstrip("0").removesuffix(".")
    since, part = divmod(nanoseconds % 1_000_000_000_000 + _STARTED_BEFORE, 1_000_000_000)
    return f"{moment}{fraction} +0000 UTC m=+{since}.{part:09d}"


def _token(content: bytes, below: list[Block] | None = None) -> MadeToken:
    token_id, blocks = encode_file(content)
    return MadeToken(token_id, content, (*(below or ()), *blocks))
