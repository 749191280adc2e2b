"""Real nodes, changed by hand and synced: each case its finding, resolved when taken back.

One target of three nodes with the two tokens that are honestly known to be held twice; what is
put in is put into a node's own database or repository, as whoever does it would.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync import log
from rubix_token_sync.cli import _run
from rubix_token_sync.ipfs.cid import parse

TRUTH = "double_holdings"
NODES = ("alice", "bob", "bob-backup")


@dataclass
class Fleet:
    """Nodes, their target, and the program over both."""

    home: Path
    capture: pytest.CaptureFixture[str]

    def run(self, *arguments: str) -> tuple[int, Any]:
        self.capture.readouterr()
        target = f"sqlite:///{self.home}/target.db"
        code = _run([*arguments, "--target", target, "--source-ip", "vm1", "--quiet", "--json"])
        return code, json.loads(self.capture.readouterr().out)

    def sync(self) -> None:
        reports = str(self.home / "reports")
        code, done = self.run("sync", str(self.home / "nodes"), "--report", reports)
        assert code in (0, 1), done  # the backup has no repository

    def audit(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What is open above info, by rule and token."""
        code, done = self.run("audit")
        assert code == done["exit_code"] == 6
        assert {rule["state"] for rule in done["rules"]} == {"ran"}
        return {
            (found["rule"], found["token_id"]): found
            for found in done["findings"]
            if found["severity"] != "info"
        }

    def node(self, name: str, statement: str, *values: object) -> None:
        """Change a node's own database."""
        home = self.home / "nodes" / name / "Rubix"
        path = home / "rubixtest.db" if (home / "rubixtest.db").exists() else home / "rubix.db"
        with closing(sqlite3.connect(path)) as db, db:
            assert db.execute(statement, values).rowcount > 0, statement

    def target(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.home / "target.db")) as db, db:
            return db.execute(statement, values).fetchall()


