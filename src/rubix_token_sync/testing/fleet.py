"""Fleets of Rubix nodes of any size: databases and repositories with true token ids.

A fleet is a pure function of its `FleetPlan`: the same plan gives the same
tokens everywhere, and `Fleet.truth` tells what a sync must find, without
reading the disk.
"""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from rubix_token_sync.ipfs.unixfs import CHUNK_SIZE
from rubix_token_sync.testing.contents import (
    fungible_token,
    level_limits,
    make_did,
    nft_token,
    part_token,
    sized_content,
    whole_token,
)
from rubix_token_sync.testing.database import JournalMode, create_database, insert_rows
from rubix_token_sync.testing.flatfs import Block, FlatfsWriter, encode_file, encode_token

__all__ = ["Fleet", "FleetNode", "FleetPlan", "FleetToken", "add_tokens", "make_fleet"]

_GOLDEN: Final = 0x9E3779B97F4A7C15  # Weyl sequence: any stretch of tokens has the same mix
_SPREAD: Final = 2_654_435_761  # a prime that divides no level's limit
_SMALL: Final = 20_000  # tokens; below, worker processes cost more than they give
_FLUSH: Final = 50_000  # blocks held in memory before they are written
_STATUSES: Final = (0,) * 70 + (4,) * 15 + (2,) * 5 + tuple(range(10))
_ADDED: Final = 2**40  # numbers of tokens added later start here …
_ADDED_LANE: Final = 2**24  # … this many for each call of `add_tokens`
_PART_VALUES: Final = (0.5, 0.25, 0.1, 0.05, 0.001, 0.00001)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPlan:
    """What a fleet holds; shares are from 0 to 1.

    Attributes:
        nodes, tokens_per_node: the size.
        seed: another seed gives other tokens, DIDs and states.
        shared: share of each node's tokens that the previous node has, too.
        absent: share of each node's tokens whose block its repository lacks.
        part_tokens, fungible_tokens, nft_tokens, sized_tokens: the mix; the rest
            are whole tokens.
        content_size: bytes of content of each of the ``sized_tokens``.
        levels: of the whole tokens, in equal parts.
        did_count: DIDs of the fleet.
        journal_mode: of the databases.
        in_wal: leave all rows in ``rubix.db-wal``, as after a crash.
        shard, repository_version: of the block stores.
    """

    nodes: int
    tokens_per_node: int
    seed: int = 1
    shared: float = 0.0
    absent: float = 0.0
    part_tokens: float = 0.1
    fungible_tokens: float = 0.05
    nft_tokens: float = 0.0
    sized_tokens: float = 0.0
    content_size: int = 4096
    levels: tuple[int, ...] = (1, 2, 3, 4)
    did_count: int = 100
    journal_mode: JournalMode = "delete"
    in_wal: bool = False
    shard: str = "next-to-last/2"
    repository_version: int = 14

    def __post_init__(self) -> None:
        mix = (self.part_tokens, self.fungible_tokens, self.nft_tokens, self.sized_tokens)
        for share in (*mix, self.absent, self.shared):
            if not 0 <= share <= 1:
                raise ValueError(f"a share must be from 0 to 1, not {share}")
        if sum(mix) > 1 + 1e-9:
            raise ValueError("the shares of the kinds of tokens add up to more than 1")
        if self.nodes < 0 or self.tokens_per_node < 0 or self.did_count < 1 or not self.levels:
            raise ValueError("a fleet needs a size of at least 0, a DID and a level")
        if self.shared_tokens and self.shared_tokens >= self.tokens_per_node:
            raise ValueError("a node must have a token of its own: lower the share of shared ones")
        # Whole tokens are numbered through; one too many would be minted twice.
        room = min(level_limits()[level] for level in self.levels)
        if self.start(self.nodes - 1) + self.tokens_per_node > room * len(self.levels):
            raise ValueError(f"levels {self.levels} have too few whole tokens for such a fleet")

    @property
    def shared_tokens(self) -> int:
        """Tokens of each node (but the first) that the node before it has, too."""
        return round(self.tokens_per_node * self.shared)

    def start(self, index: int) -> int:
        """Fleet-wide number of the first token of a node; windows overlap by the shared ones."""
        return index * (self.tokens_per_node - self.shared_tokens)

    def dids(self) -> list[str]:
        """Those of the fleet; each node has the keys of all of them."""
        return [make_did(self.seed, number) for number in range(self.did_count)]

    def node_name(self, index: int) -> str:
        return f"node{index + 1:0{max(3, len(str(self.nodes)))}d}"

    def content(self, number: int) -> bytes:
        """Content of the fleet's token ``number``."""
        at = (number * _GOLDEN & 0xFFFFFFFFFFFFFFFF) / 2**64
        if at >= self.part_tokens + self.fungible_tokens + self.nft_tokens + self.sized_tokens:
            turn, which = divmod(number, len(self.levels))
            level = self.levels[which]
            limit = level_limits()[level]
            return whole_token(level, (turn * _SPREAD + self.seed * _GOLDEN) % limit)
        if at < self.part_tokens:
            return part_token(self.seed, number)
        if at < self.part_tokens + self.fungible_tokens:
            return fungible_token("TRI", number, make_did(self.seed, number % self.did_count))
        if at < self.part_tokens + self.fungible_tokens + self.nft_tokens:
            return nft_token(self.seed, number)
        return sized_content(self.seed, number, self.content_size)

    def is_part(self, number: int) -> bool:
        return (number * _GOLDEN & 0xFFFFFFFFFFFFFFFF) / 2**64 < self.part_tokens


