"""From verified blocks to content: the part that every way of getting it shares.

A `Fetch` gives a block whose hash has been checked, or a `Failure`.  Trees are
walked in the order of their links; what they declare must be what they hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rubix_token_sync.ipfs.cid import DAG_PB, RAW, Cid, hash_matches, inline_block
from rubix_token_sync.ipfs.content import CONTENT_LIMIT, MAX_BLOCK, Failure, FailureCode
from rubix_token_sync.ipfs.unixfs import FileNode, Refusal, decode_file, leaf_content

__all__ = [
    "BLOCK_LIMIT",
    "BLOCK_TOO_LARGE",
    "DAMAGED",
    "TOO_LARGE",
    "Fetch",
    "block_failure",
    "content_of",
    "content_of_root",
    "prepared",
    "refused",
]

BLOCK_LIMIT: Final = CONTENT_LIMIT + 64
"""No block of an allowed content is longer: the content and what frames it."""

MAX_DEPTH: Final = 8
MAX_BLOCKS: Final = 2048
"""Bounds on the tree of one token; 50 KB in chunks of 26 bytes still fit."""

DAMAGED: Final = Failure(FailureCode.DAMAGED, "the block's bytes do not have the hash in the id")
TOO_LARGE: Final = Failure(
    FailureCode.TOO_LARGE, f"the content is larger than {CONTENT_LIMIT} bytes"
)
"""What a reader says of a larger content; whoever asked it can prove that by its tree."""
BLOCK_TOO_LARGE: Final = Failure(
    FailureCode.TOO_LARGE, f"a block is larger than {MAX_BLOCK} bytes: not proven"
)
_UNSUPPORTED_HASH = Failure(
    FailureCode.UNSUPPORTED_HASH, "the id's hash function or digest length cannot prove a content"
)

Fetch = Callable[[Cid], bytes | Failure]


def block_failure(cid: Cid, block: bytes) -> Failure | None:
    """None when the block is what ``cid`` names, else why it is not accepted."""
    matching = hash_matches(cid.multihash, block)
    if matching is None:
        return _UNSUPPORTED_HASH
    return None if matching else DAMAGED


def refused(refusal: Refusal) -> Failure:
    """A refusal of the format's decoder as a failure of the token."""
    if refusal.reason == "too_large":
        return TOO_LARGE
    return Failure(FailureCode(refusal.reason), refusal.sentence)


def prepared(cid: Cid) -> bytes | Failure | None:
    """The block that ``cid`` carries in itself, or why asking for it cannot help; None: ask."""
    block = inline_block(cid)
    if block is not None:
        return block
    if cid.codec not in (DAG_PB, RAW):
        node = decode_file(cid.codec, b"")  # no block of such a codec can be a file
        return refused(node) if isinstance(node, Refusal) else node.data
    return _UNSUPPORTED_HASH if hash_matches(cid.multihash, b"") is None else None


def content_of(cid: Cid, fetch: Fetch) -> bytes | Failure:
    """The content that ``cid`` names, from blocks that ``fetch`` gives."""
    block = prepared(cid)
    if block is None:
        block = fetch(cid)
    if isinstance(block, Failure):
        return block
    return content_of_root(cid, block, fetch)


def content_of_root(cid: Cid, block: bytes, fetch: Fetch) -> bytes | Failure:
    """`content_of` when the verified root block is at hand already."""
    if cid.codec == DAG_PB:
        content = leaf_content(block)
        if content is not None:
            return content if len(content) <= CONTENT_LIMIT else TOO_LARGE
    node = decode_file(cid.codec, block)
    if isinstance(node, Refusal):
        return refused(node)
    if node.size > CONTENT_LIMIT:
        return TOO_LARGE
    if not node.links:
        return node.data
    return _Walk(fetch).content(node, 1)


class _Walk:
    """One token's tree; counts blocks over all its levels."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._blocks = 1

    def content(self, node: FileNode, depth: int) -> bytes | Failure:
        if depth > MAX_DEPTH:
            return Failure(FailureCode.MALFORMED, f"the tree is deeper than {MAX_DEPTH} levels")
        self._blocks += len(node.links)
        if self._blocks > MAX_BLOCKS:
            return Failure(FailureCode.MALFORMED, f"the tree has more than {MAX_BLOCKS} blocks")
        parts = [node.data]
        for link in node.links:
            part = self._child(link.cid, link.size, depth)
            if isinstance(part, Failure):
                return part
            parts.append(part)
        return b"".join(parts)

    def _child(self, cid: Cid, size: int, depth: int) -> bytes | Failure:
        block = inline_block(cid)
        if block is None:
            fetched = self._fetch(cid)
            if isinstance(fetched, Failure):
                return fetched
            block = fetched
        node = decode_file(cid.codec, block)
        if isinstance(node, Refusal):
            return refused(node)
        if node.size != size:
            return Failure(FailureCode.MALFORMED, "a block does not hold as much as its link says")
        return self.content(node, depth + 1) if node.links else node.data
