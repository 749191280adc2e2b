"""Whole trees of blocks: a file of any size or a directory, proven block by block.

An NFT's artifact is a directory, a contract's files span several blocks, and any
token's content can be larger than what is stored.  `walk` proves such a tree: it
asks for every different block once, checks that each is what its parent says, and
counts what UnixFS (https://specs.ipfs.tech/unixfs/) says is in it.  Only a file
within the limit is kept in memory; everything else is proven and let go.

Whoever wrote the blocks may have meant harm.  Blocks, links, bytes, depth and time
are bounded (`TreeLimits`); a block that is shared by exponentially many paths is read
once, and totals are added up once per block.  Cycles are impossible, because a block's
name is the hash of it.  Names in directories are not looked at and never leave here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from rubix_token_sync.ipfs.blocks import prepared
from rubix_token_sync.ipfs.cid import Cid, from_bytes, to_bytes
from rubix_token_sync.ipfs.content import CONTENT_LIMIT, Failure, FailureCode
from rubix_token_sync.ipfs.unixfs import (
    DirectoryNode,
    FileNode,
    Refusal,
    SymlinkNode,
    decode_node,
)

__all__ = ["FetchBlocks", "Tree", "TreeLimits", "walk"]

_BATCH: Final = 16
"""Blocks asked for at once: with the largest ones 32 MiB."""
_COUNT_LIMIT: Final = (1 << 63) - 1
"""Sizes and counts above it are not told apart: no column and no file system has more."""

FetchBlocks = Callable[[Sequence[Cid]], list[bytes | Failure]]
"""Gives verified blocks or failures, same length and order; never raises for one of them."""


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """What one tree may cost.

    Attributes:
        stored: bytes of a file that is kept; larger ones are proven only.
        bytes: of different blocks that are read.
        blocks: different blocks.
        links: links of these blocks; each takes about 100 bytes of memory.
        depth: levels of blocks below the root.
        seconds: after which no further blocks are asked for.
    """

    stored: int = CONTENT_LIMIT
    bytes: int = 1 << 30
    blocks: int = 65_536
    links: int = 262_144
    depth: int = 64
    seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class Tree:
    """What became of one tree.

    Attributes:
        kind: what the root is; None where it could not be had or is neither.
        size: bytes of all files in it, a file that occurs twice counted twice; None
            where the tree is not complete.
        files: files and symbolic links in it, counted like ``size``; 1 for a file.
        blocks: different blocks that were read and proven.
        failure: why the tree is not proven; None where all of it is.
        content: the bytes of a proven file within the limit.
    """

    kind: Literal["file", "directory"] | None
    size: int | None
    files: int | None
    blocks: int
    failure: Failure | None = None
    content: bytes | None = None

    @property
    def outcome(self) -> bytes | Failure:
        """The content; else why there is none to store, which can be its size or kind."""
        if self.content is not None:
            return self.content
        if self.failure is not None:
            return self.failure
        if self.kind == "directory":
            return Failure(FailureCode.NOT_A_FILE, "the id names a directory")
        return Failure(
            FailureCode.TOO_LARGE_TO_STORE,
            f"all {self.size} bytes of the content were proven, but more than are stored",
        )

    @property
    def facts(self) -> dict[str, str | int]:
        """What can be said of it in JSON: kind, blocks, and either its sums or ``failure``."""
        facts: dict[str, str | int] = {} if self.kind is None else {"kind": self.kind}
        facts["blocks"] = self.blocks
        if self.failure is not None:
            return {**facts, "failure": str(self.failure)}
        assert self.size is not None
        assert self.files is not None
        return {**facts, "size": self.size, "files": self.files}


def walk(
    root: Cid,
    fetch: FetchBlocks,
    limits: TreeLimits = TreeLimits(),
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Tree:
    """Prove the tree below ``root``.

    Args:
        root: what is to be proven.
        fetch: gives blocks whose hashes have been checked.
        limits: what the tree may cost.
        clock: seconds, for the limit of time.

    Failures that come up here: ``malformed`` (also: too deep), ``not_a_file`` (something
    that is neither a file nor a directory), ``too_large`` (beyond ``limits``, so not
    proven), ``timed_out``, ``unsupported_hash``; all others are those of ``fetch``.
    """
    reader = _Reader(root, fetch, limits, clock)
    try:
        return reader.read()
    except _RefusedError as error:
        return Tree(reader.kind, None, None, len(reader.nodes), error.failure)


class _RefusedError(Exception):
    """Never leaves this module; carries why the tree is not proven."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.sentence)
        self.failure = failure


