"""Where the content of new and changed rows comes from: the target first, then the node.

The same of the files and directories that a content names (`NamedTrees`).  What is proven
once is known for ever, for an id names the same bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rubix_token_sync.ipfs.content import Failure, FailureCode
from rubix_token_sync.ipfs.fetch import ContentChain
from rubix_token_sync.ipfs.trees import Tree
from rubix_token_sync.records.content_text import decode_content, encode_content
from rubix_token_sync.records.kinds import TokenKind
from rubix_token_sync.records.schema import RECORD_KEY_BYTES, SourceRow
from rubix_token_sync.records.token_content import (
    Attributes,
    NamedTrees,
    named_trees,
    stored_trees,
)
from rubix_token_sync.runs.jobs import Job
from rubix_token_sync.targets.base import KnownContent, Target

__all__ = ["Content", "ContentOfRows", "content_of_node", "known_failure", "prove_trees"]

_READ_ERROR: Final = FailureCode.READ_ERROR


@dataclass
class ContentOfRows:
    """What is known of the content of some rows, at their positions."""

    data: list[bytes | None]
    failure: list[Failure | None]
    via: list[str]
    healed: int = 0
    from_target: int = 0
    failed_before: dict[int, str | None] = field(default_factory=dict)
    """``ipfs_error`` that the target has for records that were asked for again."""
    trees: dict[int, NamedTrees] = field(default_factory=dict)
    """Of contents that name any."""

    @property
    def failures(self) -> list[Failure]:
        """Why contents, or what they name, cannot be had: one at most for each row."""
        of_trees = [tree.failure for tree in self.trees.values()]
        return [reason for reason in (*self.failure, *of_trees) if reason is not None]


class Content:
    """Where the content of new and changed rows comes from.

    First what the target already has: of the same record (what failed stays
    failed until it is due again), then of any record with the same token id.
    The rest is asked of the node.
    """

    def __init__(self, job: Job, store: Callable[[], Target], chain: ContentChain) -> None:
        """``store`` opens the target at the first need."""
        self._job = job
        self._store = store
        self._chain = chain

    def of(
        self, kind: TokenKind, rows: Sequence[SourceRow], keys: bytes, held: NDArray[np.bool_]
    ) -> ContentOfRows:
        """Content or failure for each row; ``held`` marks the records that the target has."""
        if not (self._job.ask_target or held.any()):
            return content_of_node(self._chain, kind, rows)
        ids = _ids(rows)
        count = len(rows)
        found = ContentOfRows([None] * count, [None] * count, [""] * count)
        known: dict[int, KnownContent] = {}
        if held.any():
            self._recall(kind, keys, held, found, known)
        if self._job.ask_target:
            self._borrow(ids, found, known)
        missing = [i for i in range(count) if found.data[i] is None and found.failure[i] is None]
        if missing:
            resolved = self._chain.resolve([ids[i] for i in missing])
            for at, i in enumerate(missing):
                found.data[i] = resolved.data[at]
                found.failure[i] = resolved.failure[at]
                found.via[i] = resolved.via[at]
            found.healed = resolved.healed
        if kind.names_trees:
            self._prove(kind, found, known)
        return found

    def _recall(
        self,
        kind: TokenKind,
        keys: bytes,
        held: NDArray[np.bool_],
        found: ContentOfRows,
        known: dict[int, KnownContent],
    ) -> None:
        width = RECORD_KEY_BYTES
        at = {keys[i * width : i * width + width]: i for i in np.flatnonzero(held).tolist()}
        for key, content in self._store().known_content(list(at)).items():
            there = content.ipfs_data is not None
            if there and (content.ipfs_fetched or kind.names_trees):
                self._take(at[key], content, found, known)
            if not content.ipfs_fetched and self._job.retry_content:
                found.failed_before[at[key]] = content.ipfs_error
            elif found.data[at[key]] is None:
                found.failure[at[key]] = known_failure(content)

    def _borrow(
        self, ids: Sequence[str | None], found: ContentOfRows, known: dict[int, KnownContent]
    ) -> None:
        due = found.failed_before
        wanted = [
            token
            for i, token in enumerate(ids)
            if token and found.failure[i] is None and (found.data[i] is None or i in due)
        ]
        held = self._store().content_of_tokens(wanted) if wanted else {}
        for i, token in enumerate(ids):
            if token in held and (found.data[i] is None or i in due):
                found.failure[i] = None
                self._take(i, held[token], found, known)

    @staticmethod
    def _take(
        at: int, content: KnownContent, found: ContentOfRows, known: dict[int, KnownContent]
    ) -> None:
        assert content.ipfs_data is not None
        found.from_target += found.data[at] is None
        found.data[at] = decode_content(content.ipfs_data)
        found.via[at] = "target"
        known[at] = content

    def _prove(
        self, kind: TokenKind, found: ContentOfRows, known: Mapping[int, KnownContent]
    ) -> None:
        for at, data in enumerate(found.data):
            if data is None:
                continue
            named, held = named_trees(kind.name, data), known.get(at)
            proven = stored_trees(held.attributes) if held is not None else {}
            before = known_failure(held) if held is not None else None
            if before is not None and at not in found.failed_before:
                found.trees[at] = NamedTrees(proven, before)
            elif named:
                found.trees[at] = prove_trees(named, proven, self._chain.tree)


def content_of_node(
    chain: ContentChain, kind: TokenKind, rows: Sequence[SourceRow]
) -> ContentOfRows:
    """Content or failure for each row, of all that it names too, from the node alone."""
    resolved = chain.resolve(_ids(rows))
    found = ContentOfRows(resolved.data, resolved.failure, resolved.via, resolved.healed)
    if kind.names_trees:
        for at, data in enumerate(found.data):
            named = named_trees(kind.name, data) if data is not None else {}
            if named:
                found.trees[at] = prove_trees(named, {}, chain.tree)
    return found


def prove_trees(
    named: Mapping[str, str], known: Mapping[str, Attributes], tree: Callable[[str], Tree]
) -> NamedTrees:
    """What becomes of the trees of one content; those that are ``known`` are not asked for.

    Args:
        named: ids by what they are.
        known: what is proven of some of them.
        tree: gives a tree for an id.
    """
    proven: dict[str, Attributes] = {}
    failures: dict[str, Failure] = {}
    for name, text in named.items():
        if name in known:
            proven[name] = known[name]
            continue
        found = tree(text)
        if found.failure is None:
            proven[name] = _facts(found)
        else:
            failures[name] = found.failure
    if not failures:
        return NamedTrees(proven)
    codes = [reason.code for reason in failures.values()]
    code = _READ_ERROR if _READ_ERROR in codes else codes[0]  # says nothing of the token
    sentence = "; ".join(f"{name}: {reason.sentence}" for name, reason in failures.items())
    return NamedTrees(proven, Failure(code, sentence))


def _facts(tree: Tree) -> Attributes:
    """What is stored of a proven tree: its sums, and its bytes or why they are not stored."""
    outcome = tree.outcome
    if isinstance(outcome, Failure):
        return {**tree.facts, "not_stored": outcome.code.value}
    return {**tree.facts, "content": encode_content(outcome)}


def _ids(rows: Sequence[SourceRow]) -> list[str | None]:
    return [row[0] if isinstance(row[0], str) else None for row in rows]


def known_failure(content: KnownContent) -> Failure | None:
    """A stored ``ipfs_error`` as it was; None where there is none that this version knows."""
    code, _, sentence = (content.ipfs_error or "").partition(": ")
    try:
        return Failure(FailureCode(code), sentence)
    except ValueError:
        return None
