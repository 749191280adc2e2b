"""43, 37: repeated rows cost bounded memory and their own database only."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.incidents.conftest import Site

TABLE = "CREATE TABLE TokensTable (token_id text, did, token_status, parent_token_id)"


def _only(site: Site, name: str) -> Path:
    """A fleet of one good node and one whose database the test makes."""
    for entry in site.fleet.iterdir():
        if entry.is_symlink():
            entry.unlink()
        elif entry.is_dir() and entry.name != "node032":
            shutil.rmtree(entry)
    path = site.fleet / name / "Rubix" / "rubix.db"
    path.parent.mkdir(parents=True)
    return path


def _stored(site: Site) -> dict[str, int]:
    return dict(site.rows("SELECT node_name, count(*) FROM TokenRecords GROUP BY node_name"))  # type: ignore[arg-type]


def test_large_repeated_rows(site: Site) -> None:
    with closing(sqlite3.connect(_only(site, "bad"))) as db, db:
        db.execute(TABLE)
        for _ in range(40):
            row = "INSERT INTO TokensTable VALUES ('same', zeroblob(?), zeroblob(?), zeroblob(?))"
            db.execute(row, (900_000,) * 3)
    report = site.sync()
    assert report["total_databases_failed"] == 0
    ((occurrences, context),) = site.rows(
        "SELECT occurrences, context FROM SyncErrors WHERE code = 'duplicate_token_id'"
    )
    assert occurrences == 39
    assert len(str(context)) < 50_000
    assert "900000 long" in str(context)
    assert _stored(site)["bad"] == 1


def test_a_damaged_index_and_ids_that_become_equal(site: Site) -> None:
    """What SQLite's own check calls damage, and what it calls ok."""
    damaged = _only(site, "damaged")
    with closing(sqlite3.connect(damaged, isolation_level=None)) as db:
        db.execute(TABLE)
        db.execute(
            "INSERT INTO TokensTable VALUES ('a', 1, 1, ''), ('b', 1, 1, ''), ('a', 2, 2, '')"
        )
        db.execute("CREATE INDEX ux ON TokensTable (token_id)")
        db.execute("PRAGMA writable_schema=ON")
        db.execute(
            "UPDATE sqlite_master SET sql = 'CREATE UNIQUE INDEX ux ON TokensTable(token_id)' "
            "WHERE name = 'ux'"
        )
    wide = site.fleet / "wide" / "Rubix" / "rubix.db"
    wide.parent.mkdir(parents=True)
    with closing(sqlite3.connect(wide, isolation_level=None)) as db:
        db.execute("PRAGMA encoding='UTF-16le'")
        db.execute("CREATE TABLE TokensTable (token_id text PRIMARY KEY, did)")
        for ending in ("00D84100", "00D841DC"):
            db.execute(f"INSERT INTO TokensTable VALUES (CAST(X'{ending}' AS TEXT), 1)")
    for _ in range(2):
        report = site.sync()
        assert report["total_databases_failed"] == 0
        stored = _stored(site)
        assert (stored["damaged"], stored["node032"] > 3) == (2, True)
        assert stored["wide"] in (1, 2)
    assert site.rows(
        "SELECT did FROM TokenRecords WHERE node_name = 'damaged' AND token_id = 'a'"
    ) == [("1",)]
