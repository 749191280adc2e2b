"""One audit: its transaction, its lease, and what becomes of a rule that fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.audit.rule import Rule
from rubix_token_sync.audit.rules import RULES
from rubix_token_sync.audit.run import LEASE
from rubix_token_sync.errors import LeaseHeld, SyncError
from rubix_token_sync.targets.base import Lease
from rubix_token_sync.targets.sql.tables import Tables
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.audit.fleets import Row
from tests.audit.ledger import Ledger

ALICE, BOB = Row("alice", "QmA", did="one"), Row("bob", "QmA", did="two")
HELD_TWICE = RULES[0]


@pytest.fixture
def ledger(store: SqlTarget) -> Ledger:
    ledger = Ledger(store)
    ledger.sync(ALICE, BOB)
    return ledger


@dataclass(frozen=True, kw_only=True)
class _Broken(Rule):
    """A rule that is no statement, and fails."""

    refused: bool

    def gather(self, conn: sa.Connection, tables: Tables, run_number: int) -> None:
        if self.refused:
            conn.execute(sa.text("SELECT nothing FROM nowhere"))
        raise ArithmeticError("a bug")


@dataclass(frozen=True, kw_only=True)
class _Named(Rule):
    """A rule that decides in Python."""

    def gather(self, conn: sa.Connection, tables: Tables, run_number: int) -> None:
        records, evidence = tables.records, tables.audit.evidence
        for row in conn.execute(sa.select(records)).all():
            if row.token_id.endswith("A"):
                conn.execute(
                    sa.insert(evidence).values(
                        run_number=run_number, rule=self.code, token_key=row.record_key[8:],
                        token_kind=row.token_kind, token_id=row.token_id, role="holder", weight=1,
                        source_ip=row.source_ip, db_path=row.db_path, node_name=row.node_name,
                    )
                )  # fmt: skip


def _texts(code: str) -> dict[str, Any]:
    return {"code": code, "severity": "error", "says": "s", "means": "m", "cause": "c", "cure": "d",
            "compares_nodes": False}  # fmt: skip


@pytest.mark.parametrize("refused", [True, False], ids=["by the target", "by a bug"])
def test_a_rule_that_fails_is_an_error_and_the_others_run(ledger: Ledger, refused: bool) -> None:
    broken = _Broken(**_texts("broken"), refused=refused)
    done = ledger.audit(rules=[broken, HELD_TWICE])
    assert done.exit_code == 1, "what it looks for is unknown: that is worse than a finding"
    (failed,) = done.failed
    assert failed.rule == "broken"
    assert failed.code == ("rule_crashed" if not refused else failed.code)
    assert [f.rule for f in ledger.findings()] == ["held_twice"]
    (run,) = ledger.rows(ledger.store.tables.audit.runs)
    assert (run["status"], run["rules_run"]) == ("INCOMPLETE", '["held_twice"]')
    assert "broken" in run["rules_failed"]


def test_the_findings_of_a_rule_that_fails_stay_as_they_are(ledger: Ledger) -> None:
    ledger.audit(rules=[HELD_TWICE])
    ledger.sync(ALICE)
    ledger.sync(ALICE, read=["alice", "bob"])
    broken = _Broken(**_texts("held_twice"), refused=False)
    assert ledger.audit(rules=[broken]).changes["resolved"] == 0
    assert ledger.state() == "suspected"
    assert ledger.audit(rules=[HELD_TWICE]).changes["resolved"] == 1


def test_a_rule_need_not_be_a_statement(ledger: Ledger) -> None:
    done = ledger.audit(rules=[_Named(**_texts("named"))])
    assert (done.rules[0].findings, done.exit_code) == (1, 6)
    found = ledger.finding()
    assert (found.rule, found.state, found.token_id) == ("named", "confirmed", "QmA")


def test_audits_take_turns(ledger: Ledger) -> None:
    other = Lease(LEASE, "00000000-0000-0000-0000-000000000001")
    ledger.store.acquire_lease(other, "elsewhere|-|1|1")
    with pytest.raises(LeaseHeld):
        ledger.audit()
    ledger.store.release_lease(other)
    ledger.audit()
    assert ledger.store.leases() == []


def _state(ledger: Ledger) -> tuple[list[dict[str, Any]], ...]:
    """Findings and evidence, without times."""
    audit = ledger.store.tables.audit
    return tuple(
        [{k: v for k, v in row.items() if not k.endswith("_at")} for row in ledger.rows(table)]
        for table in (audit.findings, audit.evidence)
    )


@pytest.mark.parametrize(
    "point",
    ["audit.rule", "audit.findings", "audit.evidence", "store.commit.before",
     "store.commit.after", "store.lease.acquire", "store.lease.release"],
)  # fmt: skip
@pytest.mark.parametrize("forever", [False, True], ids=["once", "always"])
def test_a_fault_anywhere_leaves_all_or_nothing(ledger: Ledger, point: str, forever: bool) -> None:
    before = _state(ledger)
    failpoints.arm(f"{point}:1:error" + (":forever" if forever else ""))
    try:
        ledger.audit()
    except (SyncError, failpoints.FaultInjected):
        failpoints.arm("")
        runs = ledger.rows(ledger.store.tables.audit.runs)
        # A COMMIT whose end was never heard of may have happened.
        assert _state(ledger) == before or (point == "store.commit.after" and len(runs) == 1)
    failpoints.arm("")
    leases = ledger.store.tables.leases
    ledger.store.transact(lambda conn: conn.execute(sa.delete(leases)))
    ledger.audit()
    (found,) = ledger.findings()
    assert (found.rule, found.state, len(found.evidence)) == ("held_twice", "suspected", 2)
    assert len(ledger.rows(ledger.store.tables.audit.evidence)) == 2


def test_a_lost_commit_is_not_audited_twice(ledger: Ledger) -> None:
    failpoints.arm("store.commit.after:2:error")  # the first COMMIT is the lease's
    done = ledger.audit()
    assert done.changes["new"] == 1
    assert [row["number"] for row in ledger.rows(ledger.store.tables.audit.runs)] == [1]
