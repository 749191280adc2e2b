"""Nodes go on working while they are read: each sync equals some moment of theirs."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.testing import Fleet, FleetPlan, make_fleet
from tests.chaos.door import Door, Finished
from tests.chaos.target_state import rows_of

_TOKENS = 200
_FEW, _MANY = 6, 20
"""Syncs of a database that never rests."""

# A node: every transaction changes many rows and writes its number into all of
# them that it touched, so that a state of the database can be recognised: all
# live rows together always hold the same sum, whatever moment it is.
_NODE = """
import random, sqlite3, sys
path, mode, seed = sys.argv[1:]
chance = random.Random(seed)
db = sqlite3.connect(path, timeout=60, isolation_level=None)
db.execute(f"PRAGMA journal_mode={mode}")
db.execute("PRAGMA synchronous=OFF")
db.execute("PRAGMA wal_autocheckpoint=20")
number = 0
print("ready", flush=True)
while not select_stop():
    number += 1
    db.execute("BEGIN IMMEDIATE")
    ids = [r[0] for r in db.execute("SELECT token_id FROM TokensTable WHERE token_status < 17")]
    a, b = chance.sample(ids, 2)
    move = chance.randrange(-50, 50)
    db.execute("UPDATE TokensTable SET added = added + ? WHERE token_id = ?", (move, a))
    db.execute("UPDATE TokensTable SET token_value = token_value + ? WHERE token_id = ?", (move, a))
    db.execute("UPDATE TokensTable SET token_value = token_value - ? WHERE token_id = ?", (move, b))
    if number % 3 == 0:
        db.execute("INSERT INTO TokensTable (token_id, token_value, did, token_status)"
                   " VALUES (?, 0, 'd', 1)", (f"new {number}",))
    if number % 4 == 0 and len(ids) > 100:
        (gone,) = chance.sample([i for i in ids if i not in (a, b)], 1)
        db.execute("UPDATE TokensTable SET token_value = token_value + (SELECT token_value"
                   " FROM TokensTable WHERE token_id = ?) WHERE token_id = ?", (gone, a))
        db.execute("DELETE FROM TokensTable WHERE token_id = ?", (gone,))
    if number % 50 == 0 and mode == "wal":
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        continue
    db.execute("COMMIT")
    pause(0.002)
db.close()
"""


def _node_program() -> str:
    """The node's program; it ends when its standard input does."""
    head = """
    import select, sys
    def select_stop():
        return bool(select.select([sys.stdin], [], [], 0)[0])
    def pause(seconds):
        select.select([sys.stdin], [], [], seconds)
    """
    return textwrap.dedent(head) + _NODE


class Site:
    """One node's fleet and a target."""

    def __init__(self, door: Door, home: Path, fleet: Fleet) -> None:
        self._door = door
        self.home = home
        self.fleet = fleet
        self.root = fleet.directory
        self.db_path = Path(fleet.nodes[0].db_path)
        self.url = f"sqlite:///{home / 'target.db'}"

    def run(self, command: str, *more: str, root: Path | None = None) -> Finished:
        reports = ("--report", str(self.home / "reports")) if command == "sync" else ()
        return self._door.run(
            command, str(root or self.root), "--target", self.url, "--source-ip", "vm1",
            "--json", *reports, *more,
        )  # fmt: skip

    def sync(self, *more: str, code: int = 0, root: Path | None = None) -> dict[str, Any]:
        return self.run("sync", *more, root=root).expect(code).document

    def equal(self, *, root: Path | None = None) -> None:
        self.run("verify", root=root).expect(0)

    def live(self) -> int:
        return int(
            rows_of(self.url, "SELECT count(*) FROM TokenRecords WHERE source_deleted_at IS NULL")[
                0
            ][0]
        )

    def execute(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.db_path, isolation_level=None)) as db:
            for statement in statements:
                db.execute(statement)


