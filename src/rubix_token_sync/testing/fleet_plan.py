"""What a fleet of Rubix nodes holds, as a pure function of its plan."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
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
from rubix_token_sync.testing.database import JournalMode
from rubix_token_sync.testing.flatfs import Block, encode_file, encode_token
from rubix_token_sync.testing.fleet_kinds import KindRow, KindRows, kind_rows, network_rows
from rubix_token_sync.testing.identities import Identity, make_identity
from rubix_token_sync.testing.tokens import make_part

__all__ = [
    "FleetPlan",
    "FleetToken",
    "identities",
    "kinds_of",
    "own_tokens",
    "plan_tokens",
    "tests_of",
    "token_of",
    "tokens_of",
]

_GOLDEN: Final = 0x9E3779B97F4A7C15  # Weyl sequence: any stretch of tokens has the same mix
_SPREAD: Final = 2_654_435_761  # a prime that divides no level's limit
_STATUSES: Final = (0,) * 70 + (4,) * 15 + (2,) * 5 + tuple(range(10))
_SPLIT: Final = 64
"""Of so many successive tokens all parts are of one whole token, the first of these."""
_TRANSFERRED, _BURNT = 4, 9


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPlan:
    """What a fleet holds; shares are from 0 to 1.

    Attributes:
        nodes, tokens_per_node: the size.
        seed: another seed gives other tokens, DIDs and states.
        shared: share of each node's tokens that the previous node has, too.
        absent: share of each node's tokens whose block its repository lacks.
        part_tokens, fungible_tokens, nft_tokens, sized_tokens: the mix of TokensTable; the
            rest are whole tokens.  Parts have a parent that is burnt, and sum up to it.
        content_size: bytes of content of each of the ``sized_tokens``.
        ft_rows, nft_rows, data_rows, contract_rows: rows of each node in the tables of the
            other kinds, all of them with their blocks.
        test_rows: tokens of the test network, in each node's ``rubixtest.db``.
        chains: write the token chains of what is free (0) or transferred (4), and of the
            other kinds: 1 to 5 ms a token; needs the extra ``chains``.
        signed: parts are signed blocks of DIDs that have keys (0.5 ms each), instead of
            characters that stand for them; always so with ``data_rows``, ``test_rows`` or
            ``chains``, which need keys.
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
    ft_rows: int = 0
    nft_rows: int = 0
    data_rows: int = 0
    contract_rows: int = 0
    test_rows: int = 0
    chains: bool = False
    signed: bool = False
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
        sizes = (self.nodes, self.tokens_per_node, *self.kinds, self.test_rows)
        if min(sizes) < 0 or self.did_count < 1 or not self.levels:
            raise ValueError("a fleet needs a size of at least 0, a DID and a level")
        if self.chains and (self.did_count < 5 or self.shared):
            raise ValueError("chains need five DIDs, for a quorum, and tokens of one node each")
        if self.shared_tokens and self.shared_tokens >= self.tokens_per_node:
            raise ValueError("a node must have a token of its own: lower the share of shared ones")
        # Whole tokens are numbered through; one too many would be minted twice.
        room = min(level_limits()[level] for level in self.levels)
        if self.start(self.nodes - 1) + self.tokens_per_node > room * len(self.levels):
            raise ValueError(f"levels {self.levels} have too few whole tokens for such a fleet")

    @property
    def kinds(self) -> KindRows:
        """Rows of each node in the tables of the other kinds."""
        return KindRows(self.ft_rows, self.nft_rows, self.data_rows, self.contract_rows)

    @property
    def has_keys(self) -> bool:
        """Its DIDs have keys."""
        return self.signed or self.chains or bool(self.data_rows or self.test_rows)

    @property
    def shared_tokens(self) -> int:
        """Tokens of each node (but the first) that the node before it has, too."""
        return round(self.tokens_per_node * self.shared)

    def start(self, index: int) -> int:
        """Fleet-wide number of the first token of a node; windows overlap by the shared ones."""
        return index * (self.tokens_per_node - self.shared_tokens)

    def dids(self) -> list[str]:
        """Those of the fleet; each node has the keys of all of them."""
        return [self.did(number) for number in range(self.did_count)]

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
            return self._part(number)
        if at < self.part_tokens + self.fungible_tokens:
            return fungible_token("TRI", number, self.did(number))
        if at < self.part_tokens + self.fungible_tokens + self.nft_tokens:
            return nft_token(self.seed, number)
        return sized_content(self.seed, number, self.content_size)

    def _part(self, number: int) -> bytes:
        if not self.has_keys:
            return part_token(self.seed, number)
        parent, value = split_of(self, number)
        creator = identities(self.seed, self.did_count)[number % self.did_count]
        return make_part(creator, parent, number % _SPLIT + 1, value).content

    def did(self, number: int) -> str:
        """The DID that ``number`` stands for."""
        at = number % self.did_count
        if self.has_keys:
            return identities(self.seed, self.did_count)[at].did
        return make_did(self.seed, at)

    def is_part(self, number: int) -> bool:
        return (number * _GOLDEN & 0xFFFFFFFFFFFFFFFF) / 2**64 < self.part_tokens

    def is_whole(self, number: int) -> bool:
        mix = self.part_tokens + self.fungible_tokens + self.nft_tokens + self.sized_tokens
        return (number * _GOLDEN & 0xFFFFFFFFFFFFFFFF) / 2**64 >= mix


