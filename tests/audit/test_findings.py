"""The life of a finding, through audits of a target whose nodes are read in between."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rubix_token_sync.audit import decisions
from rubix_token_sync.audit.rules import RULES
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.audit.fleets import Row
from tests.audit.ledger import Ledger

ALICE, BOB = Row("alice", "QmA", did="one"), Row("bob", "QmA", did="two")
SENT = BOB.but(token_status="4")
CAROL = Row("carol", "QmA", did="three")


@pytest.fixture
def ledger(store: SqlTarget) -> Ledger:
    return Ledger(store)


def test_suspected_confirmed_resolved_reopened(ledger: Ledger) -> None:
    ledger.sync(ALICE, BOB)
    assert ledger.audit().changes["new"] == 1
    assert ledger.state() == "suspected"
    assert ledger.audit().changes == dict.fromkeys(
        ("new", "confirmed", "worse", "reopened", "resolved"), 0
    )
    assert ledger.state() == "suspected", "nobody read anything in between"

    ledger.sync(ALICE, BOB, read=["alice"])
    assert ledger.audit().changes["confirmed"] == 0
    assert ledger.state() == "suspected", "one of the two is not enough"
    ledger.sync(ALICE, BOB, read=["bob"])
    assert ledger.audit().changes["confirmed"] == 1
    assert ledger.state() == "confirmed"

    ledger.sync(ALICE, SENT)
    done = ledger.audit()
    assert (done.changes["resolved"], done.exit_code) == (1, 0)
    found = ledger.finding()
    assert (found.state, found.resolution, found.resolved_at) == (
        "resolved", "gone", done.started_at,
    )  # fmt: skip
    assert {e.token_status for e in found.evidence} == {"0"}, "as it was seen last"

    ledger.sync(ALICE, BOB)
    assert ledger.audit().changes["reopened"] == 1
    found = ledger.finding()
    assert (found.state, found.reopened, found.resolved_at) == ("reopened", 1, None)
    assert (found.first_seen_run, found.last_seen_run) == (1, 6)


def test_the_same_on_postgresql(postgres_store: SqlTarget) -> None:
    """The other tests of this file run there in the long suite."""
    test_suspected_confirmed_resolved_reopened(Ledger(postgres_store))


def test_a_transfer_between_two_reads_comes_and_goes_without_a_word(ledger: Ledger) -> None:
    """Bob was read before he sent the token, Alice after she had got it."""
    ledger.sync(ALICE, BOB)
    ledger.audit()
    assert ledger.state() == "suspected"
    ledger.sync(ALICE, SENT)
    ledger.audit()
    assert ledger.state() == "resolved"
    assert ledger.finding().confirmed_at is None
    ledger.sync(ALICE, BOB)
    assert ledger.audit().changes["new"] == 1
    assert ledger.state() == "suspected", "it is not reopened: it had never been sure"


def test_the_evidence_is_all_holders_side_by_side(ledger: Ledger) -> None:
    ledger.sync(ALICE, BOB, Row("quorum", "QmA", "9", did="two"), Row("bob", "QmB"))
    ledger.audit()
    found = next(f for f in ledger.findings() if f.rule == "held_twice")
    assert [(e.role, e.node_name, e.token_status, e.did) for e in found.evidence] == [
        ("holder", "alice", "0", "one"), ("holder", "bob", "0", "two"),
        ("holder", "quorum", "9", "two"),
    ]  # fmt: skip
    assert all(e.read_at is not None and e.token_id == "QmA" for e in found.evidence)
    assert found.weight == 2


def test_a_copy_shows_the_chains_of_nodes_that_have_no_row(ledger: Ledger) -> None:
    """The receiver's node is not read; a quorum node keeps the chain that it agreed to."""
    copy = Row("backup", "QmA", did="one", block="05", block_owner="one", owns="one")
    quorum = Row("quorum", "QmA", gone=True, block="02", block_owner="two", block_number=2)
    ledger.sync(copy, quorum)
    ledger.audit()
    found = ledger.finding()
    assert (found.rule, found.state) == ("spent_copy", "suspected")
    assert [(e.role, e.node_name, e.did, e.did_of) for e in found.evidence] == [
        ("holder", "backup", "one", "this_node"), ("chain", "quorum", None, None),
    ]  # fmt: skip
    assert [(e.latest_block_number, e.latest_block_owner) for e in found.evidence] == [
        (1, "one"), (2, "two"),
    ]  # fmt: skip
    ledger.sync(copy, quorum, read=["backup"])
    assert (ledger.audit().changes["confirmed"], ledger.state()) == (0, "suspected")
    ledger.sync(copy, quorum)
    assert (ledger.audit().changes["confirmed"], ledger.state()) == (1, "confirmed")
    ledger.sync(copy.but(token_status="4"), quorum)
    assert ledger.audit().changes["resolved"] == 1