@pytest.fixture
def make_site(door: Door, tmp_path: Path) -> Callable[..., Site]:
    def make(mode: str = "delete") -> Site:
        plan = FleetPlan(nodes=1, tokens_per_node=_TOKENS, journal_mode=mode)  # type: ignore[arg-type]
        return Site(door, tmp_path, make_fleet(tmp_path / "fleet", plan))

    return make


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("syncs", [_FEW, pytest.param(_MANY, marks=pytest.mark.long)])
def test_each_sync_is_a_moment_of_a_database_that_never_rests(
    make_site: Callable[..., Site], mode: str, syncs: int
) -> None:
    site = make_site(mode)
    site.execute("UPDATE TokensTable SET token_value = 1")
    node = subprocess.Popen(
        [sys.executable, "-c", _node_program(), str(site.db_path), mode, "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert node.stdout is not None
    assert node.stdin is not None
    assert node.stdout.readline() == "ready\n"
    states = set()
    unsettled = 0
    try:
        for _ in range(syncs):
            # In a slow run's time such a node exchanges more than half of its tokens.
            report = site.run("sync", "--allow-shrink").expect(0, 1).document
            if report["exit_code"] == 1:  # it wrote all the time: told, and nothing is stored
                assert {d["reason"] for d in report["databases"]} <= {
                    "busy", "changed_while_reading",
                }  # fmt: skip
                unsettled += 1
                continue
            values = rows_of(
                site.url,
                "SELECT token_id, token_value FROM TokenRecords WHERE source_deleted_at IS NULL",
            )
            # Every transaction of the node keeps the sum: no half of one was read.
            assert sum(float(value) for _, value in values) == _TOKENS
            assert len(values) == report["total_records_processed"] or not report["tokens_read"]
            states.add(frozenset(values))
    finally:
        node.stdin.close()
        assert node.wait(30) == 0
        node.stdout.close()
    assert len(states) + unsettled > syncs // 2
    assert unsettled < syncs // 2
    site.sync("--allow-shrink")
    with closing(sqlite3.connect(f"file:{site.db_path}?mode=ro", uri=True)) as db:
        end = dict(db.execute("SELECT token_id, token_value FROM TokensTable"))
    held = rows_of(
        site.url, "SELECT token_id, token_value FROM TokenRecords WHERE source_deleted_at IS NULL"
    )
    assert {token: float(value) for token, value in held} == end
    site.equal()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_housekeeping_changes_no_record(make_site: Callable[..., Site], mode: str) -> None:
    site = make_site(mode)
    site.sync()
    for statement in (
        "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)", "REINDEX", "ANALYZE",
        "PRAGMA page_size=8192", "VACUUM", "PRAGMA journal_mode=WAL", "PRAGMA journal_mode=DELETE",
    ):  # fmt: skip
        site.execute(statement)
        report = site.sync()
        counts = [report[f"records_{what}"] for what in ("inserted", "updated", "vanished")]
        assert counts == [0, 0, 0], statement
    site.equal()


def test_a_backup_that_is_put_back_is_what_counts(make_site: Callable[..., Site]) -> None:
    """Older rows, older times, the same size: the target follows the node."""
    site = make_site()
    backup = site.home / "backup.db"
    shutil.copy2(site.db_path, backup)
    site.sync()
    site.execute("UPDATE TokensTable SET token_status = 15 WHERE rowid <= 30")
    assert site.sync()["records_updated"] in range(1, 31)
    changed = rows_of(site.url, "SELECT count(*) FROM TokenRecords WHERE token_status = '15'")
    assert changed[0][0] >= 30
    shutil.copy2(backup, site.db_path)  # in place: the same inode, an older modification time
    assert site.sync()["tokens_read"] == _TOKENS
    site.equal()
    site.execute("UPDATE TokensTable SET token_status = 14 WHERE rowid <= 30")
    site.sync()
    replacement = site.home / "other.db"
    shutil.copy2(backup, replacement)
    replacement.replace(site.db_path)  # another inode
    assert site.sync()["tokens_read"] == _TOKENS
    site.equal()


def test_a_database_that_shrinks_is_asked_about(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.sync()
    site.execute("DELETE FROM TokensTable WHERE rowid % 5 < 3")
    report = site.sync(code=1)
    assert [d["reason"] for d in report["databases"]] == ["shrunk"]
    assert site.live() == _TOKENS
    assert site.sync(code=1)["records_vanished"] == 0  # it asks until it is answered
    report = site.sync("--allow-shrink")
    assert report["records_vanished"] == _TOKENS * 3 // 5
    assert site.live() == _TOKENS * 2 // 5
    site.equal()


def test_a_database_that_disappears_is_kept_until_told(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.sync()
    away = site.home / "away.db"
    site.db_path.rename(away)
    report = site.sync(code=1)
    assert [d["status"] for d in report["databases"]] == ["missing"]
    assert site.live() == _TOKENS
    away.rename(site.db_path)  # it was only a mount that came late
    report = site.sync()
    assert report["records_inserted"] + report["records_updated"] == 0
    assert site.live() == _TOKENS
    site.db_path.unlink()
    assert site.sync("--allow-shrink")["records_vanished"] == _TOKENS
    assert site.live() == 0
    assert site.sync()["databases"] == []  # and that is that


def test_a_node_that_moves_to_another_root(make_site: Callable[..., Site]) -> None:
    """A new path is a new database; the old one's records are marked once that is confirmed."""
    site = make_site()
    site.sync()
    moved = site.home / "elsewhere"
    os.rename(site.root, moved)
    site.root.mkdir()
    report = site.sync(root=moved)
    assert report["records_inserted"] == _TOKENS
    assert report["content_by_way"] == {"target": _TOKENS}  # never fetched again
    site.equal(root=moved)
    assert site.live() == 2 * _TOKENS
    site.sync(code=1)  # the old root: it is gone
    assert site.sync("--allow-shrink")["records_vanished"] == _TOKENS
    assert site.live() == _TOKENS
    site.equal(root=moved)


def test_a_node_that_is_killed_in_the_middle_of_a_transaction(
    make_site: Callable[..., Site],
) -> None:
    """Its hot journal is rolled back in a copy; the node's own files stay as they are."""
    site = make_site()
    site.sync()
    program = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "db.execute('PRAGMA cache_size=2'); db.execute('BEGIN IMMEDIATE');"
        "db.execute(\"UPDATE TokensTable SET did = did || 'torn', token_status = 16\");"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, site.db_path]).returncode == -9
    journal = Path(f"{site.db_path}-journal")
    assert journal.stat().st_size > 0
    before = journal.read_bytes(), site.db_path.read_bytes()
    report = site.sync()
    assert (report["records_updated"], report["tokens_read"]) == (0, _TOKENS)
    assert (journal.read_bytes(), site.db_path.read_bytes()) == before
    torn = rows_of(site.url, "SELECT count(*) FROM TokenRecords WHERE did LIKE '%torn'")
    assert torn == [(0,)]
    site.equal()