class _Node(NamedTuple):
    """What is kept of a proven block; children by their binary CIDs.

    ``kind`` is of the block itself: a file or a part of one, a directory, a shard of
    one, a symbolic link.  ``sizes`` are what a file says of its children, ``data`` what
    it holds itself, kept only where the whole content is.
    """

    kind: Literal["file", "directory", "shard", "symlink"]
    size: int
    children: tuple[bytes, ...] = ()
    sizes: tuple[int, ...] = ()
    shards: tuple[bytes, ...] = ()
    data: bytes = b""


class _Totals(NamedTuple):
    size: int
    files: int


class _Reader:
    """One walk: all blocks level by level, then the sums."""

    def __init__(
        self, root: Cid, fetch: FetchBlocks, limits: TreeLimits, clock: Callable[[], float]
    ) -> None:
        self._root = to_bytes(root)
        self._fetch = fetch
        self._limits = limits
        self._clock = clock
        self._until = clock() + limits.seconds
        self._bytes = 0
        self._links = 0
        self._kept: int | None = None
        """Bytes of content kept; None: the root is not a file within the limit."""
        self.nodes: dict[bytes, _Node] = {}
        self.kind: Literal["file", "directory"] | None = None

    def read(self) -> Tree:
        self._level([self._root])
        root = self.nodes[self._root]
        if root.kind == "symlink":
            raise _refused(FailureCode.NOT_A_FILE, "the id names a symbolic link")
        self.kind = "file" if root.kind == "file" else "directory"
        depth, level = 0, self._below([self._root])
        while level:
            depth += 1
            if depth > self._limits.depth:
                deepest = self._limits.depth
                raise _refused(
                    FailureCode.MALFORMED, f"the tree is deeper than {deepest} levels of blocks"
                )
            self._level(level)
            level = self._below(level)
        self._check_edges()
        totals = self._totals()
        content = None if self._kept is None else self._content()
        return Tree(self.kind, totals.size, totals.files, len(self.nodes), None, content)

    # --- reading ---------------------------------------------------------------

    def _level(self, level: list[bytes]) -> None:
        for start in range(0, len(level), _BATCH):
            if self._clock() >= self._until:
                raise _refused(
                    FailureCode.TIMED_OUT,
                    f"its blocks were not all read in {self._limits.seconds:g} seconds",
                )
            names = level[start : start + _BATCH]
            for name, block in zip(names, self._blocks(names), strict=True):
                self.nodes[name] = self._node(name, block)

    def _blocks(self, names: list[bytes]) -> list[bytes]:
        """The blocks of these names; those that the names carry in themselves included."""
        found: list[bytes | Failure] = []
        asked: list[tuple[int, Cid]] = []
        for index, name in enumerate(names):
            cid = _cid(name)
            ready = prepared(cid)
            if ready is None:
                asked.append((index, cid))
            found.append(b"" if ready is None else ready)
        if asked:
            answers = self._fetch([cid for _, cid in asked])
            for (index, _), answer in zip(asked, answers, strict=True):
                found[index] = answer
        blocks = []
        for name, block in zip(names, found, strict=True):
            if isinstance(block, Failure):
                raise _RefusedError(self._placed(name, block))
            blocks.append(block)
        return blocks

    def _placed(self, name: bytes, failure: Failure) -> Failure:
        """A failure of a block, with where the block is."""
        if name == self._root:
            return failure
        return Failure(failure.code, f"a block below the root: {failure.sentence}")

    def _node(self, name: bytes, block: bytes) -> _Node:
        self._bytes += len(block)
        if self._bytes > self._limits.bytes:
            raise self._too_large("bytes", self._limits.bytes)
        node = decode_node(_cid(name).codec, block)
        if isinstance(node, Refusal):
            raise _RefusedError(
                self._placed(name, Failure(FailureCode(node.reason), node.sentence))
            )
        if isinstance(node, SymlinkNode):
            return _Node("symlink", node.size)
        if isinstance(node, DirectoryNode):
            self._count(len(node.entries) + len(node.shards))
            return _Node(
                "shard" if node.sharded else "directory",
                0,
                tuple(map(to_bytes, node.entries)),
                shards=tuple(map(to_bytes, node.shards)),
            )
        return self._file(name, node)

    def _file(self, name: bytes, node: FileNode) -> _Node:
        self._count(len(node.links))
        if name == self._root and node.size <= self._limits.stored:
            self._kept = 0
        if self._kept is not None:
            # Parts that are larger than the whole are refused before they are kept.
            self._kept += len(node.data)
            if self._kept > self._limits.stored:
                raise _refused(FailureCode.MALFORMED, _DISAGREE)
        return _Node(
            "file",
            node.size,
            tuple(to_bytes(link.cid) for link in node.links),
            tuple(link.size for link in node.links),
            data=b"" if self._kept is None else node.data,
        )

    def _count(self, links: int) -> None:
        self._links += links
        if self._links > self._limits.links:
            raise self._too_large("links", self._limits.links)

    def _below(self, level: list[bytes]) -> list[bytes]:
        """The blocks that these ones name and that have not been read, each once."""
        nodes = self.nodes
        below = {
            child: None
            for name in level
            for child in (*nodes[name].children, *nodes[name].shards)
            if child not in nodes
        }
        if len(nodes) + len(below) > self._limits.blocks:
            raise self._too_large("blocks", self._limits.blocks)
        return list(below)

    def _too_large(self, what: str, limit: int) -> _RefusedError:
        return _refused(FailureCode.TOO_LARGE, f"the tree has more than {limit} {what}: not proven")

    # --- adding up -------------------------------------------------------------

    def _check_edges(self) -> None:
        """Every block is what each of the blocks that name it takes it for."""
        nodes = self.nodes
        if nodes[self._root].size > _COUNT_LIMIT:
            raise self._too_large("bytes", _COUNT_LIMIT)
        for node in nodes.values():
            if node.kind == "file":
                for child, size in zip(node.children, node.sizes, strict=True):
                    below = nodes[child]
                    if below.kind != "file":
                        raise _refused(FailureCode.MALFORMED, "a part of a file is not a file")
                    if below.size != size:
                        raise _refused(FailureCode.MALFORMED, _DISAGREE)
            elif any(nodes[shard].kind != "shard" for shard in node.shards):
                raise _refused(FailureCode.MALFORMED, "a directory's shard is not a shard")

    def _totals(self) -> _Totals:
        """Bytes and files of the whole tree; each block of a directory is added up once."""
        totals: dict[bytes, _Totals] = {}
        open_ = [self._root]
        while open_:
            name = open_[-1]
            node = self.nodes[name]
            if name in totals:
                open_.pop()
                continue
            if node.kind in ("file", "symlink"):
                totals[name] = _Totals(node.size, 1)
                continue
            below = (*node.children, *node.shards)
            missing = [child for child in below if child not in totals]
            if missing:
                open_ += missing
                continue
            totals[name] = _Totals(
                min(sum(totals[child].size for child in below), _COUNT_LIMIT + 1),
                min(sum(totals[child].files for child in below), _COUNT_LIMIT + 1),
            )
        if max(totals[self._root]) > _COUNT_LIMIT:
            raise self._too_large("bytes or files", _COUNT_LIMIT)
        return totals[self._root]

    def _content(self) -> bytes:
        """The file's bytes.

        Each block is put together once, and at each level blocks hold no more than the
        root: that was checked.
        """
        parts: dict[bytes, bytes] = {}
        open_ = [self._root]
        while open_:
            name = open_[-1]
            node = self.nodes[name]
            missing = [child for child in node.children if child not in parts]
            if name in parts or not missing:
                open_.pop()
                parts[name] = node.data + b"".join(parts[child] for child in node.children)
            else:
                open_ += missing
        return parts[self._root]


_DISAGREE: Final = "a block does not hold as much as its link says"


def _refused(code: FailureCode, sentence: str) -> _RefusedError:
    return _RefusedError(Failure(code, sentence))


def _cid(name: bytes) -> Cid:
    cid = from_bytes(name)
    assert cid is not None, "a name is made of a parsed CID"
    return cid
