"""Values and schemas: whatever SQLite can hold arrives as it is."""

from __future__ import annotations

import os
import sqlite3
from datetime import datetime
from pathlib import Path

import pytest

import rubix_token_sync.nodes.snapshot as snapshot_module
from rubix_token_sync.nodes.snapshot import open_snapshot
from rubix_token_sync.records.schema import SOURCE_COLUMNS, row_digest

from .databases import everything, read


def make(path: Path, *statements: str, encoding: str = "UTF-8") -> Path:
    """A database made by some statements."""
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(f"PRAGMA encoding = '{encoding}'")
    for statement in statements:
        database.execute(statement)
    database.close()
    return path


def test_every_type_in_every_column(database: Path) -> None:
    make(
        database,
        "CREATE TABLE TokensTable (token_id, did text, token_status integer, token_value real)",
        "INSERT INTO TokensTable VALUES (x'00ff', 12, 'locked', 'much')",
        "INSERT INTO TokensTable VALUES (9007199254740993, NULL, 3.25, 0.1)",
        "INSERT INTO TokensTable VALUES (NULL, x'', -9223372036854775808, 1)",
        "INSERT INTO TokensTable VALUES ('a' || char(0) || 'b', '', x'ff', 9e999)",
    )
    assert read(database) == [
        (b"\x00\xff", "12", None, None, "locked", None, "much", None, None),
        (9007199254740993, None, None, None, 3.25, None, 0.1, None, None),
        (None, b"", None, None, -(2**63), None, 1.0, None, None),
        ("a\0b", "", None, None, b"\xff", None, float("inf"), None, None),
    ]


@pytest.mark.parametrize("head", [3, 50_000])
def test_text_that_is_not_utf8_is_lossless(
    head: int, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", head)
    clean = [f"INSERT INTO TokensTable VALUES ('token{n}', 'dïd')" for n in range(20)]
    schema = "CREATE TABLE TokensTable (token_id text, did text)"
    make(database, schema, *clean)
    good = read(database)
    dirty = "INSERT INTO TokensTable VALUES (CAST(x'41ff42' AS text), CAST(x'c328' AS text))"
    make(database, schema, *clean[:10], dirty, *clean[10:])
    with open_snapshot(str(database)) as snapshot:
        rows = everything(snapshot, 4)
        assert everything(snapshot, 100) == rows
    odd = rows.pop(10)
    assert [str(value).encode("utf-8", "surrogateescape") for value in odd[:2]] == [
        b"A\xffB",
        b"\xc3(",
    ]
    assert [row_digest(b"", row) for row in rows] == [row_digest(b"", row) for row in good]
    assert row_digest(b"", odd)  # can be digested, too


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_other_encodings(encoding: str, database: Path) -> None:
    make(
        database,
        "CREATE TABLE TokensTable (token_id text primary key)",
        "INSERT INTO TokensTable VALUES ('ünïcode 🙂')",
        encoding=encoding,
    )
    assert [row[0] for row in read(database)] == ["ünïcode 🙂"]


def test_names_are_case_insensitive_as_in_sqlite(database: Path) -> None:
    make(
        database,
        "CREATE TABLE tokenstable (TOKEN_ID text, Did text, extra text, [Token_Status] int)",
        "INSERT INTO tokenstable VALUES ('a', 'b', 'c', 1)",
    )
    with open_snapshot(str(database)) as snapshot:
        assert snapshot.tables[0].columns == {"token_id", "did", "token_status"}
        assert everything(snapshot) == [("a", "b", None, None, 1, None, None, None, None)]


def test_a_table_without_any_known_column(database: Path) -> None:
    make(database, "CREATE TABLE TokensTable (x)", "INSERT INTO TokensTable VALUES (1), (2)")
    with open_snapshot(str(database)) as snapshot:
        assert snapshot.tables[0].columns == set()
        assert everything(snapshot) == [(None,) * len(SOURCE_COLUMNS)] * 2


def test_no_rows(database: Path) -> None:
    make(database, "CREATE TABLE TokensTable (token_id text primary key)")
    with open_snapshot(str(database)) as snapshot:
        assert (everything(snapshot), snapshot.count) == ([], 0)


def test_columns_added_later_have_their_default(database: Path) -> None:
    make(
        database,
        "CREATE TABLE TokensTable (token_id text primary key)",
        "INSERT INTO TokensTable VALUES ('a')",
        "ALTER TABLE TokensTable ADD COLUMN token_status integer DEFAULT 5",
    )
    assert read(database) == [("a", None, None, None, 5, None, None, None, None)]


@pytest.mark.parametrize("head", [2, 50_000])
def test_rows_come_in_row_order(head: int, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", head)
    values = "('c', 3), ('a', 1), ('d', 4), ('b', 2), ('e', 5)"
    tables = {
        "(token_id text primary key, did int)": "cadbe",
        "(did int, token_id text, rowid text, PRIMARY KEY (token_id))": "cadbe",  # hides one name
        "(token_id text primary key, did int) WITHOUT ROWID": "abcde",
        "(token_id text, did int, PRIMARY KEY (did DESC)) WITHOUT ROWID": "edcba",
    }
    for definition, order in tables.items():
        make(
            database,
            f"CREATE TABLE TokensTable {definition}",
            f"INSERT INTO TokensTable (token_id, did) VALUES {values}",
        )
        assert "".join(str(row[0]) for row in read(database)) == order


@pytest.mark.parametrize(
    ("definition", "promised"),
    [
        ("(token_id text, PRIMARY KEY (token_id))", True),
        ("(token_id text UNIQUE)", True),
        ("(token_id integer PRIMARY KEY)", True),
        ("(token_id text PRIMARY KEY) WITHOUT ROWID", True),
        ("(token_id text)", False),
        ("(token_id text COLLATE NOCASE)", False),
        ("(token_id text, did text, UNIQUE (token_id, did))", False),
    ],
)
def test_what_the_schema_promises_of_ids(definition: str, promised: bool, database: Path) -> None:
    make(
        database,
        f"CREATE TABLE TokensTable {definition}",
        "CREATE UNIQUE INDEX part ON TokensTable (token_id) WHERE token_id > 'z'",
        "INSERT INTO TokensTable (token_id) VALUES (1), (2)",
    )
    with open_snapshot(str(database)) as snapshot:
        assert snapshot.tables[0].unique_ids is promised


def test_ids_of_utf16_are_not_trusted(database: Path) -> None:
    make(
        database,
        "PRAGMA encoding='UTF-16le'",
        "CREATE TABLE TokensTable (token_id text PRIMARY KEY)",
    )
    with open_snapshot(str(database)) as snapshot:
        assert snapshot.tables[0].unique_ids is False


def test_modified_is_the_later_of_database_and_log(database: Path) -> None:
    make(database, "PRAGMA journal_mode=wal", "CREATE TABLE TokensTable (token_id)")
    node = sqlite3.connect(database)
    node.execute("INSERT INTO TokensTable VALUES (1)")
    node.commit()
    os.utime(database, (1_000_000_000, 1_000_000_000))
    os.utime(database.with_name("rubix.db-wal"), ns=(0, 1_700_000_000_123_456_789))
    with open_snapshot(str(database)) as snapshot:
        assert snapshot.modified == datetime(2023, 11, 14, 22, 13, 20, 123456)
    node.close()
    for moment, said in ((2**40, datetime.max), (-1, datetime(1969, 12, 31, 23, 59, 59))):
        os.utime(database, (moment, moment))
        now = database.stat().st_mtime
        with open_snapshot(str(database)) as snapshot:
            assert snapshot.modified == (said if now == moment else snapshot.modified)
