"""Real nodes, changed by hand and synced: each case its finding, resolved when taken back.

One target of three real nodes with the two tokens that are known to be held twice, and of two
made ones; what is put in is put into a node's own database or repository, as whoever does it
would.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync import log
from rubix_token_sync.audit.authenticity import WholeToken
from rubix_token_sync.cli import _run
from rubix_token_sync.ipfs.cid import parse
from rubix_token_sync.testing import (
    block_path,
    create_database,
    encode_file,
    insert_rows,
    make_identity,
    make_test,
    whole_token,
    write_block,
    write_public_keys,
)

TRUTH = "double_holdings"
NODES = ("alice", "bob", "bob-backup")
BACKUP = {"held_twice", "spent_copy"}
"""What is found about each of the two tokens that the backup still has."""
MAKER, KEEPER = make_identity(1, 1), make_identity(1, 2)
Case = tuple[set[tuple[str, str]], Callable[[], None]]
"""What must be found, and how the case is taken back."""


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

    def sync(self, *arguments: str) -> None:
        reports = str(self.home / "reports")
        code, done = self.run("sync", str(self.home / "nodes"), "--report", reports, *arguments)
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


def _copy(real: Path, node: Path) -> None:
    """The node's directory; its repository, which is only read, is a link."""
    for entry in real.iterdir():
        if entry.name == ".ipfs":
            node.mkdir(parents=True, exist_ok=True)
            (node / entry.name).symlink_to(entry)
        elif entry.name == "Rubix":
            (node / entry.name).mkdir(parents=True)
            for file in entry.glob("*.db"):
                shutil.copy2(file, node / entry.name)


def _make(home: Path) -> None:
    """Two nodes with a whole token each."""
    for name, owner, number in (("maker", MAKER, 7), ("keeper", KEEPER, 8)):
        rubix = home / name / "Rubix"
        token = write_block(home / name / ".ipfs", whole_token(1, number))
        rows = [(token, "", 1.0, owner.did, 0, "", "", 0)]
        create_database(rubix / "rubix.db", rows, dids=[owner.did])
        write_public_keys(rubix, "main", [owner])


