"""Databases as GORM makes them, and the changes that tests make to them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.testing import (
    FORK_SCHEMA,
    NEWEST_SCHEMA,
    OLDEST_SCHEMA,
    change_status,
    create_database,
    delete_tokens,
    insert_rows,
)


def _query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def _rows(count: int) -> list[tuple[object, ...]]:
    return [(f"id{n}", "", 1.0, "did", n % 17, "state", "transaction", 0) for n in range(count)]


@pytest.mark.parametrize(
    ("schema", "fixture"),
    [
        (NEWEST_SCHEMA, "node032/Rubix/rubix.db"),
        (OLDEST_SCHEMA, "node034/Rubix/rubix.db"),
        (FORK_SCHEMA, "pool/a/node035/Rubix/rubix.db"),
    ],
)
def test_the_schemas_are_those_of_the_fixture(
    fleet: Path, tmp_path: Path, schema: dict[str, str], fixture: str
) -> None:
    create_database(tmp_path / "made.db", [], schema=schema)
    for sql in (
        "SELECT sql FROM sqlite_master",
        "PRAGMA page_size",
        "PRAGMA journal_mode",
        "PRAGMA encoding",
    ):
        assert _query(tmp_path / "made.db", sql) == _query(fleet / fixture, sql)


def test_values_have_the_storage_classes_of_the_fixture(fleet: Path, tmp_path: Path) -> None:
    create_database(tmp_path / "made.db", _rows(20))
    kinds = ", ".join(f"typeof({name})" for name in NEWEST_SCHEMA)
    sql = f"SELECT DISTINCT {kinds} FROM TokensTable"
    assert _query(tmp_path / "made.db", sql) == _query(fleet / "node032/Rubix/rubix.db", sql)


def test_a_cleanly_closed_wal_database_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "Rubix" / "rubix.db"
    assert create_database(path, _rows(50), journal_mode="wal") == 50
    assert [entry.name for entry in path.parent.iterdir()] == ["rubix.db"]
    assert path.read_bytes()[18:20] == b"\x02\x02"


def test_rows_can_be_in_the_wal_alone(tmp_path: Path) -> None:
    path = tmp_path / "Rubix" / "rubix.db"
    assert create_database(path, _rows(50), in_wal=True) == 50
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["rubix.db", "rubix.db-wal"]
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as db:
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    assert _query(path, "SELECT count(*) FROM TokensTable") == [(50,)]


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "rubix.db"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        create_database(path, [])
    assert path.read_bytes() == b"mine"


def test_changes_touch_what_they_say_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "rubix.db"
    create_database(path, _rows(1000))
    before = {row[0]: row for row in _query(path, "SELECT * FROM TokensTable")}

    changed = change_status(path, 0.01, seed=7)
    after = {row[0]: row for row in _query(path, "SELECT * FROM TokensTable")}
    assert len(set(changed)) == 10
    assert {name for name in before if before[name] != after[name]} == set(changed)
    for name in changed:
        assert after[name][4] == (before[name][4] + 1) % 17
        assert after[name][:4] + after[name][5:] == before[name][:4] + before[name][5:]

    deleted = delete_tokens(path, 0.02, seed=8)
    assert len(set(deleted)) == 20
    left = {row[0] for row in _query(path, "SELECT token_id FROM TokensTable")}
    assert left == set(before) - set(deleted)

    assert insert_rows(path, [("new", "", 1.0, "did", 0, "", "", 0)]) == 1
    assert _query(path, "SELECT count(*) FROM TokensTable") == [(981,)]


def test_a_share_is_a_share(tmp_path: Path) -> None:
    path = tmp_path / "rubix.db"
    create_database(path, _rows(10))
    assert change_status(path, 0) == []
    assert len(change_status(path, 1)) == 10
    for share in (-0.1, 1.1):
        with pytest.raises(ValueError, match="share"):
            change_status(path, share)
