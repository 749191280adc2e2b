"""What is made of findings: alerts, metrics, and the audit that follows a sync."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rubix_token_sync import failpoints, log
from rubix_token_sync.alerts.memory import Memory, load_memory, save_memory
from rubix_token_sync.alerts.rules import Alert, alerts_of_findings
from rubix_token_sync.audit import decisions
from rubix_token_sync.audit.questions import open_findings
from rubix_token_sync.cli import _run
from rubix_token_sync.metrics.families import outcome_families
from rubix_token_sync.targets.sql.target import SqlTarget
from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.audit.fleets import Row
from tests.audit.ledger import Ledger

ALICE, BOB = Row("alice", "QmA", did="one"), Row("bob", "QmA", did="two")
CAROL = Row("carol", "QmA", did="three")
DISPUTED = Row("alice", "QmB", verdict="disputed")


def _step(ledger: Ledger, memory: Memory, *rows: Row) -> tuple[list[str], list[str], Memory]:
    """A sync, an audit, and what is sent of it: new ones and those that are over."""
    ledger.sync(*rows)
    ledger.audit()
    alerts = alerts_of_findings(f for f in ledger.findings() if f.state != "resolved")
    changes, after = memory.compare(alerts, 1.0, 0.0, about="finding/")
    return [alert.message for alert in changes.new], changes.over, after


def test_new_worse_and_resolved_findings_are_sent_once(embedded: SqlTarget) -> None:
    ledger = Ledger(embedded)
    new, over, memory = _step(ledger, Memory(), ALICE, BOB, DISPUTED)
    assert (new, over) == ([], []), "suspected, and a note"
    new, over, memory = _step(ledger, memory, ALICE, BOB, DISPUTED)
    assert new == [
        "error: QmA: one token is spendable under more than one DID, on alice, bob [held_twice]"
    ]
    new, over, memory = _step(ledger, memory, ALICE, BOB, DISPUTED)
    assert (new, over) == ([], [])
    new, over, memory = _step(ledger, memory, ALICE, BOB, CAROL)
    assert len(new) == 1, "worse"
    assert "carol" in new[0]
    decisions.acknowledge(ledger.store, "held_twice:QmA", by="eve", note=None)
    new, over, memory = _step(ledger, memory, ALICE, BOB, CAROL)
    assert (new, over) == ([], []), "somebody knows of it; it is not over"
    new, over, memory = _step(ledger, memory, ALICE, BOB.but(token_status="4"),
                              CAROL.but(token_status="4"))  # fmt: skip
    assert (new, len(over)) == ([], 1)
    new, over, memory = _step(ledger, memory, ALICE, BOB)
    assert len(new) == 1, "reopened"


def test_weights_are_remembered(tmp_path: Path) -> None:
    file = tmp_path / "alerts.json"
    _, memory = Memory().compare([Alert("finding/x", "m", 3)], 1.0, 0.0)
    save_memory(file, memory)
    loaded = load_memory(file)
    assert loaded.compare([Alert("finding/x", "m", 3)], 1.0, 60.0)[0].new == []
    assert loaded.compare([Alert("finding/x", "m", 4)], 1.0, 60.0)[0].new != []
    changes, after = loaded.compare([Alert("finding/x", "m", 3, quiet=True)], 9.0, 1.0)
    assert (bool(changes), "finding/x" in after.sent) == (False, True)


def test_metrics_count_what_is_open(embedded: SqlTarget) -> None:
    ledger = Ledger(embedded)
    ledger.sync(ALICE, BOB, DISPUTED)
    now = ledger.store.server_time()
    assert ledger.store.read(lambda c: open_findings(c, ledger.store.tables, now)) is None
    ledger.audit()
    held = ledger.store.read(lambda c: open_findings(c, ledger.store.tables, now))
    from datetime import datetime

    from rubix_token_sync.nodes.discovery import Discovery
    from rubix_token_sync.runs.progress import Counters
    from rubix_token_sync.runs.result import RunOptions, RunResult
    from rubix_token_sync.targets.registry import parse_target

    outcome = RunResult(
        RunOptions(("/",), "vm1", parse_target("sqlite:///x")), None, datetime(2026, 1, 1), 1.0,
        "COMPLETED", Counters(), Discovery([], [], 0), [], [],
    )  # fmt: skip
    found = {
        (family.name, sample.labels.get("severity", "")): sample.value
        for family in outcome_families("vm1", 1.0, 1.0, 0, outcome, (), held)
        for sample in family.samples
    }
    assert found["rubix_sync_findings", "error"] == 1
    assert found["rubix_sync_findings", "info"] == 1
    assert found["rubix_sync_last_audit_complete", ""] == 1


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a fleet in it whose split tokens are not burnt."""
    for name in list(os.environ):
        if name.startswith("RUBIX_SYNC_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    plan = FleetPlan(nodes=1, tokens_per_node=60, part_tokens=0.3)
    (node,) = make_fleet(tmp_path / "nodes", plan).nodes
    with closing(sqlite3.connect(node.db_path)) as db, db:
        db.execute("UPDATE TokensTable SET token_status = 0 WHERE token_status = 9")
    yield tmp_path
    log.tear_down()


def test_sync_with_an_audit(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = ["sync", "nodes", "--target", "sqlite:///t.db", "--source-ip", "vm1"]
    assert _run([*sync, "--audit"]) == 6
    assert "Audit 1: " in capsys.readouterr().out
    assert _run([*sync, "--no-audit"]) == 0
    monkeypatch.setenv("RUBIX_SYNC_AUDIT_AFTER_SYNC", "true")
    assert _run(sync) == 6
    capsys.readouterr()
    failpoints.arm("audit.rule:1:error:forever")
    assert _run([*sync, "--retry-attempts", "1", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["status"], document["total_databases_failed"]) == ("COMPLETED", 0)
    (problem,) = [p for p in document["problems"] if p["code"] == "audit_failed"]
    assert (problem["severity"], problem["cure"]) == ("error", "Run `rubix-token-sync audit`.")
