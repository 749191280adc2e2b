"""Stored records get their verdicts by the audit; killed anywhere, the next one ends it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.failpoints import POINTS
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.testing import (
    create_database,
    make_did,
    make_identity,
    make_test,
    whole_token,
    write_block,
)
from tests.chaos.door import Door

VERDICTS = "SELECT token_id, verdict, verdict_source, token_level, token_number FROM TokenRecords"
FINDINGS = "SELECT rule, token_id, severity, state, first_run FROM AuditFindings"
AUDITS = sorted(name for name in POINTS if name.startswith("audit.") and name != "audit.decide")
SHORT = ("audit.findings", "kill")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nodes; the first token is Free on both, and nobody has the content of the fourth."""
    root = tmp_path_factory.mktemp("audited") / "nodes"
    for number in (1, 2):
        node = root / f"node{number}"
        tokens = [write_block(node / ".ipfs", whole_token(1, n)) for n in (7, 4_500_000, number)]
        elsewhere = write_block(root.parent / "elsewhere/.ipfs", whole_token(4, 9))
        rows = [(token, "", 1.0, make_did(number, 0), 0, "", "", 0) for token in tokens]
        rows.append((elsewhere, "", 1.0, make_did(number, 0), 9, "", "", 0))
        signer = make_identity(1, number)
        signed = make_test(signer, 1).content
        rows.append((write_block(node / ".ipfs", signed), "", 1.0, signer.did, 0, "", "", 0))
        create_database(node / "Rubix/rubix.db", rows, dids=[make_did(number, 0), signer.did])
        key = node / "Rubix" / signer.did / "pubKey.pem"
        key.parent.mkdir()
        key.write_bytes(signer.public_key)
    return root


@pytest.fixture
def synced(nodes: Path, tmp_path: Path, door: Door) -> str:
    """A target that holds them, synced where there was no room for tables of numbers."""
    url = f"sqlite:///{tmp_path}/t.db"
    nowhere = {"STATE_DIRECTORY": "/dev/null/state"}
    door.run("sync", str(nodes), "--target", url, "--source-ip", "10.0.0.4", env=nowhere).expect(0)
    return url


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    if url.startswith("postgresql"):
        store = open_target(parse_target(url), TargetOptions())
        try:
            rows = store.transact(lambda conn: conn.exec_driver_sql(query).all())
            return sorted({tuple(row) for row in rows}, key=repr)
        finally:
            store.close()
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db, db:
        return sorted(set(db.execute(query).fetchall()), key=repr)


def audit(door: Door, url: str, *arguments: str, **env: str) -> Any:
    return door.run("audit", "--target", url, *arguments, env=env)


def test_what_a_sync_could_not_judge_the_audit_does(door: Door, nodes: Path, synced: str) -> None:
    assert {row[1] for row in ask(synced, VERDICTS)} == {None}
    audit(door, synced).expect(6)
    judged = {row[3:]: row[1:3] for row in ask(synced, VERDICTS)}
    assert judged == {
        (1, 7): ("genuine", "all"),
        (1, 4_500_000): ("disputed", "rubix-token-hash-generator"),
        (1, 1): ("genuine", "all"),
        (1, 2): ("genuine", "all"),
        (4, 9): ("genuine", "all"),
        (None, None): ("signature_checked", None),
    }
    # A sync checks no signatures: that an audit did is no difference.
    door.run("verify", str(nodes), "--target", synced, "--source-ip", "10.0.0.4").expect(0)
    # What nobody had said before is not a change.
    assert ask(synced, "SELECT count(*) FROM TokenRecordHistory") == [(0,)]


def test_other_limits_judge_every_stored_record_anew(door: Door, synced: str) -> None:
    audit(door, synced).expect(6)
    ask(synced, "UPDATE TokenRecords SET verdict = NULL WHERE token_number = 7 RETURNING 1")
    audit(door, synced).expect(6)
    first = ask(synced, VERDICTS)
    assert [row[1] for row in first].count("disputed") == 1
    other = {"RUBIX_SYNC_LIMITS_SOURCE": "node-2024-08"}
    audit(door, synced, **other).expect(6)
    assert {row[1:3] for row in ask(synced, VERDICTS)} == {
        ("genuine", "node-2024-08"),
        ("signature_checked", None),
    }
    kept = "SELECT changed, count(*) FROM TokenRecordHistory GROUP BY 1 ORDER BY 1"
    assert ask(synced, kept) == [("verdict,verdict_source", 2), ("verdict_source", 6)]
    audit(door, synced).expect(6)
    assert ask(synced, VERDICTS) == first
    verdicts = "SELECT DISTINCT verdict_source FROM TokenRecordVersions WHERE ended_run IS NOT NULL"
    assert {row[0] for row in ask(synced, verdicts)} >= {"all", "node-2024-08"}


@pytest.mark.long
def test_an_audit_of_postgresql_that_is_killed_anywhere(
    door: Door, nodes: Path, postgres_url: str
) -> None:
    """At each of its points once; what the next one leaves is what was there before."""
    nowhere = {"STATE_DIRECTORY": "/dev/null/state"}
    sync = ("sync", str(nodes), "--target", postgres_url, "--source-ip", "10.0.0.4")
    door.run(*sync, env=nowhere).expect(0)
    audit(door, postgres_url).expect(6)
    query = FINDINGS.replace(", state, first_run", "")
    whole = ask(postgres_url, VERDICTS), ask(postgres_url, query)
    assert len(whole[1]) > 1
    for number, point in enumerate(AUDITS):
        action = "kill" if number % 2 else "error:forever"
        ask(postgres_url, "UPDATE TokenRecords SET verdict = NULL RETURNING 1")
        ask(postgres_url, "UPDATE ProcessedDatabases SET last_seen_at = now() RETURNING 1")
        ended = audit(door, postgres_url, RUBIX_SYNC_FAULT=f"{point}:1:{action}")
        assert ended.code in (-9, 1, 3), (point, ended)
        assert ask(postgres_url, query) == whole[1]
        ask(postgres_url, "DELETE FROM SyncLeases RETURNING 1")
        audit(door, postgres_url).expect(6)
        assert (ask(postgres_url, VERDICTS), ask(postgres_url, query)) == whole, point


@pytest.mark.parametrize(
    ("point", "action"),
    [
        pytest.param(point, action, marks=() if (point, action) == SHORT else pytest.mark.long)
        for point in AUDITS
        for action in ("error", "kill")
    ],
)
def test_an_audit_that_ends_anywhere_is_ended_by_the_next(
    door: Door, synced: str, point: str, action: str
) -> None:
    undisturbed = f"{synced[:-3]}-undisturbed.db"
    whole = sqlite3.connect(synced.removeprefix("sqlite:///"))
    with closing(whole), closing(sqlite3.connect(undisturbed.removeprefix("sqlite:///"))) as copy:
        whole.backup(copy)
    audit(door, undisturbed).expect(6)
    ended = audit(door, synced, RUBIX_SYNC_FAULT=f"{point}:1:{action}")
    # A failure that passes is tried again on the spot.
    assert ended.code in ((-9,) if action == "kill" else (1, 3, 6)), ended
    ask(synced, "UPDATE SyncLeases SET expires_at = heartbeat_at RETURNING 1")
    audit(door, synced).expect(6)
    assert ask(synced, VERDICTS) == ask(undisturbed, VERDICTS)
    without_run = FINDINGS.replace(", first_run", "")
    assert ask(synced, without_run) == ask(undisturbed, without_run)
