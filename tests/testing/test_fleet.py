"""Whole fleets: true token ids, the promised mix, the same fleet for the same plan."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.ipfs.cid import parse
from rubix_token_sync.ipfs.content import Failure
from rubix_token_sync.ipfs.readers.blockstore import BlockStoreReader
from rubix_token_sync.ipfs.repository import open_repository
from rubix_token_sync.nodes.discovery import discover
from rubix_token_sync.testing import (
    Fleet,
    FleetNode,
    FleetPlan,
    add_tokens,
    encode_file,
    level_limits,
    make_did,
    make_fleet,
    whole_token,
)
from rubix_token_sync.testing.fleet_plan import plan_tokens

MIX = FleetPlan(
    nodes=3,
    tokens_per_node=400,
    shared=0.25,
    absent=0.1,
    part_tokens=0.2,
    fungible_tokens=0.1,
    nft_tokens=0.05,
    sized_tokens=0.05,
    content_size=3000,
)


def _ids(node: FleetNode) -> list[str]:
    with closing(sqlite3.connect(f"file:{node.db_path}?mode=ro", uri=True)) as db:
        return [name for (name,) in db.execute("SELECT token_id FROM TokensTable ORDER BY rowid")]


def _block_files(node: FleetNode) -> set[bytes]:
    return {path.read_bytes() for path in Path(node.repository).glob("blocks/*/*.data")}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return make_fleet(tmp_path_factory.mktemp("mixed") / "fleet", MIX)


def test_rows_and_blocks_are_what_the_truth_says(mixed: Fleet) -> None:
    for node in mixed.nodes:
        truth = list(mixed.truth(node))
        assert [token.token_id for token in truth] == _ids(node)
        files = _block_files(node)
        for token in truth:
            cid, blocks = encode_file(token.content)
            assert cid == token.token_id
            assert {block.data in files for block in blocks} == {token.present}
        assert node.tokens == 400
        assert node.absent == sum(not token.present for token in truth)
        assert node.blocks == len(files) - 1  # one more: the empty directory of every repository
    assert (mixed.tokens, mixed.blocks + mixed.absent) == (1200, 1200)


def test_the_mix_is_as_planned(mixed: Fleet) -> None:
    kinds: Counter[str] = Counter()
    for token in mixed.truth(mixed.nodes[0]):
        sizes = {67: "whole", 240: "part", 3000: "sized"}
        starts = {b"{": "nft", b"T": "fungible"}
        kinds[starts.get(token.content[:1]) or sizes[len(token.content)]] += 1
    wanted = {"whole": 240, "part": 80, "fungible": 40, "nft": 20, "sized": 20}
    assert kinds.keys() == wanted.keys()
    assert all(abs(kinds[kind] - wanted[kind]) <= 3 for kind in wanted)
    assert all(0.05 < node.absent / node.tokens < 0.15 for node in mixed.nodes)


def test_neighbours_share_exactly_the_planned_tokens(mixed: Fleet) -> None:
    first, second, third = (set(_ids(node)) for node in mixed.nodes)
    assert len(first & second) == len(second & third) == 100
    assert not first & third


def test_whole_tokens_are_authentic(mixed: Fleet) -> None:
    """Their number is found again by inverting the sha256, below the level's limit."""
    known = {sha256(b"%d" % number).hexdigest(): number for number in range(200_000)}
    plan = FleetPlan(nodes=1, tokens_per_node=1, levels=(78,), part_tokens=0, fungible_tokens=0)
    content = plan.content(0).decode()
    assert known[content[3:]] < level_limits()[int(content[:3])] == 17602


def test_no_whole_token_is_minted_twice(tmp_path: Path) -> None:
    limit = level_limits()[78]
    plan = FleetPlan(nodes=1, tokens_per_node=limit, levels=(78,), part_tokens=0, fungible_tokens=0)
    contents = {plan.content(number) for number in range(limit)}
    assert contents == {whole_token(78, number) for number in range(limit)}
    with pytest.raises(ValueError, match="too few"):
        FleetPlan(nodes=1, tokens_per_node=limit + 1, levels=(78,))


def test_the_limits_of_the_levels() -> None:
    assert level_limits()[:5] == (0, 5_000_000, 2_425_000, 2_188_563, 2_188_563)
    assert len(level_limits()) == 79
    for level, number in ((0, 0), (79, 0), (1, 5_000_000), (1, -1)):
        with pytest.raises(ValueError, match="no token number"):
            whole_token(level, number)
    assert len(whole_token(1, 7)) == 67
    assert len(whole_token(1, 7, digits=2)) == 66
    assert whole_token(1, 7, newline=True).endswith(b"\n")


def test_dids_have_the_form_of_the_fixture(expected: dict[str, list[dict[str, Any]]]) -> None:
    did = make_did(1, 1)
    assert did.startswith("bafybmi")
    assert len(did) == 59
    fungible = next(
        bytes.fromhex(token["content"]).decode()
        for token in expected["node032/Rubix/rubix.db"]
        if token["content"].startswith(b"TRI".hex())
    )
    assert len(fungible.split()[2]) == 59
    assert fungible.split()[2].startswith("bafybmi")


