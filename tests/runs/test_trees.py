"""What a content names (an NFT's artifact, a contract's files): proven once, known for ever."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.ipfs.cid import Cid, parse
from rubix_token_sync.runs.jobs import Difference
from rubix_token_sync.runs.result import RunOptions
from rubix_token_sync.runs.sync import sync
from rubix_token_sync.runs.verify import Verification, repair, verify
from rubix_token_sync.testing import (
    Block,
    Files,
    FlatfsWriter,
    MadeToken,
    add_rows,
    block_path,
    create_database,
    make_contract,
    make_identity,
    make_nft,
)

Options = Callable[..., RunOptions]

CREATOR = make_identity(1, 1)
ART: Files = {"art.png": b"\x89PNG\r\n\x00", "meta": {"card.json": b"{}", "copy.json": b"{}"}}
CODE = bytes(range(256)) * 1_600  # two chunks and a root
NFT = make_nft(CREATOR.did, ART)
CONTRACT = make_contract(CREATOR.did, CODE, b"fn main(){}\n", b"\x00\x01")
TREES: dict[str, dict[str, Any]] = {
    "nft": {
        "artifact_hash": {
            "kind": "directory", "blocks": 4, "size": 11, "files": 3, "not_stored": "not_a_file"
        }
    },
    "contract": {
        "binary_code_hash": {
            "kind": "file", "blocks": 3, "size": 409_600, "files": 1,
            "not_stored": "too_large_to_store",
        },
        "raw_code_hash": {
            "kind": "file", "blocks": 1, "size": 12, "files": 1, "content": "fn main(){}\n"
        },
        "schema_code_hash": {
            "kind": "file", "blocks": 1, "size": 2, "files": 1,
            "content": "data:application/octet-stream;base64,AAE=",
        },
    },
}  # fmt: skip


class Nodes:
    """A fleet of nodes that all hold one NFT and one contract, each with its own repository."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def make(self, name: str, status: int = 0) -> Path:
        database = self.home / name / "Rubix" / "rubix.db"
        create_database(database, [])
        add_rows(database, "NFTTokensTable", [(NFT.token_id, CREATOR.did, status, 1.0)])
        named = json.loads(CONTRACT.content)
        hashes = [named[f"{what}CodeHash"] for what in ("binary", "raw", "schema")]
        row = (CONTRACT.token_id, CREATOR.did, *hashes, 6)
        add_rows(database, "smartcontract", [row])
        self.put(name, (*NFT.blocks, *CONTRACT.blocks))
        return database

    def put(self, name: str, blocks: tuple[Block, ...]) -> None:
        FlatfsWriter(self.home / name / ".ipfs").put(blocks)

    def lose(self, name: str, block: Block) -> None:
        (self.home / name / ".ipfs" / "blocks" / block_path(block)).unlink()


def cid_in(made: MadeToken, name: str) -> Cid:
    """A CID that a content names."""
    return cid_of(json.loads(made.content)[name])


def cid_of(text: str) -> Cid:
    found = parse(text)
    assert found is not None
    return found


RAW_CODE, ARTIFACT = cid_in(CONTRACT, "rawCodeHash"), cid_in(NFT, "ArtifactHash")


def block_of(made: MadeToken, cid: Cid) -> Block:
    return next(block for block in made.blocks if block.multihash == cid.multihash)


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path / "nodes")


@pytest.fixture
def run(options: Options, nodes: Nodes) -> RunOptions:
    return options(roots=(str(nodes.home),))