def test_what_a_rule_could_not_look_at_is_counted(ledger: Ledger) -> None:
    ledger.sync(Row("a", "QmA", did="one"), Row("b", "QmB", did="one", owns="two"))
    done = ledger.audit()
    blind = {rule.rule: rule.not_looked_at for rule in done.blind}
    assert blind == {"owner_unknown": 1, "row_against_chain": 2, "chain_wrong": 2, "spent_copy": 2}
    assert [f.token_id for f in ledger.findings()] == ["QmB"]
    assert [e.did_of for e in ledger.finding().evidence] == ["no_node"]


def test_what_was_not_read_resolves_nothing(ledger: Ledger) -> None:
    """Bob's node is off: that its row does not show any more proves nothing."""
    ledger.sync(ALICE, BOB)
    ledger.audit()
    ledger.sync(ALICE, BOB)
    ledger.audit()
    ledger.sync(ALICE, read=["alice"])
    done = ledger.audit()
    assert ledger.state() == "confirmed"
    assert done.changes["resolved"] == 0
    assert [(one.node_name, one.source_ip) for one in done.unread] == [("bob", "vm1")]
    assert done.unread_databases == 1
    assert done.exit_code == 6, "it is open"
    ledger.retire("bob")
    assert ledger.audit().changes["resolved"] == 1, "given up on purpose"


def test_a_rule_of_one_nodes_row_is_sure_at_once(ledger: Ledger) -> None:
    ledger.sync(ALICE.but(verdict="forged_form"))
    ledger.audit()
    assert (ledger.finding().rule, ledger.state()) == ("forged_form", "confirmed")
    ledger.sync(ALICE)
    ledger.audit()
    assert ledger.state() == "resolved"


def test_what_gets_worse_breaks_suppression_and_acknowledgement(ledger: Ledger) -> None:
    ledger.sync(ALICE, BOB)
    ledger.audit()
    ledger.sync(ALICE, BOB)
    ledger.audit()
    name = ledger.finding().fingerprint
    decisions.acknowledge(ledger.store, "QmA", by="eve", note="looks into it")
    decisions.suppress(
        ledger.store, name[:20], by="eve", reason="a test node", lasting=timedelta(days=1)
    )
    found = ledger.finding()
    assert (found.state, found.suppressed_by, found.suppressed_reason) == (
        "suppressed", "eve", "a test node",
    )  # fmt: skip
    done = ledger.audit()
    assert (done.open["error"], done.exit_code) == (0, 0)

    ledger.sync(ALICE, BOB, CAROL)
    done = ledger.audit()
    assert (done.changes["worse"], done.open["error"], done.exit_code) == (1, 1, 6)
    found = ledger.finding()
    assert (found.state, found.weight, found.suppressed_until) == ("confirmed", 3, None)
    ledger.sync(ALICE, BOB)
    assert ledger.audit().changes["worse"] == 0, "less is not worse"
    assert ledger.finding().weight == 2


