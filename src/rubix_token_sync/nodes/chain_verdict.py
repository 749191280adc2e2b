"""What a token's blocks, taken together, say: its latest block, and whether all is right.

Decides only; what was read, decoded and checked comes in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from rubix_token_sync.nodes.chain_blocks import Block, ChainKey
from rubix_token_sync.nodes.chain_signatures import Counts

__all__ = ["PROBLEMS", "UNREAD", "Chain", "SeenBlock", "judge", "seen_block", "unreadable_block"]

PROBLEMS: Final = {
    "chain_too_long": "the chain has more blocks than are looked at",
    "block_missing": "a key refers to a block that is not there",
    "block_undecodable": "a block cannot be decoded",
    "block_too_large": "a block is larger than any real one",
    "block_foreign": "a block does not name the token under whose key it stands",
    "block_hash_wrong": "a block's content has another hash than its key",
    "chain_forked": "two blocks have the same number",
    "chain_link_wrong": "a block does not name the one before it",
    "chain_incomplete": "blocks are missing from the chain",
    "signature_wrong": "a signature is not that of the DID it names",
}
"""What can be wrong with a chain, the graver first."""

UNREAD: Final = frozenset(
    {"chain_too_long", "block_missing", "block_undecodable", "block_too_large"}
)
"""Of these: not all of the chain was looked at."""


class SeenBlock(NamedTuple):
    """One block of a token's chain, as far as it matters for the chain."""

    kind: str
    number: int
    """By its key."""
    hash: str
    """By its key."""
    hash_right: bool
    names_token: bool
    """It holds the token, with the number of the key."""
    previous: str
    type: str | None
    owner: str | None
    epoch: int | None
    signatures: Counts
    problem: str | None
    """One of `PROBLEMS`: why there is a key and no block."""

    @property
    def block_id(self) -> str:
        """How the block after this one names it."""
        return f"{self.number}-{self.hash}"


class Chain(NamedTuple):
    """A token's chain."""

    kinds: str
    """The kinds of its keys; several, as with data tokens, are joined by ``+``."""
    block_count: int
    latest: SeenBlock
    hashes_valid: bool
    links_valid: bool
    signatures: Counts
    error: str | None
    """``code: sentence`` for the gravest of `PROBLEMS`."""


def seen_block(key: ChainKey, block: Block, signatures: Counts, expected_hash: str) -> SeenBlock:
    """A decoded block below ``key``; its hash is to be that of the key and of a reference."""
    place = block.tokens.get(key.token)
    return SeenBlock(
        key.kind,
        key.number,
        key.hash,
        block.hash == key.hash == expected_hash,
        place is not None and place.number == key.number,
        place.previous if place is not None else "",
        block.type,
        block.owner,
        block.epoch,
        signatures,
        None,
    )


def unreadable_block(key: ChainKey, problem: str) -> SeenBlock:
    """A key without a block that could be read; ``problem`` is one of `PROBLEMS`."""
    return SeenBlock(
        key.kind, key.number, key.hash, False, False, "", None, None, None, Counts(), problem
    )


def judge(blocks: list[SeenBlock], left_out: int = 0) -> Chain:
    """What the blocks of one token say.

    Args:
        blocks: at least one; those of one kind next to each other, in any order of numbers
            (the older keys are not in order of theirs).
        left_out: further blocks that were only counted.
    """
    ordered = sorted(blocks, key=lambda block: (block.kind, block.number))
    links = list(_link_problems(ordered))
    signatures = Counts(*map(sum, zip(*(block.signatures for block in ordered), strict=True)))
    found = {block.problem for block in ordered if block.problem} | set(links)
    if any(not block.hash_right and not block.problem for block in ordered):
        found.add("block_hash_wrong")
    if signatures.wrong:
        found.add("signature_wrong")
    if left_out:
        found.add("chain_too_long")
    gravest = next((code for code in PROBLEMS if code in found), None)
    return Chain(
        "+".join(dict.fromkeys(block.kind for block in ordered)),
        len(ordered) + left_out,
        ordered[-1],
        not left_out and all(block.hash_right for block in ordered),
        not left_out and not links,
        signatures,
        f"{gravest}: {PROBLEMS[gravest]}" if gravest is not None else None,
    )


def _link_problems(ordered: Iterable[SeenBlock]) -> Iterator[str]:
    """What is wrong with the way from each block to the one before it."""
    blocks = list(ordered)
    for block in blocks:
        if block.problem is not None:
            yield block.problem  # what it names cannot be known
        elif not block.names_token:
            yield "block_foreign"
    first = [blocks[0], *(later for before, later in pairwise(blocks) if before.kind != later.kind)]
    for block in first:
        if block.number != 0:
            yield "chain_incomplete"
        elif block.previous:
            yield "chain_link_wrong"
    for before, block in pairwise(blocks):
        if before.kind != block.kind or block.problem is not None:
            continue
        if block.number == before.number:
            yield "chain_forked"
        elif block.number != before.number + 1:
            yield "chain_incomplete"
        elif block.previous != before.block_id:
            yield "chain_link_wrong"