class FleetToken(NamedTuple):
    """One token of one node: its row of TokensTable, its content and whether it is there."""

    row: tuple[object, ...]
    content: bytes
    blocks: tuple[Block, ...]
    present: bool

    @property
    def token_id(self) -> str:
        return str(self.row[0])


@dataclass(frozen=True, slots=True)
class FleetNode:
    """One node as written: names, paths and counts (``blocks`` are files of tokens)."""

    index: int
    name: str
    db_path: str
    repository: str
    tokens: int
    blocks: int
    absent: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet as written."""

    directory: Path
    plan: FleetPlan
    nodes: tuple[FleetNode, ...]

    @property
    def tokens(self) -> int:
        return sum(node.tokens for node in self.nodes)

    @property
    def blocks(self) -> int:
        return sum(node.blocks for node in self.nodes)

    @property
    def absent(self) -> int:
        return sum(node.absent for node in self.nodes)

    def truth(self, node: FleetNode) -> Iterator[FleetToken]:
        """What a node was given, in the order of its rows (before any later change)."""
        return plan_tokens(self.plan, node.index)


def plan_tokens(plan: FleetPlan, index: int) -> Iterator[FleetToken]:
    """The tokens of node ``index`` of a plan, in the order of its rows."""
    start = plan.start(index)
    numbers = range(start, start + plan.tokens_per_node)
    return _tokens(plan, numbers, random.Random(f"{plan.seed} {index}"))  # noqa: S311


def _tokens(plan: FleetPlan, numbers: range, chance: random.Random) -> Iterator[FleetToken]:
    dids = plan.dids()
    draw, content_of, is_part, did_count = chance.random, plan.content, plan.is_part, len(dids)
    parent = ""
    for number in numbers:
        content = content_of(number)
        if len(content) <= CHUNK_SIZE:
            token_id, block = encode_token(content)
            blocks: tuple[Block, ...] = (block,)
        else:
            token_id, tree = encode_file(content)
            blocks = tuple(tree)
        hashes = chance.randbytes(64).hex()
        status = _STATUSES[int(draw() * 100)]
        part = is_part(number)
        row = (
            token_id,
            parent if part else "",
            _PART_VALUES[number % len(_PART_VALUES)] if part else 1.0,
            dids[int(draw() * did_count)],
            status,
            hashes[:64],
            hashes[64:],
            0,
        )
        if not part:
            parent = token_id
        yield FleetToken(row, content, blocks, draw() >= plan.absent)


class _Tally:
    def __init__(self) -> None:
        self.blocks = 0
        self.absent = 0


def _rows(
    tokens: Iterator[FleetToken], writer: FlatfsWriter, tally: _Tally
) -> Iterator[tuple[object, ...]]:
    """The tokens' rows; writes their blocks on the way."""
    pending: list[Block] = []
    for row, _content, blocks, present in tokens:
        if present:
            pending += blocks
            if len(pending) >= _FLUSH:
                tally.blocks += writer.put(pending)
                pending.clear()
        else:
            tally.absent += 1
        yield row
    tally.blocks += writer.put(pending)


