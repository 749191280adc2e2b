"""docs/MIGRATION.md, executed: from an older system that knows the fixture fleet, and back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psycopg
import pytest

from tests.chaos.door import Door, Finished
from tests.docs.runner import blocks, run_block

from .older_system import TABLES

GUIDE = Path(__file__).parents[2] / "docs" / "MIGRATION.md"
SOURCE = "10.0.0.1"


Program = Callable[..., Finished]


@pytest.fixture
def program(door: Door, tmp_path: Path) -> Program:
    """Runs a command in the test's directory."""
    return partial(door.run, cwd=tmp_path, seconds=100)


@pytest.fixture
def older_fleet(
    program: Program, fleet: Path, fresh_postgres: Callable[..., str], tmp_path: Path
) -> str:
    """The older system's database as it would be after it has synced the fixture fleet."""
    known = tmp_path / "known.db"
    done = program("sync", str(fleet), "--target", f"sqlite:///{known}", "--source-ip", SOURCE)
    assert done.code in (0, 1), done.stderr  # some databases are damaged on purpose
    url = fresh_postgres()
    columns = (
        "source_ip, node_name, did, token_id, created_at, updated_at, token_status,"
        " parent_token_id, token_value, ipfs_data, ipfs_fetched, ipfs_error, db_path, ipfs_path,"
        " db_last_modified, synced_at, validation_errors"
    )
    source = sqlite3.connect(known)
    with psycopg.connect(url) as conn:
        for statement in TABLES.split(";"):
            conn.execute(statement.encode())
        for row in source.execute(f"SELECT {columns} FROM TokenRecords").fetchall():
            values = list(row)
            values[10] = bool(values[10])
            # As the older script did: contents stripped, failures as plain words.
            values[9] = values[9] and values[9].strip()
            values[11] = values[11] and "ipfs cat failed"
            for _ in range(1 + len(row[3] or "") % 2):
                marks = ", ".join(["%s"] * len(values))
                conn.execute(
                    f"INSERT INTO tokenrecords ({columns}) VALUES ({marks})".encode(), values
                )
        conn.execute(
            "INSERT INTO processeddatabases"
            " SELECT db_path, max(db_last_modified), now(), count(*) FROM tokenrecords GROUP BY 1"
        )
    source.close()
    return url


def test_the_guide_does_what_it_says(
    older_fleet: str, fleet: Path, fresh_postgres: Callable[..., str], tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    # The fixture's broken databases make every sync end with 1; they have no place here.
    for broken in ("node037", "node038", "node039"):
        database = next(fleet.rglob(f"{broken}/Rubix/rubix.db"))
        database.unlink()
    (here / "older-postgresql.txt").write_text(older_fleet)
    (here / "azure_sql_connection.txt").write_text(fresh_postgres())
    (here / "rollback-postgresql.txt").write_text(fresh_postgres())
    (here / "rollback-postgresql.txt").chmod(0o600)
    tags = {block.tag for block in blocks(GUIDE)}
    assert tags == {"run", "admin"}
    for block in blocks(GUIDE):
        if block.tag == "run":
            run_block(block, here, {"/mnt/drived": str(fleet)})


def test_the_first_sync_after_a_migration_fetches_little(
    program: Program, older_fleet: str, fleet: Path, fresh_postgres: Callable[..., str]
) -> None:
    target = fresh_postgres()
    moved = program("migrate", "--from", older_fleet, "--to", target, "--json")
    assert moved.code == 0, moved.stderr
    report = json.loads(moved.stdout)
    totals = report["totals"]
    assert totals["duplicates_merged"] > 0
    assert totals["contents_adopted"] > 0

    def sync(url: str) -> dict[str, dict[str, int]]:
        done = program("sync", str(fleet), "--target", url, "--source-ip", SOURCE, "--json")
        document: dict[str, dict[str, int]] = json.loads(done.stdout)
        return document

    fresh = sync(fresh_postgres())
    after = sync(target)
    ways = after["content_by_way"]
    adopted = totals["contents_adopted"]
    assert fresh["content_by_way"]["blockstore"] >= adopted
    assert ways.get("blockstore", 0) <= fresh["content_by_way"]["blockstore"] - adopted
    assert after["total_ipfs_success"] == fresh["total_ipfs_success"]
    # The fixture has one id that is no text: the older system could not store it as it is.
    assert (after["records_inserted"], after["records_vanished"]) == (1, 1)
    proof = program("verify", str(fleet), "--target", target, "--source-ip", SOURCE, "--json")
    assert not any(json.loads(proof.stdout)["differences"].values()), proof.stdout


def test_no_password_in_anything_a_migration_says(
    program: Program, older_fleet: str, fresh_postgres: Callable[..., str], tmp_path: Path
) -> None:
    """Not in its output, not when it fails, not with --verbose."""
    secret = "geheim%40w%C3%B6rtchen"
    secrets = (secret, "geheim@wörtchen", "geheim")
    good = older_fleet.replace("rubix@/", f"rubix:{secret}@/")
    bad = f"postgresql://u:{secret}@127.0.0.1:1/x"
    for source, target, code in (
        (good, fresh_postgres().replace("rubix@/", f"rubix:{secret}@/"), 0),
        (bad, f"sqlite:///{tmp_path}/t.db", 3),
        (good, bad, 3),
        (good, good, 2),
        (f"postgresql://u:{secret}@@x:y/", good, 2),
    ):
        for more in ((), ("--json",)):
            done = program("migrate", "--from", source, "--to", target, "--verbose", *more)
            assert done.code == code, done.stderr
            for text in secrets:
                assert text not in done.stdout + done.stderr
