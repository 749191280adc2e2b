"""Signatures in an audit: with which keys, how many at a time, and what is looked at again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from rubix_token_sync.audit.rules.signature_wrong import RULE
from rubix_token_sync.audit.run import AuditOutcome
from rubix_token_sync.targets.sql.target import SqlTarget
from rubix_token_sync.testing import Identity, make_identity, make_test
from tests.audit.fleets import Row
from tests.audit.ledger import Ledger

ALICE, BOB, MALLORY = (make_identity(7, number) for number in range(3))


def token(number: int, creator: Identity, *, signer: Identity | None = None) -> Row:
    """A test token of ``creator`` that somebody signed, as a sync leaves its record."""
    made = make_test(creator if signer is None else replace(signer, did=creator.did), number)
    return Row(
        "node1", made.token_id, did=creator.did, verdict="signature_not_checked",
        content=made.content.decode(),
    )  # fmt: skip


def known(row: Row, owner: Identity, *, key: Identity | None = None) -> Row:
    """The same on a node that has this DID, and some key beside it."""
    return row.but(owns=owner.did, key=(key or owner).public_key.decode())


def verdicts(ledger: Ledger) -> list[str | None]:
    """Of all records, in the order in which they were put in."""
    rows = ledger.rows(ledger.store.tables.records)
    return [row["verdict"] for row in sorted(rows, key=lambda row: row["id"])]


def audit(ledger: Ledger, **changes: Any) -> AuditOutcome:
    return ledger.audit(rules=[replace(RULE, **changes)])


def test_by_the_keys_of_the_nodes_own_dids(store: SqlTarget) -> None:
    ledger = Ledger(store)
    rows = [
        known(token(1, ALICE), ALICE), token(2, ALICE, signer=MALLORY), token(3, BOB),
        token(4, ALICE).but(gone=True), token(5, ALICE).but(content="no such block"),
    ]  # fmt: skip
    ledger.sync(*rows)
    done = audit(ledger)
    unknown = "signature_not_checked"
    assert verdicts(ledger) == ["signature_checked", "signature_wrong", unknown, unknown, unknown]
    (outcome,) = done.rules
    assert (outcome.findings, outcome.not_looked_at, done.exit_code) == (1, 2, 6)
    assert "creator's key" in outcome.blind_to
    found = ledger.finding()
    assert (found.rule, found.token_id, found.state) == (
        "signature_wrong", rows[1].token_id, "confirmed",
    )  # fmt: skip
    (run,) = ledger.rows(store.tables.audit.runs)
    assert run["not_looked_at"] == '{"signature_wrong": 2}'


def test_a_key_that_is_not_the_dids_counts_for_nothing(embedded: SqlTarget) -> None:
    """Whoever can write into the target cannot make a signature right by it."""
    ledger = Ledger(embedded)
    ledger.sync(known(token(1, ALICE, signer=MALLORY), ALICE, key=MALLORY))
    assert audit(ledger).changes["new"] == 0
    assert verdicts(ledger) == ["signature_not_checked"]


def test_so_many_an_audit_and_the_next_one_goes_on(
    embedded: SqlTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rubix_token_sync.audit.rules.signature_wrong._CHUNK", 2)
    ledger = Ledger(embedded)
    ledger.sync(*(known(token(number, ALICE), ALICE) for number in range(5)))
    left = [audit(ledger, most=2).rules[0].not_looked_at for _ in range(3)]
    assert left == [3, 1, 0]
    assert set(verdicts(ledger)) == {"signature_checked"}


def _looked_at(ledger: Ledger) -> int:
    """How many records an audit reads to check them."""
    counted = 0

    def count(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal counted
        counted += "ipfs_data" in statement

    sa.event.listen(ledger.store.engine, "before_cursor_execute", count)
    audit(ledger)
    sa.event.remove(ledger.store.engine, "before_cursor_execute", count)
    return counted


def test_what_cannot_be_checked_is_not_read_each_time(embedded: SqlTarget) -> None:
    """Unless a key came, or the record changed; its chunk is one statement, its end another."""
    ledger = Ledger(embedded)
    records = embedded.tables.records
    ledger.sync(known(token(1, ALICE), ALICE), token(2, BOB))
    assert _looked_at(ledger) == 2
    assert _looked_at(ledger) == 1, "it asks for records that changed since, and there are none"
    ledger.store.transact(
        lambda conn: conn.execute(
            sa.update(records).values(verdict="signature_not_checked", synced_at=embedded.now)
        )
    )
    assert _looked_at(ledger) == 2
    assert verdicts(ledger) == ["signature_checked", "signature_not_checked"]
    ledger.sync(known(token(1, ALICE), ALICE), known(token(2, BOB), BOB))
    assert _looked_at(ledger) == 2
    assert verdicts(ledger) == ["signature_checked", "signature_checked"]