def _make_node(directory: str, plan: FleetPlan, index: int) -> FleetNode:
    name = plan.node_name(index)
    home = Path(directory) / name
    db_path, tally = home / "Rubix" / "rubix.db", _Tally()
    writer = FlatfsWriter(home / ".ipfs", shard=plan.shard, version=plan.repository_version)
    count = create_database(
        db_path,
        _rows(plan_tokens(plan, index), writer, tally),
        dids=plan.dids(),
        journal_mode=plan.journal_mode,
        in_wal=plan.in_wal,
    )
    return FleetNode(
        index=index,
        name=name,
        db_path=str(db_path),
        repository=str(writer.path),
        tokens=count,
        blocks=tally.blocks,
        absent=tally.absent,
    )


def make_fleet(
    directory: str | Path,
    plan: FleetPlan,
    *,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fleet:
    """Write the fleet of ``plan`` below ``directory``, which must be absent or empty.

    Args:
        jobs: processes; by default 1 for small fleets, else one a core.  With more
            than one, a script must call this under ``if __name__ == "__main__":``.
        progress: called with (nodes done, nodes in all) after each node.

    Raises:
        FileExistsError: ``directory`` holds something.
    """
    directory = Path(directory).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise FileExistsError(f"{directory} is not empty")
    if jobs is None:
        small = plan.nodes * plan.tokens_per_node < _SMALL
        jobs = 1 if small else len(os.sched_getaffinity(0))
    made: list[FleetNode] = []
    if jobs == 1 or plan.nodes < 2:
        for index in range(plan.nodes):
            made.append(_make_node(str(directory), plan, index))
            if progress:
                progress(len(made), plan.nodes)
    else:
        context = multiprocessing.get_context("forkserver")
        with ProcessPoolExecutor(min(jobs, plan.nodes), mp_context=context) as pool:
            work = [
                pool.submit(_make_node, str(directory), plan, index) for index in range(plan.nodes)
            ]
            for future in as_completed(work):
                made.append(future.result())
                if progress:
                    progress(len(made), plan.nodes)
    return Fleet(directory, plan, tuple(sorted(made, key=lambda node: node.index)))


def add_tokens(fleet: Fleet, node: FleetNode, count: int, *, seed: int = 1) -> list[FleetToken]:
    """Split tokens of a node into ``count`` new part tokens: rows and blocks, as a node would.

    No other token of the fleet has their ids; give each call on one node a seed of its own.
    """
    plan = replace(
        fleet.plan, part_tokens=1.0, fungible_tokens=0.0, nft_tokens=0.0, sized_tokens=0.0
    )
    start = _ADDED + (seed * plan.nodes + node.index) * _ADDED_LANE
    if not 0 <= count <= _ADDED_LANE:
        raise ValueError(f"can add 0 to {_ADDED_LANE} tokens at once, not {count}")
    chance = random.Random(f"{plan.seed} {node.index} {seed}")  # noqa: S311
    tokens = list(_tokens(plan, range(start, start + count), chance))
    insert_rows(node.db_path, _rows(iter(tokens), FlatfsWriter(node.repository), _Tally()))
    return tokens
