"""Fleets of Rubix nodes of any size: databases and repositories with true token ids.

A fleet is a pure function of its `FleetPlan`: the same plan gives the same
tokens everywhere, and `Fleet.truth` says what a sync must find, without
reading the disk.
"""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import chain, groupby
from pathlib import Path
from typing import Final

from rubix_token_sync.testing.chains import write_chains, write_public_keys
from rubix_token_sync.testing.database import add_rows, create_database, insert_rows
from rubix_token_sync.testing.flatfs import Block, FlatfsWriter
from rubix_token_sync.testing.fleet_kinds import TABLES, chain_of
from rubix_token_sync.testing.fleet_plan import (
    FleetPlan,
    FleetToken,
    identities,
    kinds_of,
    own_tokens,
    plan_tokens,
    tests_of,
    token_of,
    tokens_of,
)

__all__ = ["Fleet", "FleetNode", "FleetPlan", "FleetToken", "add_tokens", "make_fleet"]

_SMALL: Final = 20_000  # tokens; below, worker processes cost more than they give
_FLUSH: Final = 50_000  # blocks held in memory before they are written
_ADDED: Final = 2**40  # numbers of tokens added later start here …
_ADDED_LANE: Final = 2**24  # … this many for each call of `add_tokens`


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


class _Tally:
    def __init__(self) -> None:
        self.blocks = 0
        self.absent = 0


def _rows(
    tokens: Iterator[FleetToken], writer: FlatfsWriter, tally: _Tally
) -> Iterator[tuple[object, ...]]:
    """The tokens' rows; writes their blocks on the way."""
    pending: list[Block] = []
    for token in tokens:
        if token.present:
            pending += token.blocks
            if len(pending) >= _FLUSH:
                tally.blocks += writer.put(pending)
                pending.clear()
        else:
            tally.absent += 1
        yield token.row
    tally.blocks += writer.put(pending)


def _make_node(directory: str, plan: FleetPlan, index: int) -> FleetNode:
    name = plan.node_name(index)
    home = Path(directory) / name
    db_path, tally = home / "Rubix" / "rubix.db", _Tally()
    writer = FlatfsWriter(home / ".ipfs", shard=plan.shard, version=plan.repository_version)
    count = create_database(
        db_path,
        _rows(own_tokens(plan, index), writer, tally),
        dids=plan.dids(),
        journal_mode=plan.journal_mode,
        in_wal=plan.in_wal,
    )
    if plan.has_keys:
        people = identities(plan.seed, plan.did_count)
        writer.put([block for person in people for block in person.blocks])
    count += _add_kinds(plan, index, home, writer, tally)
    if plan.chains:
        _add_chains(plan, index, home / "Rubix")
    return FleetNode(
        index=index,
        name=name,
        db_path=str(db_path),
        repository=str(writer.path),
        tokens=count,
        blocks=tally.blocks,
        absent=tally.absent,
    )


def _add_kinds(plan: FleetPlan, index: int, home: Path, writer: FlatfsWriter, tally: _Tally) -> int:
    """Write the other kinds and the test network's tokens; gives their number."""
    count = 0
    others = chain(kinds_of(plan, index), tests_of(plan, index))
    for kind, found in groupby(others, key=lambda one: one.kind):
        rows = _rows(map(token_of, found), writer, tally)
        if kind in TABLES:
            count += add_rows(home / "Rubix" / "rubix.db", TABLES[kind], rows)
        else:
            path = home / "Rubix" / "rubixtest.db"
            count += create_database(path, rows, journal_mode=plan.journal_mode)
    return count


def _add_chains(plan: FleetPlan, index: int, rubix: Path) -> None:
    people = identities(plan.seed, plan.did_count)
    by_did = {person.did: person for person in people}

    def own() -> Iterator[bytes]:
        for token in own_tokens(plan, index):
            token_id, parent, value, did, status = token.row[:5]
            yield from chain_of(
                str(token_id), "rbt", by_did[str(did)], int(str(status)), float(str(value)),
                people, part=parent != "",
            )  # fmt: skip
        for one in kinds_of(plan, index):
            yield from chain_of(
                one.made.token_id, one.kind, one.owner, one.status, one.value, people
            )

    write_chains(rubix, "main", own())
    write_public_keys(rubix, "main", people)
    if plan.test_rows:
        rows = tests_of(plan, index)
        made = (chain_of(r.made.token_id, r.kind, r.owner, r.status, r.value, people) for r in rows)
        write_chains(rubix, "test", (block for blocks in made for block in blocks))
        write_public_keys(rubix, "test", people)


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
    tokens = list(tokens_of(plan, range(start, start + count), chance))
    insert_rows(node.db_path, _rows(iter(tokens), FlatfsWriter(node.repository), _Tally()))
    return tokens
