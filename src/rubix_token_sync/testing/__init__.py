"""Fleets of Rubix nodes for tests, demonstrations and benchmarks.

``make_fleet`` writes whole fleets; the smaller blocks build single nodes::

    from rubix_token_sync.testing import FleetPlan, make_fleet

    fleet = make_fleet(tmp_path / "fleet", FleetPlan(nodes=3, tokens_per_node=100, absent=0.1))
    for token in fleet.truth(fleet.nodes[0]):
        token.token_id, token.content, token.present

    cid = write_block(tmp_path / "node/.ipfs", b"hello")
    create_database(tmp_path / "node/Rubix/rubix.db", [(cid, "", 1.0, did, 0, "", "", 0)])

Tokens of every kind, with all blocks that belong to them::

    creator = make_identity(seed=1, number=1)
    nft = make_nft(creator.did, {"art.png": b"...", "meta.json": b"{}"})
    FlatfsWriter(tmp_path / "node/.ipfs").put([*creator.blocks, *nft.blocks])

Token chains are in `rubix_token_sync.testing.chains`.

``python -m rubix_token_sync.testing DIR --nodes N --tokens M`` writes one from
the command line.  A sync never uses this package.
"""

from __future__ import annotations

from rubix_token_sync.testing.chains import (
    block_id,
    generated_block,
    transferred_block,
    write_chains,
    write_public_keys,
)
from rubix_token_sync.testing.contents import (
    fungible_token,
    level_limits,
    make_did,
    nft_token,
    part_token,
    sized_content,
    whole_token,
)
from rubix_token_sync.testing.database import (
    FORK_SCHEMA,
    KIND_SCHEMAS,
    NEWEST_SCHEMA,
    OLDEST_SCHEMA,
    add_rows,
    change_status,
    create_database,
    delete_tokens,
    insert_rows,
)
from rubix_token_sync.testing.flatfs import (
    Block,
    Files,
    FlatfsWriter,
    block_path,
    encode_directory,
    encode_file,
    write_block,
)
from rubix_token_sync.testing.fleet import (
    Fleet,
    FleetNode,
    FleetPlan,
    FleetToken,
    add_tokens,
    make_fleet,
)
from rubix_token_sync.testing.identities import Identity, make_identity
from rubix_token_sync.testing.tokens import (
    MadeToken,
    make_contract,
    make_data,
    make_faucet,
    make_ft,
    make_nft,
    make_part,
    make_test,
)

__all__ = [
    "FORK_SCHEMA",
    "KIND_SCHEMAS",
    "NEWEST_SCHEMA",
    "OLDEST_SCHEMA",
    "Block",
    "Files",
    "FlatfsWriter",
    "Fleet",
    "FleetNode",
    "FleetPlan",
    "FleetToken",
    "Identity",
    "MadeToken",
    "add_rows",
    "add_tokens",
    "block_id",
    "block_path",
    "change_status",
    "create_database",
    "delete_tokens",
    "encode_directory",
    "encode_file",
    "fungible_token",
    "generated_block",
    "insert_rows",
    "level_limits",
    "make_contract",
    "make_data",
    "make_did",
    "make_faucet",
    "make_fleet",
    "make_ft",
    "make_identity",
    "make_nft",
    "make_part",
    "make_test",
    "nft_token",
    "part_token",
    "sized_content",
    "transferred_block",
    "whole_token",
    "write_block",
    "write_chains",
    "write_public_keys",
]