@pytest.fixture(scope="module")
def synced(real_nodes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nodes and their target, synced once."""
    home = tmp_path_factory.mktemp("cases")
    for name in NODES:
        shutil.copytree(real_nodes / name, home / "nodes" / name, symlinks=True)
    target = f"sqlite:///{home}/target.db"
    _run(["sync", str(home / "nodes"), "--target", target, "--source-ip", "vm1", "--quiet",
          "--report", str(home / "reports")])  # fmt: skip
    log.tear_down()
    return home


@pytest.fixture
def fleet(
    synced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Fleet]:  # fmt: skip
    """They are left as they were found: each case is taken back."""
    for name in list(os.environ):
        if name.startswith("RUBIX_SYNC_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield Fleet(synced, capsys)
    log.tear_down()


@pytest.fixture(scope="module")
def held_twice(real_nodes: Path) -> set[tuple[str, str]]:
    truth = json.loads((real_nodes / "truth.json").read_text(encoding="utf-8"))
    return {("held_twice", token) for token in truth[TRUTH]}


def test_honest_nodes_have_the_two_findings_that_are_known(
    real_nodes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, held_twice: set[tuple[str, str]],
) -> None:  # fmt: skip
    """All nine nodes; a copy without a repository and one without a program lose nothing."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(real_nodes, tmp_path / "nodes", symlinks=True)
    fleet = Fleet(tmp_path, capsys)
    fleet.sync()
    found = fleet.audit()
    log.tear_down()
    assert found.keys() == held_twice
    assert len(held_twice) == 2
    for one in found.values():
        assert [(e["node_name"], e["token_status"]) for e in one["evidence"]] == [
            ("alice", "0"), ("bob", "4"), ("bob-backup", "0"),
        ]  # fmt: skip
        assert len({e["did"] for e in one["evidence"]}) == 2


def _free(fleet: Fleet, node: str) -> list[str]:
    """Whole tokens that this node alone has, Free."""
    rows = fleet.target(
        "SELECT token_id FROM TokenRecords WHERE node_name = ? AND token_kind = 'rbt'"
        " AND token_status = '0' AND parent_token_id = ''"
        " AND token_id NOT IN (SELECT token_id FROM TokenRecords WHERE node_name <> ?)"
        " ORDER BY token_id",
        node, node,
    )  # fmt: skip
    return [str(row[0]) for row in rows]


Case = Callable[[Fleet], tuple[set[tuple[str, str]], Callable[[], None]]]


def _conflict(fleet: Fleet) -> tuple[set[tuple[str, str]], Callable[[], None]]:
    """The backup still spends what the node has burnt."""
    (row, *_) = fleet.target(
        "SELECT token_id FROM TokenRecords WHERE node_name = 'bob' AND token_status = '16'"
    )
    change = "UPDATE TokensTable SET token_status = ? WHERE token_id = ?"
    fleet.node("bob-backup", change, 0, row[0])
    return {("status_conflict", row[0])}, lambda: fleet.node("bob-backup", change, 16, row[0])


def _flagged(fleet: Fleet) -> tuple[set[tuple[str, str]], Callable[[], None]]:
    token = _free(fleet, "alice")[0]
    change = "UPDATE TokensTable SET token_status = ? WHERE token_id = ?"
    fleet.node("alice", change, 14, token)
    return {("flagged_by_node", token)}, lambda: fleet.node("alice", change, 0, token)


def _too_much(fleet: Fleet) -> tuple[set[tuple[str, str]], Callable[[], None]]:
    """A part grows beyond its parent."""
    ((token, parent, value), *_) = fleet.target(
        "SELECT token_id, parent_token_id, token_value FROM TokenRecords WHERE node_name = 'bob'"
        " AND token_status = '0' AND parent_token_id <> '' ORDER BY token_id"
    )
    change = "UPDATE TokensTable SET token_value = ? WHERE token_id = ?"
    fleet.node("bob", change, 7.5, token)
    return {("parts_exceed_parent", parent)}, lambda: fleet.node("bob", change, value, token)


def _unburnt(fleet: Fleet) -> tuple[set[tuple[str, str]], Callable[[], None]]:
    """A token that was never burnt has a part."""
    parent, *_, token = _free(fleet, "alice")
    change = "UPDATE TokensTable SET parent_token_id = ?, token_value = ? WHERE token_id = ?"
    fleet.node("alice", change, parent, 0.5, token)
    return {("parent_not_burnt", parent)}, lambda: fleet.node("alice", change, "", 1.0, token)


def _held(fleet: Fleet) -> tuple[set[tuple[str, str]], Callable[[], None]]:
    """Two nodes say that the token is theirs."""
    ((token, did), *_) = fleet.target(
        "SELECT token_id, did FROM TokenRecords WHERE node_name = 'bob-backup'"
        " AND token_kind = 'rbt' AND token_status = '0' AND token_id IN (SELECT token_id FROM"
        " TokenRecords WHERE node_name = 'bob' AND token_status = '0') ORDER BY token_id"
    )
    change = "UPDATE TokensTable SET did = ? WHERE token_id = ?"
    fleet.node("bob-backup", change, "bafybmi" + "q" * 52, token)
    return {("held_twice", token)}, lambda: fleet.node("bob-backup", change, did, token)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("case", [_conflict, _flagged, _too_much, _unburnt, _held])
def test_a_case_put_in_is_found_and_resolved_when_taken_back(
    fleet: Fleet, held_twice: set[tuple[str, str]], case: Case
) -> None:
    expected, take_back = case(fleet)
    fleet.sync()
    found = fleet.audit()
    assert found.keys() - held_twice == expected
    ((rule, token),) = expected
    evidence = found[rule, token]["evidence"]
    assert {(e["node_name"], e["token_status"]) for e in evidence} == {
        tuple(row)
        for row in fleet.target(
            "SELECT node_name, token_status FROM TokenRecords"
            " WHERE token_id = ? OR (parent_token_id = ? AND ? IN ('parent_not_burnt',"
            " 'parts_exceed_parent'))",
            token, token, rule,
        )
    }  # fmt: skip
    fleet.sync()
    assert fleet.audit()[rule, token]["state"] == "confirmed"
    take_back()
    fleet.sync()
    assert fleet.audit().keys() == held_twice
    _, document = fleet.run("findings", "--state", "resolved", "--rule", rule)
    assert [one["resolution"] for one in document["findings"] if one["token_id"] == token] == [
        "gone"
    ]
    _, again = case(fleet)
    fleet.sync()
    assert fleet.audit()[rule, token]["state"] == "reopened"
    again()
    fleet.sync()
    assert fleet.audit().keys() == held_twice


def test_damaged_on_one_node_and_on_all(
    real_nodes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A block of a token that both nodes have: damaged on one, then on both."""
    monkeypatch.chdir(tmp_path)
    token = "QmVa85XsRoHux8PNUmiSa1Bi9rfcre8VVbZormGPdoY7X5"
    found: list[Counter[str]] = []
    for damaged in (("alice",), ("alice", "bob")):
        home = tmp_path / str(len(damaged))
        for name in ("alice", "bob"):
            shutil.copytree(real_nodes / name, home / "nodes" / name, symlinks=True)
        for name in damaged:
            assert _damage(home / "nodes" / name / ".ipfs" / "blocks", token)
        fleet = Fleet(home, capsys)
        fleet.sync()
        code, done = fleet.run("audit", "--fail-on", "warning")
        assert code == 6
        found.append(Counter(f["rule"] for f in done["findings"] if f["token_id"] == token))
        log.tear_down()
    assert found == [Counter({"content_at_risk": 1}), Counter({"missing_everywhere": 1})]


def _damage(blocks: Path, token: str) -> int:
    """Change the last byte of the token's block."""
    cid = parse(token)
    assert cid is not None
    name = base64.b32encode(cid.multihash).decode().rstrip("=")
    files = list(blocks.glob(f"*/{name}.data"))
    for file in files:
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.chmod(0o600)
        file.write_bytes(bytes(data))
    return len(files)