@pytest.fixture(scope="module")
def synced(real_nodes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nodes and their target, synced once."""
    home = tmp_path_factory.mktemp("cases")
    for name in NODES:
        _copy(real_nodes / name, home / "nodes" / name)
    _make(home / "nodes")
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
    for name in list(os.environ):
        if name.startswith("RUBIX_SYNC_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield Fleet(synced, capsys)
    log.tear_down()


@pytest.fixture(scope="module")
def held_twice(real_nodes: Path) -> set[tuple[str, str]]:
    truth = json.loads((real_nodes / "truth.json").read_text(encoding="utf-8"))
    return {(rule, token) for token in truth[TRUTH] for rule in BACKUP}


def test_honest_nodes_have_the_two_findings_that_are_known(
    real_nodes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, held_twice: set[tuple[str, str]],
) -> None:  # fmt: skip
    """All nine nodes; a copy without a repository and one without a program lose nothing."""
    monkeypatch.chdir(tmp_path)
    for name in (entry.name for entry in real_nodes.iterdir() if entry.is_dir()):
        _copy(real_nodes / name, tmp_path / "nodes" / name)
    fleet = Fleet(tmp_path, capsys)
    fleet.sync()
    found = fleet.audit()
    log.tear_down()
    assert found.keys() == held_twice
    assert len(held_twice) == 4
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


def _conflict(fleet: Fleet) -> Case:
    """The backup still spends what the node has burnt."""
    (row, *_) = fleet.target(
        "SELECT token_id FROM TokenRecords WHERE node_name = 'bob' AND token_status = '16'"
    )
    change = "UPDATE TokensTable SET token_status = ? WHERE token_id = ?"
    fleet.node("bob-backup", change, 0, row[0])
    return {("status_conflict", row[0])}, lambda: fleet.node("bob-backup", change, 16, row[0])


def _flagged(fleet: Fleet) -> Case:
    token = _free(fleet, "alice")[0]
    change = "UPDATE TokensTable SET token_status = ? WHERE token_id = ?"
    fleet.node("alice", change, 14, token)
    return {("flagged_by_node", token)}, lambda: fleet.node("alice", change, 0, token)


def _too_much(fleet: Fleet) -> Case:
    """A part grows beyond its parent."""
    ((token, parent, value), *_) = fleet.target(
        "SELECT token_id, parent_token_id, token_value FROM TokenRecords WHERE node_name = 'bob'"
        " AND token_status = '0' AND parent_token_id <> '' ORDER BY token_id"
    )
    change = "UPDATE TokensTable SET token_value = ? WHERE token_id = ?"
    fleet.node("bob", change, 7.5, token)
    return {("parts_exceed_parent", parent)}, lambda: fleet.node("bob", change, value, token)


def _unburnt(fleet: Fleet) -> Case:
    """A token that was never burnt has a part."""
    _, parent, *_, token = _free(fleet, "alice")
    change = "UPDATE TokensTable SET parent_token_id = ?, token_value = ? WHERE token_id = ?"
    fleet.node("alice", change, parent, 0.5, token)
    return {("parent_not_burnt", parent)}, lambda: fleet.node("alice", change, "", 1.0, token)


def _held(fleet: Fleet) -> Case:
    """Two nodes say that the token is theirs."""
    ((token, did), *_) = fleet.target(
        "SELECT token_id, did FROM TokenRecords WHERE node_name = 'bob-backup'"
        " AND token_kind = 'rbt' AND token_status = '0' AND token_id IN (SELECT token_id FROM"
        " TokenRecords WHERE node_name = 'bob' AND token_status = '0') ORDER BY token_id"
    )
    change = "UPDATE TokensTable SET did = ? WHERE token_id = ?"
    fleet.node("bob-backup", change, "bafybmi" + "q" * 52, token)
    names = {("held_twice", token), ("owner_unknown", token)}
    return names, lambda: fleet.node("bob-backup", change, did, token)


def _spent(fleet: Fleet) -> Case:
    """A row of a token that was sent to another DID is set back to Free."""
    token = "QmVa85XsRoHux8PNUmiSa1Bi9rfcre8VVbZormGPdoY7X5"
    change = "UPDATE TokensTable SET token_status = ? WHERE token_id = ?"
    fleet.node("bob", change, 0, token)
    names = {("spent_copy", token), ("held_twice", token)}
    return names, lambda: fleet.node("bob", change, 4, token)


def _stranger(fleet: Fleet) -> Case:
    """The DID of a row is one that no node has."""
    *_, token, _ = _free(fleet, "alice")
    ((did,),) = fleet.target("SELECT did FROM TokenRecords WHERE token_id = ?", token)
    change = "UPDATE TokensTable SET did = ? WHERE token_id = ?"
    fleet.node("alice", change, "bafybmi" + "z" * 52, token)
    return {("owner_unknown", token)}, lambda: fleet.node("alice", change, did, token)


def _put(fleet: Fleet, content: bytes, **nodes: tuple[int, bool]) -> tuple[str, Callable[[], None]]:
    """A token at made nodes: its status there, and whether its block is damaged."""
    token, (block, *_) = encode_file(content)
    for name, (status, damaged) in nodes.items():
        home = fleet.home / "nodes" / name
        did = (MAKER if name == "maker" else KEEPER).did
        insert_rows(home / "Rubix/rubix.db", [(token, "", 1.0, did, status, "", "", 0)])
        path = home / ".ipfs/blocks" / block_path(block)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(block.data[:-1] + b"?" if damaged else block.data)

    def take_back() -> None:
        for name in nodes:
            fleet.node(name, "DELETE FROM TokensTable WHERE token_id = ?", token)

    return token, take_back


def _forged(fleet: Fleet) -> Case:
    token, take_back = _put(fleet, b"001" + b"5eed" * 16, maker=(0, False))
    return {("forged_form", token)}, take_back


def _beyond(fleet: Fleet) -> Case:
    token, take_back = _put(fleet, WholeToken(1, 5_500_000).content(), maker=(0, False))
    return {("out_of_range", token)}, take_back


def _twin(fleet: Fleet) -> Case:
    """The maker's own token once more, in the form with two digits."""
    token, take_back = _put(fleet, whole_token(1, 7, digits=2), maker=(0, False))
    first = encode_file(whole_token(1, 7))[0]
    return {("same_number_twice", token), ("same_number_twice", first)}, take_back


def _signed(fleet: Fleet) -> Case:
    """A content that names the maker and was signed by somebody else."""
    forger = replace(make_identity(1, 9), did=MAKER.did)
    token, take_back = _put(fleet, make_test(forger, 1).content, maker=(0, False))
    return {("signature_wrong", token)}, take_back


def _lost(fleet: Fleet) -> Case:
    """Damaged on all nodes that have it."""
    token, take_back = _put(fleet, whole_token(2, 1), maker=(4, True), keeper=(0, True))
    return {("missing_everywhere", token)}, take_back


def _at_risk(fleet: Fleet) -> Case:
    """Damaged on one of two nodes."""
    token, take_back = _put(fleet, whole_token(2, 2), maker=(4, True), keeper=(0, False))
    return {("content_at_risk", token)}, take_back


CASES = (
    _conflict, _flagged, _too_much, _unburnt, _held, _spent, _stranger,
    _forged, _beyond, _twin, _signed, _lost,
)  # fmt: skip
ONE_NODE = {"flagged_by_node", "owner_unknown", "forged_form", "out_of_range",
            "same_number_twice", "signature_wrong"}  # fmt: skip
"""Rules that need not wait for a second reading."""


def _holders(fleet: Fleet, rule: str, token: str) -> set[tuple[str, str]]:
    """What the evidence of a finding must name: node and status."""
    family = "parent_not_burnt", "parts_exceed_parent"
    rows = fleet.target(
        "SELECT node_name, token_status FROM TokenRecords"
        " WHERE token_id = ? OR (? AND parent_token_id = ?)"
        " OR (? AND (token_level, token_number) = (1, 7))",
        token, rule in family, token, rule == "same_number_twice",
    )  # fmt: skip
    return {(row[0], row[1]) for row in rows}


def test_a_case_put_in_is_found_and_resolved_when_taken_back(
    fleet: Fleet, held_twice: set[tuple[str, str]]
) -> None:
    put_in = [case(fleet) for case in (*CASES, _at_risk)]
    expected = {name for names, _ in put_in for name in names}
    assert len({rule for rule, _ in expected}) == len(put_in)
    fleet.sync("--node", "maker")  # looks at the damaged block before the target has the content
    fleet.sync()
    found = fleet.audit()
    assert found.keys() - held_twice == expected
    for rule, token in expected:
        evidence = found[rule, token]["evidence"]
        seen = {(e["node_name"], e["token_status"]) for e in evidence}
        assert seen == _holders(fleet, rule, token), rule
    states = {name: found[name]["state"] for name in expected}
    assert {name for name, state in states.items() if state == "confirmed"} == {
        name for name in expected if name[0] in ONE_NODE
    }
    _check_evidence(found)
    fleet.sync()
    again = fleet.audit()
    assert {again[name]["state"] for name in expected} == {"confirmed"}

    for _, take_back in put_in:
        take_back()
    fleet.sync()
    assert fleet.audit().keys() == held_twice
    _, document = fleet.run("findings", "--state", "resolved")
    resolved = {(f["rule"], f["token_id"]): f["resolution"] for f in document["findings"]}
    assert {resolved[name] for name in expected} == {"gone"}

    # Once the target holds a content, a damaged block of it makes no finding any more.
    expected = {name for case in CASES for name in case(fleet)[0]}
    fleet.sync()
    found = fleet.audit()
    assert found.keys() - held_twice == expected
    assert {found[name]["state"] for name in expected} == {"reopened"}


def _check_evidence(found: dict[tuple[str, str], dict[str, Any]]) -> None:
    """What an auditor needs to see, beside who holds the token."""
    shown = {rule: one["evidence"] for (rule, _), one in found.items()}
    (stranger,) = [one for (rule, token), one in found.items() if rule == "owner_unknown"
                   and len(one["evidence"]) == 1]  # fmt: skip
    assert [e["did_of"] for e in stranger["evidence"]] == ["no_node"]
    assert {e["did_of"] for e in shown["forged_form"]} == {"this_node"}
    (beyond,) = shown["out_of_range"]
    assert (beyond["token_level"], beyond["token_number"]) == (1, 5_500_000)
    for rule, failed in (("missing_everywhere", 2), ("content_at_risk", 1)):
        errors = [e["ipfs_error"] or "" for e in shown[rule]]
        assert sum(error.startswith("damaged") for error in errors) == failed, rule


def test_a_transfer_between_the_reading_of_two_nodes(
    fleet: Fleet,
) -> None:
    """Suspected, and gone after the next run."""
    token, _ = _put(fleet, whole_token(2, 3), maker=(0, False))
    fleet.sync()
    before = fleet.audit().keys()
    _put(fleet, whole_token(2, 3), keeper=(0, False))
    fleet.node("maker", "UPDATE TokensTable SET token_status = 4 WHERE token_id = ?", token)
    fleet.sync("--node", "keeper")
    found = fleet.audit()
    assert found.keys() - before == {("held_twice", token)}
    assert found["held_twice", token]["state"] == "suspected"
    fleet.sync()
    assert fleet.audit().keys() == before
    _, document = fleet.run("findings", "--state", "resolved", "--rule", "held_twice")
    (gone,) = [one for one in document["findings"] if one["token_id"] == token]
    assert (gone["resolution"], gone["confirmed_at"]) == ("gone", None)


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
            _copy(real_nodes / name, home / "nodes" / name)
        for name in damaged:
            _damage(home / "nodes" / name / ".ipfs", token)
        fleet = Fleet(home, capsys)
        fleet.sync("--node", "alice")  # before the target has the content from the other one
        fleet.sync()
        code, done = fleet.run("audit", "--fail-on", "warning")
        assert code == 6
        found.append(Counter(f["rule"] for f in done["findings"] if f["token_id"] == token))
        log.tear_down()
    assert found == [Counter({"content_at_risk": 1}), Counter({"missing_everywhere": 1})]


def _damage(repository: Path, token: str) -> None:
    """Change the last byte of the token's block, in a repository of links to the real one."""
    cid = parse(token)
    assert cid is not None
    name = base64.b32encode(cid.multihash).decode().rstrip("=") + ".data"
    real = repository.resolve()
    (block,) = real.glob(f"blocks/*/{name}")
    repository.unlink()
    for own in (repository, repository / "blocks", repository / "blocks" / block.parent.name):
        own.mkdir()
        for entry in (real / own.relative_to(repository)).iterdir():
            if entry not in (real / "blocks", block.parent, block):
                (own / entry.name).symlink_to(entry)
    data = bytearray(block.read_bytes())
    data[-1] ^= 1
    (own / name).write_bytes(bytes(data))
