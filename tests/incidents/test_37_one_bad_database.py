"""37: what is wrong with one record or one database costs that one only, in every phase."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.chaos.door import Door
from tests.incidents.conftest import Site


@pytest.fixture
def three(door: Door, tmp_path: Path) -> Site:
    """Three nodes with ten tokens each; the second is to be the bad one."""
    fleet = make_fleet(tmp_path / "fleet", FleetPlan(nodes=3, tokens_per_node=10))
    return Site(door, Path(fleet.directory), tmp_path)


def _database(site: Site) -> Path:
    return Path(site.fleet, "node002/Rubix/rubix.db")


def _damage_the_index(path: Path) -> int:
    """A row that stands twice under an index that says it is unique; how many ids there are."""
    with closing(sqlite3.connect(path)) as db:
        (sql,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'TokensTable'").fetchone()
        db.execute("ALTER TABLE TokensTable RENAME TO Old")
        db.execute(_no_key(sql))
        db.execute("INSERT INTO TokensTable SELECT * FROM Old")
        db.execute("DROP TABLE Old")
        db.execute("INSERT INTO TokensTable SELECT * FROM TokensTable LIMIT 1")
        db.execute("CREATE INDEX ux ON TokensTable(token_id)")
        db.commit()
        db.execute("PRAGMA writable_schema = ON")
        db.execute(
            "UPDATE sqlite_master SET sql = 'CREATE UNIQUE INDEX ux ON TokensTable(token_id)'"
            " WHERE name = 'ux'"
        )
        db.commit()
    return 10


def _no_key(sql: str) -> str:
    return re.sub(r",\s*PRIMARY KEY\s*\([^)]*\)", "", sql).replace(" PRIMARY KEY", "")


def _ids_that_become_equal(path: Path) -> int:
    """UTF-16 ids that SQLite turns into one UTF-8 text."""
    with closing(sqlite3.connect(path)) as old:
        (sql,) = old.execute("SELECT sql FROM sqlite_master WHERE name = 'TokensTable'").fetchone()
        rows = old.execute("SELECT * FROM TokensTable").fetchall()
    path.unlink()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA encoding = 'UTF-16le'")
        db.execute(sql)
        db.executemany(f"INSERT INTO TokensTable VALUES ({', '.join('?' * len(rows[0]))})", rows)
        for half in ("00D84100", "00D841DC"):
            values = ", ".join(["NULL"] * (len(rows[0]) - 1))
            db.execute(f"INSERT INTO TokensTable VALUES (CAST(X'{half}' AS TEXT), {values})")
    return 11


@pytest.mark.parametrize("spoil", [_damage_the_index, _ids_that_become_equal])
def test_a_repeated_row_is_left_out_and_reported(three: Site, spoil: Callable[[Path], int]) -> None:
    kept = spoil(_database(three))
    for _ in range(2):
        report = three.sync()
        assert report["exit_code"] == 1
        assert three.rows("SELECT node_name, count(*) FROM TokenRecords GROUP BY 1 ORDER BY 1") == [
            ("node001", 10),
            ("node002", kept),
            ("node003", 10),
        ]
    assert three.one("SELECT sum(occurrences) FROM SyncErrors WHERE code = 'duplicate_token_id'")


def test_a_mark_that_the_target_refuses_is_that_databases_error(three: Site) -> None:
    three.sync("--node", "node001")
    three.change(
        "CREATE TRIGGER no BEFORE INSERT ON ProcessedDatabases WHEN NEW.node_name = 'node002'"
        " BEGIN SELECT RAISE(ABORT, 'not this one'); END"
    )
    report = three.sync()
    states = {row["node_name"]: row["status"] for row in report["databases"]}
    assert states == {"node001": "current", "node002": "failed", "node003": "processed"}
    assert three.one("SELECT count(*) FROM TokenRecords WHERE node_name = 'node003'") == 10
    three.change("DROP TRIGGER no")
    assert three.sync()["exit_code"] == 0
