"""Ways of getting content, tried in order until one gives it.

Each id is parsed once.  Whatever a way gives has been verified by it; a failure
that no other way can change (`Failure.final`) ends the search, any other sends
the token on.  A content that is larger than what is stored is proven all the same,
block by block (`rubix_token_sync.ipfs.trees`).  When no way has the content, the
most telling failure is kept:

1. damaged           6. not in the repository
2. access denied     7. daemon refused
3. read error        8. program failed
4. timed out         9. daemon not running
5. gateway failed   10. format unsupported, then no repository

So a token that the node's store plainly does not hold is reported as that, not as
"daemon not running", while trouble that may hide content comes first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from rubix_token_sync import failpoints
from rubix_token_sync.ipfs.blocks import BLOCK_TOO_LARGE
from rubix_token_sync.ipfs.cid import Cid, parse
from rubix_token_sync.ipfs.content import ContentReader, Failure, FailureCode
from rubix_token_sync.ipfs.options import ContentOptions
from rubix_token_sync.ipfs.readers import REGISTRY, WAYS, opener
from rubix_token_sync.ipfs.repository import open_repository
from rubix_token_sync.ipfs.trees import Tree, TreeLimits, walk

__all__ = ["NO_CID", "WAYS", "ContentChain", "ContentOptions", "Resolved", "open_chain"]

NO_CID: Final = Failure(FailureCode.NO_CID, "the token id is not a content identifier")

_NAMES_NO_CID: Final = Failure(
    FailureCode.NO_CID, "what the content names is not a content identifier"
)

_NOT_TRIED: Final = Failure(
    FailureCode.NO_REPOSITORY, "no way of getting content is switched on for this node"
)

_TREE_LIMITS: Final = TreeLimits()
_TREES_KEPT: Final = 256
_TREES_SECONDS: Final = 3600.0
"""What all trees of one node may take in a run: whoever filled it can have left many."""

_TELLING: Final = {
    code: rank
    for rank, code in enumerate(
        (
            FailureCode.DAMAGED,
            FailureCode.ACCESS_DENIED,
            FailureCode.READ_ERROR,
            FailureCode.TIMED_OUT,
            FailureCode.GATEWAY_FAILED,
            FailureCode.NOT_IN_REPOSITORY,
            FailureCode.DAEMON_REFUSED,
            FailureCode.PROGRAM_FAILED,
            FailureCode.DAEMON_NOT_RUNNING,
            FailureCode.UNSUPPORTED_FORMAT,
            FailureCode.NO_REPOSITORY,
        )
    )
}


@dataclass(slots=True)
class Resolved:
    """What became of a batch of token ids; the lists run parallel to it.

    For each token either ``data`` or ``failure`` is set.  ``via`` is the name of
    the way that gave the content, '' where none did.  ``notes`` (by index) says
    of content that was got although something is wrong, what that is; ``healed``
    counts blocks that are damaged in the node's store but came from elsewhere.
    """

    data: list[bytes | None]
    failure: list[Failure | None]
    via: list[str]
    healed: int = 0
    notes: dict[int, str] = field(default_factory=dict)


class ContentChain:
    """The ways of one node, in the order in which they are asked."""

    def __init__(self, readers: Sequence[ContentReader], limits: TreeLimits = _TREE_LIMITS) -> None:
        """``limits`` are what proving one tree of blocks may cost."""
        self._readers = tuple(readers)
        self._limits = limits
        self._trees: dict[Cid, Tree] = {}
        self._seconds = _TREES_SECONDS

    def resolve(self, token_ids: Sequence[str | None]) -> Resolved:
        """Content or a failure for each token id; never raises for what one of them causes."""
        failpoints.point("content.resolve")
        count = len(token_ids)
        done = Resolved([None] * count, [None] * count, [""] * count)
        parsed = [None if text is None else parse(text) for text in token_ids]
        pending: list[int] = []
        for index, cid in enumerate(parsed):
            if cid is None:
                done.failure[index] = NO_CID
            else:
                pending.append(index)
        large: list[tuple[int, str]] = []
        for reader in self._readers:
            if not pending:
                break
            pending = self._ask(reader, parsed, pending, done, large)
        for index in pending:
            if done.failure[index] is None:
                done.failure[index] = _NOT_TRIED
        for index, way in large:
            self._prove(index, parsed[index], way, done)
        return done

    def tree(self, text: str | None) -> Tree:
        """The file or directory that an id names, proven whole; never raises for one of them.

        For what a token's content names: an NFT's artifact, a contract's files.  The last
        few are remembered, for many tokens can name the same one.
        """
        cid = None if text is None else parse(text)
        if cid is None:
            return Tree(None, None, None, 0, _NAMES_NO_CID)
        if cid not in self._trees:
            failpoints.point("content.tree")
            if len(self._trees) >= _TREES_KEPT:
                del self._trees[next(iter(self._trees))]
            began = time.monotonic()
            seconds = max(0.0, min(self._limits.seconds, self._seconds))
            self._trees[cid] = walk(cid, self._blocks, replace(self._limits, seconds=seconds))
            self._seconds -= time.monotonic() - began
        return self._trees[cid]

    def close(self) -> None:
        """Release the handles and connections of all ways."""
        for reader in self._readers:
            reader.close()

    def _prove(self, index: int, cid: Cid | None, way: str, done: Resolved) -> None:
        """Put the outcome of its tree in the place of a failure that says 'too large'."""
        outcome = self.tree(None if cid is None else cid.text).outcome
        if isinstance(outcome, Failure):
            done.failure[index] = outcome
        else:  # it had been judged by a block that another way had differently
            done.data[index], done.failure[index], done.via[index] = outcome, None, way

    def _blocks(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        """Verified blocks, from whichever way has them."""
        block: list[bytes | None] = [None] * len(cids)
        failure: list[Failure | None] = [None] * len(cids)
        pending = list(range(len(cids)))
        for reader in self._readers:
            if not pending:
                break
            asked, pending = pending, []
            answers = reader.blocks([cids[index] for index in asked])
            for index, answer in zip(asked, answers, strict=True):
                if isinstance(answer, Failure):
                    failure[index] = _more_telling(failure[index], answer)
                    if not answer.final:
                        pending.append(index)
                else:
                    block[index] = answer
        return [
            found if found is not None else (failed or _NOT_TRIED)
            for found, failed in zip(block, failure, strict=True)
        ]

    @staticmethod
    def _ask(
        reader: ContentReader,
        parsed: list[Cid | None],
        pending: list[int],
        done: Resolved,
        large: list[tuple[int, str]],
    ) -> list[int]:
        """Ask one way for all that is pending; what it leaves for the next.

        ``large`` gets the indexes of contents that must be proven by their trees.
        """
        data, failure, via, name = done.data, done.failure, done.via, reader.name
        answers = reader.read([cid for index in pending if (cid := parsed[index]) is not None])
        left: list[int] = []
        for index, answer in zip(pending, answers, strict=True):
            before = failure[index]
            if isinstance(answer, Failure):
                failure[index] = _more_telling(before, answer)
                if not answer.final:
                    left.append(index)
                elif answer.code is FailureCode.TOO_LARGE and answer != BLOCK_TOO_LARGE:
                    large.append((index, name))
                continue
            data[index] = answer
            via[index] = name
            if before is not None:
                failure[index] = None
                if before.code is FailureCode.DAMAGED:
                    done.healed += 1
                    done.notes[index] = (
                        f"the block is damaged in the node's store; the content came from: {name}"
                    )
        return left


def open_chain(repository_path: str | None, options: ContentOptions) -> ContentChain:
    """The ways that ``options`` allow for the node whose repository is at this path.

    Raises:
        SettingsError: a gateway is not a plain http or https URL.
    """
    repository = open_repository(repository_path)
    opened: list[ContentReader] = []
    try:
        for way in REGISTRY:
            if way in options.ways:
                reader = opener(way)(repository_path, repository, options)
                if reader is not None:
                    opened.append(reader)
    except BaseException:
        ContentChain(opened).close()
        raise
    return ContentChain(opened)


def _more_telling(before: Failure | None, after: Failure) -> Failure:
    if before is None or after.final:
        return after
    return min(before, after, key=lambda failure: _TELLING[failure.code])