def test_a_suppression_ends(ledger: Ledger) -> None:
    ledger.sync(ALICE, BOB)
    ledger.audit()
    decisions.suppress(
        ledger.store, "held_twice:QmA", by="eve", reason="soon over",
        lasting=timedelta(microseconds=1),
    )  # fmt: skip
    assert ledger.state() == "suspected"
    for reason, lasting in (("", timedelta(days=1)), ("why", timedelta()), ("why", timedelta.max)):
        with pytest.raises(SettingsError) as refused:
            decisions.suppress(ledger.store, "QmA", by="eve", reason=reason, lasting=lasting)
        assert refused.value.code == "suppression_incomplete"


def test_reopen_takes_decisions_back(ledger: Ledger) -> None:
    ledger.sync(ALICE, BOB)
    ledger.audit()
    ledger.sync(ALICE, BOB)
    ledger.audit()
    decisions.acknowledge(ledger.store, "QmA", by="eve", note=None)
    assert ledger.state() == "acknowledged"
    ledger.audit()
    assert ledger.state() == "acknowledged"
    decisions.reopen(ledger.store, "QmA", by="mallory", note="too early")
    found = ledger.finding()
    assert (found.state, found.note) == ("confirmed", "Reopened by mallory: too early")
    ledger.sync(ALICE, SENT)
    ledger.audit()
    with pytest.raises(SettingsError) as refused:
        decisions.acknowledge(ledger.store, "QmA", by="eve", note=None)
    assert refused.value.code == "finding_resolved"
    decisions.reopen(ledger.store, "QmA", by="mallory", note=None)
    assert ledger.state() == "reopened"


def test_names_of_findings(ledger: Ledger) -> None:
    ledger.sync(ALICE, BOB, Row("q", "QmA", "9", did="x"))
    ledger.audit()
    assert {f.rule for f in ledger.findings()} == {"held_twice", "status_conflict"}
    for name, code in (("QmA", "finding_ambiguous"), ("nothing", "no_such_finding")):
        with pytest.raises(SettingsError) as refused:
            decisions.acknowledge(ledger.store, name, by="eve", note=None)
        assert refused.value.code == code
    one = decisions.acknowledge(ledger.store, "status_conflict:QmA", by="eve", note=None)
    digits = one.fingerprint.partition(":")[2]
    again = decisions.reopen(ledger.store, f"status_conflict:{digits[:7]}", by="eve", note=None)
    assert again.fingerprint == one.fingerprint


def test_rules_that_are_off_or_gone_close_their_findings(ledger: Ledger) -> None:
    ledger.sync(ALICE, BOB, Row("q", "QmA", "9", did="x"))
    ledger.audit()
    done = ledger.audit(off=frozenset({"held_twice"}))
    assert {rule.rule for rule in done.rules if rule.state == "off"} == {"held_twice"}
    ledger.audit(rules=[rule for rule in RULES if rule.code == "held_twice"])
    assert {(f.rule, f.state, f.resolution) for f in ledger.findings()} == {
        ("held_twice", "suspected", None), ("status_conflict", "resolved", "rule_removed"),
    }  # fmt: skip


def test_severities_are_those_of_the_settings(ledger: Ledger) -> None:
    ledger.sync(ALICE, BOB)
    assert ledger.audit(severities={"held_twice": "warning"}).exit_code == 0
    assert ledger.finding().severity == "warning"
    assert ledger.audit(severities={"held_twice": "warning"}, fail_on="warning").exit_code == 6
    assert ledger.audit().exit_code == 6
    assert ledger.finding().severity == "error"
    with pytest.raises(SettingsError) as refused:
        ledger.audit(off=frozenset({"no_such"}))
    assert refused.value.code == "unknown_rule"


def test_evidence_does_not_pile_up(ledger: Ledger) -> None:
    ledger.sync(ALICE, BOB)
    for _ in range(3):
        ledger.audit()
    evidence = ledger.rows(ledger.store.tables.audit.evidence)
    assert {(row["run_number"], row["node_name"]) for row in evidence} == {
        (3, "alice"), (3, "bob"),
    }  # fmt: skip