def stored(target: Path) -> Iterator[dict[str, Any]]:
    with closing(sqlite3.connect(f"file:{target}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        for row in db.execute("SELECT * FROM TokenRecords ORDER BY id"):
            yield dict(row)


def said(target: Path) -> dict[tuple[str, str], tuple[bool, str | None, dict[str, Any]]]:
    """By node and kind: whether all is there, why not, and what is said of trees."""
    return {
        (row["node_name"], row["token_kind"]): (
            bool(row["ipfs_fetched"]),
            row["ipfs_error"],
            json.loads(row["attributes"]).get("trees", {}),
        )
        for row in stored(target)
    }


def compared(options: RunOptions) -> tuple[Verification, list[Difference]]:
    found: list[Difference] = []
    return verify(replace(options, command="verify"), on_difference=found.append), found


def test_trees_are_proven_and_stand_in_the_record(
    nodes: Nodes, run: RunOptions, target_file: Path
) -> None:
    nodes.make("a")
    result = sync(run)
    assert (result.exit_code, dict(result.counters.content_failures)) == (0, {})
    assert said(target_file) == {("a", kind): (True, None, trees) for kind, trees in TREES.items()}
    before = list(stored(target_file))
    assert sync(run).counters.databases_current == 1
    assert list(stored(target_file)) == before
    same, differences = compared(run)
    assert (same.exit_code, differences) == (0, [])


def test_what_is_missing_is_counted_and_asked_for_again(
    nodes: Nodes, run: RunOptions, target_file: Path
) -> None:
    nodes.make("a")
    lost = block_of(CONTRACT, RAW_CODE), block_of(NFT, ARTIFACT)
    for block in lost:
        nodes.lose("a", block)
    result = sync(run)
    assert dict(result.counters.content_failures) == {"not_in_repository": 2}
    found = said(target_file)
    fetched, error, trees = found["a", "nft"]
    assert (fetched, trees) == (False, {})
    assert (error or "").startswith("not_in_repository: artifact_hash: ")
    fetched, error, trees = found["a", "contract"]
    assert fetched is False
    assert (error or "").startswith("not_in_repository: raw_code_hash: ")
    assert trees == {k: v for k, v in TREES["contract"].items() if k != "raw_code_hash"}
    assert all(row["ipfs_data"] is not None for row in stored(target_file))
    before = list(stored(target_file))
    assert sync(run).counters.databases_current == 1  # the repository is as it was
    again = sync(replace(run, only_failed=True))
    assert (again.counters.databases_processed, list(stored(target_file))) == (1, before)
    nodes.put("a", lost)
    assert dict(sync(run).counters.content_failures) == {}  # it changed
    assert said(target_file) == {("a", kind): (True, None, trees) for kind, trees in TREES.items()}


def test_a_changed_row_keeps_what_is_proven_and_what_failed(
    nodes: Nodes, run: RunOptions, target_file: Path
) -> None:
    database = nodes.make("a")
    nodes.lose("a", block_of(CONTRACT, RAW_CODE))
    sync(run)
    before = said(target_file)
    nodes.lose("a", block_of(NFT, ARTIFACT))
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("UPDATE NFTTokensTable SET token_status = 4")
        db.execute("UPDATE smartcontract SET contract_status = 8")
    # As if the repository had been looked at in this state: nothing is due.
    with closing(sqlite3.connect(target_file)) as db, db:
        db.execute("UPDATE ProcessedDatabases SET ipfs_fail_count = 0")
    sync(run)
    assert said(target_file) == before
    assert {row["token_status"] for row in stored(target_file)} == {"4", "8"}


def test_another_nodes_proof_is_enough(nodes: Nodes, run: RunOptions, target_file: Path) -> None:
    nodes.make("a")
    sync(run)
    nodes.make("b")
    nodes.lose("b", block_of(CONTRACT, RAW_CODE))
    nodes.lose("b", block_of(NFT, ARTIFACT))
    assert dict(sync(run).counters.content_failures) == {}
    assert said(target_file)["b", "contract"] == (True, None, TREES["contract"])
    # Nothing differs; but these trees cannot be proven from the target alone.
    result, differences = compared(run)
    assert (differences, result.unverified) == ([], 2)


def test_verify_finds_and_repairs_what_is_said_of_trees(
    nodes: Nodes, run: RunOptions, target_file: Path
) -> None:
    nodes.make("a")
    sync(run)
    with closing(sqlite3.connect(target_file)) as db, db:
        db.execute("UPDATE TokenRecords SET attributes = replace(attributes, '409600', '1')")
    _, differences = compared(run)
    assert [(d.letter, d.columns) for d in differences] == [("*", ("attributes",))]
    repair(replace(run, command="verify"), on_difference=lambda _: None)
    assert said(target_file)["a", "contract"] == (True, None, TREES["contract"])
    assert compared(run)[1] == []


def test_trees_that_only_the_target_has_stay(
    nodes: Nodes, run: RunOptions, target_file: Path
) -> None:
    nodes.make("a")
    nodes.lose("a", block_of(CONTRACT, RAW_CODE))
    sync(run)
    before = said(target_file)
    nodes.lose("a", block_of(CONTRACT, cid_in(CONTRACT, "schemaCodeHash")))
    for made in (NFT, CONTRACT):
        nodes.lose("a", block_of(made, cid_of(made.token_id)))
    result, differences = compared(run)
    assert (differences, result.unverified) == ([], 1)  # contents by their hashes, not a tree
    repair(replace(run, command="verify"), on_difference=differences.append)
    assert (differences, said(target_file)) == ([], before)
