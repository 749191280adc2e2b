"""Nodes with token chains, made for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rubix_token_sync.nodes.chain_signatures import PublicKey
from rubix_token_sync.nodes.chains import ChainLimits, Chains, read_chains
from rubix_token_sync.nodes.did_keys import NodeKeys
from rubix_token_sync.testing import (
    block_id,
    generated_block,
    make_identity,
    transferred_block,
    write_chains,
    write_public_keys,
)
from rubix_token_sync.testing.chains import FT

ALICE, BOB = make_identity(1, 1), make_identity(1, 2)
QUORUM = [make_identity(1, number) for number in range(3, 8)]
TOKENS = [f"Qm{number:044}" for number in range(6)]


def make_node(root: Path) -> Path:
    """A node with six FT: three with one block, three transferred in one block; its database."""
    rubix = root / "node1" / "Rubix"
    firsts = [generated_block(ALICE, token, FT, value=0.5) for token in TOKENS]
    previous = {
        token: block_id(block, token) for token, block in zip(TOKENS[:3], firsts[:3], strict=True)
    }
    then = transferred_block(ALICE, BOB.did, previous, FT, QUORUM, epoch=1_795_968_124)
    write_chains(rubix, "test", [*firsts, then])
    write_public_keys(rubix, "test", [ALICE, BOB, *QUORUM])
    return rubix / "rubix.db"


def open_chains(
    database: Path,
    scratch: Path,
    *,
    network: Any = "test",
    public_key: PublicKey | None = None,
    limits: ChainLimits | None = None,
) -> Chains:
    """`read_chains` with the node's own keys."""
    key = NodeKeys(str(database), network) if public_key is None else public_key
    return read_chains(str(database), network, str(scratch), key, limits=limits)


def rows_of(database: Path, scratch: Path, **options: Any) -> dict[str, dict[str, Any]]:
    """Every row by its token; there must be no failure and nothing left in the scratch space."""
    chains = open_chains(database, scratch, **options)
    rows = {row["token_id"]: row for batch in chains for row in batch.to_pylist()}
    assert chains.failures == {}
    assert list(scratch.iterdir()) == []
    return rows
