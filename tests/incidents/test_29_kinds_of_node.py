"""29: every database of every kind of node is found, or named as what it is."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.nodes.discovery import Discovery, discover
from tests.chaos.door import Door


def _names(found: Discovery) -> list[tuple[str, str]]:
    return [(node.name, os.path.basename(node.db_path)) for node in found.nodes]


def _reasons(found: Discovery, root: Path) -> dict[str, str]:
    return {os.path.relpath(item.path, root): item.reason_code for item in found.skipped}


def test_real_nodes_are_discovered(real_nodes: Path) -> None:
    found = discover([real_nodes])
    assert _names(found) == [
        ("alice", "rubix.db"), ("bob-backup", "rubix.db"), ("bob", "rubix.db"),
        ("carol", "rubix.db"), ("carol", "rubixtest.db"), ("dave", "rubixtest.db"),
        ("erin-hot", "rubix.db"), ("erin", "rubix.db"), ("q1", "rubix.db"), ("q2", "rubix.db"),
    ]  # fmt: skip
    assert _reasons(found, real_nodes) == {"dave/rubix.db": "beside_rubix"}
    assert [item.hides_nodes for item in found.skipped] == [False]
    assert found.notes == []
    assert [node.name for node in found.nodes if node.repository is None] == ["bob-backup"]


def test_real_nodes_are_read_whole(door: Door, real_nodes: Path, tmp_path: Path) -> None:
    report = door.run(
        "sync", str(real_nodes), "--target", f"sqlite:///{tmp_path}/t.db", "--source-ip", "vm1",
        "--json",
    ).expect(0, 1).document  # fmt: skip
    truth: dict[str, Any] = json.loads((real_nodes / "truth.json").read_text(encoding="utf-8"))
    assert report["total_databases_processed"] == 10
    assert report["total_databases_failed"] == 0
    assert report["errors"] == [e for e in report["errors"] if e["category"] == "ipfs"]
    assert set(truth["nodes"]) <= {d["node_name"] for d in report["databases"]}
    # as many as the databases' own tables hold: counted with sqlite3
    tables = ("TokensTable", "FTTokenTable", "NFTTokensTable", "DataTokensTable", "smartcontract")
    held = [len(node["tables"][table]) for node in truth["nodes"].values()
            if "tables" in node for table in tables]  # fmt: skip
    assert report["records_inserted"] == sum(held) + 30  # erin-hot: as many as erin


def _node(path: Path, *databases: str, chains: str | None = None) -> Path:
    (path / "Rubix").mkdir(parents=True)
    for name in databases:
        (path / "Rubix" / name).touch()
    if chains is not None:
        storage = path / "Rubix" / chains / "tokenchainstorage"
        storage.mkdir(parents=True)
        (storage / "000003.log").write_bytes(b"x")
    return path


@pytest.mark.parametrize(
    ("databases", "chains", "expected"),
    [
        ((), None, "no_database"),
        ((), "MainNet", "other_dbms"),
        ((), "TestNet", "other_dbms"),
        (("rubixtest.db",), "MainNet", "other_dbms"),
        (("rubixtest.db",), "TestNet", None),
        (("rubix.db",), "MainNet", None),
        (("rubix.db",), "TestNet", None),
        (("rubix.db", "rubixtest.db"), "MainNet", None),
    ],
)
def test_wallets_elsewhere(
    databases: tuple[str, ...], chains: str | None, expected: str | None, tmp_path: Path
) -> None:
    _node(tmp_path / "n", *databases, chains=chains)
    found = discover([tmp_path])
    assert len(found.nodes) == len(databases)
    assert _reasons(found, tmp_path) == ({"n/Rubix": expected} if expected else {})
    assert [item.hides_nodes for item in found.skipped] == (
        [expected == "other_dbms"] if expected else []
    )


def test_a_database_left_behind_is_named_and_read(tmp_path: Path) -> None:
    node = _node(tmp_path / "n", "rubix.db", chains="MainNet")
    assert discover([tmp_path]).notes == []
    os.utime(node / "Rubix" / "rubix.db", (1_700_000_000, 1_700_000_000))
    os.utime(node / "Rubix/MainNet/tokenchainstorage/000003.log", (1_702_000_000, 1_702_000_000))
    found = discover([tmp_path])
    assert len(found.nodes) == 1
    assert [item.reason_code for item in found.notes] == ["perhaps_stale"]
    assert " 23 days " in found.notes[0].sentence


def test_files_elsewhere_are_no_databases(tmp_path: Path) -> None:
    _node(tmp_path / "auth", "rubix.db")
    (tmp_path / "auth" / "rubix.db").touch()
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "rubixtest.db").touch()
    found = discover([tmp_path])
    assert _names(found) == [("auth", "rubix.db")]
    assert _reasons(found, tmp_path) == {
        "auth/rubix.db": "beside_rubix",
        "backup/rubixtest.db": "not_in_rubix",
    }


def test_tables_are_named_where_none_is_read(door: Door, fleet: Path, tmp_path: Path) -> None:
    for entry in fleet.iterdir():
        if entry.name != "node037" and entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
    report = door.run(
        "sync", str(fleet), "--target", f"sqlite:///{tmp_path}/t.db", "--source-ip", "vm1", "--json"
    ).expect(1).document  # fmt: skip
    (message,) = [e["message"] for e in report["errors"] if e["code"] == "no_tokens_table"]
    assert "none of another kind of token; it has " in message
