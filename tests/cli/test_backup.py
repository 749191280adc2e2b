"""`backup`: whole, of one moment, never over a target."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Run

TARGET = "sqlite:///t.db"


@pytest.fixture
def target(run: Run, nodes: Path) -> Path:
    assert run("sync", nodes, "--target", TARGET, "--source-ip", "vm1", "-q").code == 0
    return Path("t.db")


def records(path: str | Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT * FROM TokenRecords ORDER BY id").fetchall()


def test_a_backup_is_the_target(run: Run, target: Path, nodes: Path) -> None:
    made = run("backup", "b.db", "--target", TARGET, "--json").document
    assert made["records"] == len(records(target)) > 0
    assert made["bytes"] == Path("b.db").stat().st_size
    assert records("b.db") == records(target)
    assert Path("b.db").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in Path().glob("*b.db*")] == ["b.db"], "nothing else is left"


def test_while_somebody_writes(run: Run, target: Path) -> None:
    """A transaction that is under way is neither waited for nor half in the copy."""
    before = records(target)
    with closing(sqlite3.connect(target, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        db.execute("DELETE FROM TokenRecords")
        done = threading.Event()

        def copy() -> None:
            assert run("backup", "b.db", "--target", TARGET, "-q").code == 0
            done.set()

        thread = threading.Thread(target=copy, daemon=True)
        thread.start()
        thread.join(60)
        assert done.is_set()
        db.execute("ROLLBACK")
    assert records("b.db") == before


def test_what_exists_stays(run: Run, target: Path) -> None:
    Path("b.db").write_text("mine")
    run("backup", "b.db", "--target", TARGET, "--json").error(2, "backup_exists")
    assert Path("b.db").read_text() == "mine"
    assert run("backup", "b.db", "--target", TARGET, "--force", "-q").code == 0
    assert records("b.db") == records(target)
    run("backup", "no/b.db", "--target", TARGET, "--json").error(2, "directory_unwritable")
    run("backup", "b2.db", "--target", "sqlite:///x.db", "--json").error(3, "target_absent")


def test_never_over_a_target(run: Run, target: Path) -> None:
    Path("link.db").symlink_to(target)
    for name in ("t.db", "./t.db", "link.db"):
        run("backup", name, "--target", TARGET, "--force", "--json").error(2, "backup_over_target")
    # Nor over another one, into which somebody writes at this moment.
    with closing(sqlite3.connect("other.db")) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE x (y)")
        run("backup", "other.db", "--target", TARGET, "--force", "--json").error(
            2, "backup_over_target"
        )


def test_a_damaged_target_gives_no_backup(run: Run, target: Path) -> None:
    size = target.stat().st_size
    with target.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 4))
    ended = run("backup", "b.db", "--target", TARGET, "--json")
    assert ended.code in (1, 3)
    assert ended.document["error"]["code"] in ("backup_damaged", "damaged_target")
    assert not Path("b.db").exists()


def test_a_node_is_no_place_for_it(run: Run, target: Path, nodes: Path) -> None:
    node = next(nodes.iterdir())
    run("backup", node / "Rubix" / "b.db", "--target", TARGET, "--json").error(2, "inside_a_node")


def test_a_server_makes_its_own(run: Run, postgres_url: str) -> None:
    assert run("schema", "upgrade", "--target", postgres_url, "-q").code == 0
    run("backup", "b.db", "--target", postgres_url, "--json").error(3, "not_one_file")
    assert not Path("b.db").exists()


def test_restored_it_is_the_target_of_then(run: Run, target: Path, nodes: Path) -> None:
    before = records(target)
    assert run("backup", "b.db", "--target", TARGET, "-q").code == 0
    with closing(sqlite3.connect(target)) as db:
        db.execute("DELETE FROM TokenRecords")
        db.commit()
    Path("t.db-wal").write_bytes(b"left over")
    done = run("restore", "b.db", "--target", TARGET, "--json").document
    assert done["records"] == len(before)
    assert records(target) == before
    assert target.stat().st_mode & 0o777 == 0o600
    found = {path.name for path in Path().glob("*.db*")}
    assert found >= {"b.db", "t.db", "t.db.before-1", "t.db.before-1-wal"}
    assert "t.db-wal" not in found
    assert done["kept"].endswith("t.db.before-1")
    assert run("verify", nodes, "--target", TARGET, "--source-ip", "vm1", "-q").code == 0
    assert "t.db.before-2" in run("restore", "b.db", "--target", TARGET).out


def test_a_target_that_is_lost_or_damaged_is_restored(run: Run, target: Path) -> None:
    before = records(target)
    assert run("backup", "b.db", "--target", TARGET, "-q").code == 0
    target.write_bytes(b"\xff" * 8192)
    assert run("restore", "b.db", "--target", TARGET, "-q").code == 0
    assert records(target) == before
    target.unlink()
    assert run("restore", "b.db", "--target", TARGET, "--json").document["kept"] is None
    assert records(target) == before


def test_what_is_no_backup_is_not_restored(run: Run, target: Path, postgres_url: str) -> None:
    before = target.read_bytes()
    Path("b.db").write_text("no database")
    run("restore", "b.db", "--target", TARGET, "--json").error(1, "backup_damaged")
    run("restore", "none.db", "--target", TARGET, "--json").error(1, "backup_damaged")
    with closing(sqlite3.connect("other.db")) as db:
        db.execute("CREATE TABLE x (y)")
    run("restore", "other.db", "--target", TARGET, "--json").error(1, "backup_damaged")
    run("restore", "t.db", "--target", TARGET, "--json").error(2, "backup_over_target")
    run("restore", "b.db", "--target", postgres_url, "--json").error(3, "not_one_file")
    assert target.read_bytes() == before


def test_not_while_a_run_writes(run: Run, target: Path) -> None:
    assert run("backup", "b.db", "--target", TARGET, "-q").code == 0
    with closing(sqlite3.connect(target)) as db:
        db.execute(
            "UPDATE SyncSessions SET status = 'RUNNING', end_time = NULL,"
            " heartbeat_at = strftime('%Y-%m-%d %H:%M:%f', 'now')"
        )
        db.commit()
    run("restore", "b.db", "--target", TARGET, "--json").error(4, "restore_while_running")