@lru_cache(maxsize=4)
def identities(seed: int, count: int) -> tuple[Identity, ...]:
    """The DIDs of a fleet whose DIDs have keys."""
    return tuple(make_identity(seed, number) for number in range(count))


@lru_cache(maxsize=64)
def _split(plan: FleetPlan, which: int) -> tuple[int | None, str, tuple[int, ...]]:
    """Of one stretch of tokens: the number and id of the parent of its parts, and these."""
    numbers = range(which * _SPLIT, (which + 1) * _SPLIT)
    parts = tuple(filter(plan.is_part, numbers))
    whole = next(filter(plan.is_whole, numbers), None)
    if whole is None or not parts:
        return None, "", parts
    return whole, encode_token(plan.content(whole))[0], parts


def split_of(plan: FleetPlan, number: int) -> tuple[str, float]:
    """The parent ('' where nobody can tell) and the value of a part; a parent is worth 1.0."""
    _, parent, parts = _split(plan, number // _SPLIT)
    share = 1000 // len(parts)  # a thousandth is the least that a node splits off
    last = number == parts[-1]
    return parent, (1000 - share * (len(parts) - 1) if last else share) / 1000


class FleetToken(NamedTuple):
    """One token of one node: its row, its content and whether that is there.

    ``kind`` is what ``token_kind`` holds, ``network`` is ``main`` or ``test``.
    """

    row: tuple[object, ...]
    content: bytes
    blocks: tuple[Block, ...]
    present: bool
    kind: str = "rbt"
    network: str = "main"

    @property
    def token_id(self) -> str:
        return str(self.row[0])


def plan_tokens(plan: FleetPlan, index: int) -> Iterator[FleetToken]:
    """The tokens of node ``index`` of a plan: TokensTable, the other kinds, the test network."""
    yield from own_tokens(plan, index)
    yield from map(token_of, kinds_of(plan, index))
    yield from map(token_of, tests_of(plan, index))


def token_of(one: KindRow) -> FleetToken:
    """A row of another kind, or of the test network."""
    kind, network = ("rbt", "test") if one.kind == "test" else (one.kind, "main")
    return FleetToken(one.row, one.made.content, one.made.blocks, True, kind, network)


def own_tokens(plan: FleetPlan, index: int) -> Iterator[FleetToken]:
    """Those of TokensTable."""
    start = plan.start(index)
    numbers = range(start, start + plan.tokens_per_node)
    sent = range(plan.start(index + 1), numbers.stop) if index + 1 < plan.nodes else range(0)
    return tokens_of(plan, numbers, random.Random(f"{plan.seed} {index}"), sent)  # noqa: S311


def kinds_of(plan: FleetPlan, index: int) -> Iterator[KindRow]:
    """Those of the other kinds' tables."""
    if not any(plan.kinds):
        return iter(())
    return kind_rows(plan.seed, index, plan.kinds, identities(plan.seed, plan.did_count))


def tests_of(plan: FleetPlan, index: int) -> Iterator[KindRow]:
    """Those of the test network."""
    if not plan.test_rows:
        return iter(())
    return network_rows(index, plan.test_rows, identities(plan.seed, plan.did_count))


def tokens_of(
    plan: FleetPlan, numbers: range, chance: random.Random, sent: range = range(0)
) -> Iterator[FleetToken]:
    """Tokens of TokensTable; ``sent`` are those that the next node has received.

    What a node sent away is transferred, and only of such tokens is the content gone: so it
    is where nobody has cheated.
    """
    dids = plan.dids()
    draw, content_of, is_part, did_count = chance.random, plan.content, plan.is_part, len(dids)
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
        did = dids[int(draw() * did_count)]
        present = draw() >= plan.absent
        parent, value = split_of(plan, number) if is_part(number) else ("", 1.0)
        if number == _split(plan, number // _SPLIT)[0]:
            status = _BURNT
        elif number in sent or not present:
            status = _TRANSFERRED
        row = (token_id, parent, value, did, status, hashes[:64], hashes[64:], 0)
        yield FleetToken(row, content, blocks, present)