def _snapshot(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_the_same_plan_makes_the_same_fleet_with_any_number_of_processes(tmp_path: Path) -> None:
    plan = FleetPlan(nodes=3, tokens_per_node=40, absent=0.1)
    one = make_fleet(tmp_path / "one", plan, jobs=1)
    done: list[tuple[int, int]] = []
    two = make_fleet(tmp_path / "two", plan, jobs=2, progress=lambda *at: done.append(at))
    assert _snapshot(tmp_path / "one") == _snapshot(tmp_path / "two")
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert [node.name for node in two.nodes] == [node.name for node in one.nodes]
    other = make_fleet(tmp_path / "other", FleetPlan(nodes=3, tokens_per_node=40, seed=2))
    assert not set(_ids(other.nodes[0])) & set(_ids(one.nodes[0]))


def test_added_tokens_are_new_and_complete(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet", FleetPlan(nodes=2, tokens_per_node=50))
    before = {name for node in fleet.nodes for name in _ids(node)}
    added = [add_tokens(fleet, node, 5, seed=seed) for node in fleet.nodes for seed in (1, 2)]
    names = {token.token_id for tokens in added for token in tokens}
    assert len(names) == 20
    assert not names & before
    assert set(_ids(fleet.nodes[0])) >= {token.token_id for token in added[0]}
    assert all(token.blocks[0].data in _block_files(fleet.nodes[1]) for token in added[2])


EVERY_KIND = FleetPlan(
    nodes=2, tokens_per_node=70, did_count=8, ft_rows=8, nft_rows=2, data_rows=2,
    contract_rows=1, test_rows=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return make_fleet(tmp_path_factory.mktemp("kinds") / "fleet", EVERY_KIND)


def test_every_kind_has_its_table_and_its_blocks(every_kind: Fleet) -> None:
    assert every_kind.tokens == 2 * (70 + 8 + 2 + 2 + 1 + 3)
    for node in every_kind.nodes:
        files, truth = _block_files(node), list(every_kind.truth(node))
        assert all(block.data in files for token in truth for block in token.blocks)
        for name, table, network in (
            ("rbt", "TokensTable", "main"), ("ft", "FTTokenTable", "main"),
            ("nft", "NFTTokensTable", "main"), ("data", "DataTokensTable", "main"),
            ("contract", "smartcontract", "main"), ("rbt", "TokensTable", "test"),
        ):  # fmt: skip
            path = node.db_path if network == "main" else node.db_path.replace("x.db", "xtest.db")
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                rows = db.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall()
            assert rows == [t.row for t in truth if (t.kind, t.network) == (name, network)]


def test_parts_sum_up_to_a_token_that_is_burnt(every_kind: Fleet) -> None:
    plan = FleetPlan(nodes=1, tokens_per_node=640, shared=0.0, part_tokens=0.4)
    for rows in (
        [t.row for t in plan_tokens(plan, 0)],
        [t.row for n in every_kind.nodes for t in every_kind.truth(n) if t.kind == "rbt"][:64],
    ):
        statuses = {row[0]: row[4] for row in rows}
        shares: Counter[str] = Counter()
        for row in rows:
            if row[1]:
                shares[str(row[1])] += round(float(str(row[2])) * 1000)
        assert shares
        assert set(shares.values()) == {1000}
        assert {statuses[parent] for parent in shares} == {9}


def test_only_what_was_sent_away_is_without_content() -> None:
    plan = FleetPlan(nodes=2, tokens_per_node=200, absent=0.2, shared=0.1)
    tokens = list(plan_tokens(plan, 0))
    assert {t.row[4] for t in tokens if not t.present} <= {4, 9}
    assert {t.row[4] for t in tokens[-20:]} <= {4, 9}  # the next node has them


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(FileExistsError):
        make_fleet(tmp_path, FleetPlan(nodes=1, tokens_per_node=1))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"shared": 1.5},
        {"absent": -0.1},
        {"part_tokens": 0.8, "fungible_tokens": 0.3},
        {"shared": 1.0},
        {"did_count": 0},
        {"levels": ()},
        {"ft_rows": -1},
        {"chains": True, "did_count": 4},
        {"chains": True, "shared": 0.5},
    ],
)
def test_impossible_plans_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        FleetPlan(nodes=2, tokens_per_node=10, **wrong)


def test_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rubix_token_sync.testing", str(tmp_path / "fleet")]
    done = subprocess.run(
        [*command, "--nodes", "2", "--tokens", "30", "--absent", "0.5", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    summary = json.loads(done.stdout)
    assert (summary["nodes"], summary["tokens"]) == (2, 60)
    assert summary["blocks"] + summary["absent"] == 60
    assert len(list((tmp_path / "fleet").glob("*/Rubix/rubix.db"))) == 2
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "not empty" in again.stderr


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"shard": "prefix/5"},
        {"shard": "suffix/2"},
        {"repository_version": 11},
        {"journal_mode": "wal"},
        {"in_wal": True},
    ],
)
def test_the_project_itself_finds_and_reads_what_was_made(
    tmp_path: Path, layout: dict[str, Any]
) -> None:
    plan = FleetPlan(nodes=2, tokens_per_node=60, absent=0.2, nft_tokens=0.1, **layout)
    fleet = make_fleet(tmp_path / "fleet", plan)
    found = discover([fleet.directory])
    assert [(node.name, node.db_path, node.repository) for node in found.nodes] == [
        (node.name, node.db_path, node.repository) for node in fleet.nodes
    ]
    for node in fleet.nodes:
        truth = list(fleet.truth(node))
        reader = BlockStoreReader(open_repository(node.repository))
        cids = [parse(token.token_id) for token in truth]
        assert None not in cids
        contents = reader.read([cid for cid in cids if cid is not None])
        reader.close()
        for token, content in zip(truth, contents, strict=True):
            assert (content == token.content) is token.present
            if not token.present:
                assert isinstance(content, Failure)
                assert content.code == "not_in_repository"
