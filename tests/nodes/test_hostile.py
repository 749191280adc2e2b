"""Databases built to hurt: refused with a reason, or read safely."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rubix_token_sync.nodes.snapshot as snapshot_module
from rubix_token_sync.errors import SourceError
from rubix_token_sync.nodes.database_errors import REMEDIES
from rubix_token_sync.nodes.snapshot import open_snapshot

from .databases import everything, fill, read, tree
from .test_values import make


def refused(path: Path) -> str:
    """The code with which a database is refused."""
    with pytest.raises(SourceError) as caught:
        read(path, busy_s=0)
    assert caught.value.code in REMEDIES
    assert caught.value.message.isprintable()
    return caught.value.code


ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS token_id FROM n"
)


@pytest.mark.parametrize(
    "statements",
    [
        [f"CREATE VIEW TokensTable AS {ENDLESS}"],
        ["CREATE VIEW TokensTable AS SELECT load_extension('/tmp/x.so') AS token_id"],
        ["CREATE VIRTUAL TABLE TokensTable USING fts5(token_id)"],
        ["CREATE VIRTUAL TABLE tokenstable USING fts4(token_id)"],
        ["CREATE VIRTUAL TABLE TokensTable USING rtree(token_id, a, b)"],
        [
            "CREATE TABLE TokensTable (a, token_id text GENERATED ALWAYS AS "
            "(printf('%.*c', 900000, 'x')) VIRTUAL)",
            "INSERT INTO TokensTable (a) VALUES (1), (2)",
        ],
        ["CREATE TABLE TokensTable (token_id, rowid, _rowid_, oid)"],
    ],
)
def test_what_is_no_plain_table(statements: list[str], database: Path) -> None:
    try:
        make(database, *statements)
    except sqlite3.OperationalError as error:
        pytest.skip(f"this SQLite cannot make it: {error}")
    before = tree(database.parent)
    assert refused(database) == "not_a_table"
    assert tree(database.parent) == before


def test_a_schema_that_hides_a_virtual_table(database: Path) -> None:
    make(
        database,
        "CREATE TABLE TokensTable (token_id)",
        "PRAGMA writable_schema=ON",
        "UPDATE sqlite_master SET sql = 'CREATE VIRTUAL TABLE TokensTable USING fts5(token_id)'",
    )
    assert refused(database) in ("not_a_table", "corrupt")


def test_triggers_stored_columns_and_defaults_do_nothing(database: Path) -> None:
    make(
        database,
        "CREATE TABLE log (x)",
        "CREATE TABLE TokensTable (did text, token_id text AS (did || '!') STORED,"
        " token_status DEFAULT (random()))",
        "CREATE TRIGGER t AFTER INSERT ON TokensTable BEGIN INSERT INTO log VALUES (1); END",
        "CREATE INDEX i ON TokensTable (abs(token_status))",
        f"CREATE VIEW endless AS {ENDLESS}",
        "INSERT INTO TokensTable (did, token_status) VALUES ('a', 1)",
    )
    assert read(database) == [("a!", "a", None, None, 1, None, None, None, None)]


@pytest.mark.parametrize("head", [1, 50_000])
def test_large_values_are_read_and_too_large_ones_refused(
    head: int, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", head)
    schema = "CREATE TABLE TokensTable (token_id text primary key, did)"
    rows = [f"INSERT INTO TokensTable VALUES ({n}, zeroblob({n * 1000}))" for n in range(1, 60)]
    make(database, schema, *rows, "INSERT INTO TokensTable VALUES ('x', zeroblob(1000000))")
    with open_snapshot(str(database)) as snapshot:
        sizes = [len(row[1]) for row in everything(snapshot, 7) if isinstance(row[1], bytes)]
    assert sizes == [n * 1000 for n in range(1, 60)] + [1000000]
    for kind in ("zeroblob(1100000)", "CAST(zeroblob(1100000) AS text)"):
        make(database, schema, *rows, f"INSERT INTO TokensTable VALUES ('x', {kind})")
        assert refused(database) == "too_large_value"


def test_a_gigabyte_of_text_costs_no_memory(database: Path) -> None:
    make(
        database,
        "CREATE TABLE TokensTable (token_id text primary key, did text)",
        "INSERT INTO TokensTable VALUES ('a', 'b')",
        "INSERT INTO TokensTable VALUES ('x', CAST(zeroblob(200000000) AS text))",
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refused(database) == "too_large_value"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


def test_many_large_values_are_handed_out_in_small_batches(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "_SMALL_FILE_BYTES", 0)
    monkeypatch.setattr(snapshot_module, "_BATCH_BYTES", 2**20)
    schema = "CREATE TABLE TokensTable (token_id integer primary key, did text)"
    values = "INSERT INTO TokensTable VALUES (NULL, CAST(zeroblob(20000) AS text))"
    make(database, schema, *[values] * 500)
    with open_snapshot(str(database)) as snapshot:
        batches = [len(batch.rows) for batch in snapshot.rows(5000)]
    assert sum(batches) == 500
    assert max(batches) <= 2 * 64


def test_a_huge_schema(database: Path) -> None:
    """What a schema can cost is its size; the table is still found."""
    make(database, "CREATE TABLE TokensTable (token_id)", "INSERT INTO TokensTable VALUES ('a')")
    node = sqlite3.connect(database, isolation_level=None)
    node.execute("BEGIN")
    for number in range(5000):
        node.execute(f"CREATE TABLE t{number} (a, b, c)")
    node.execute(f"CREATE TABLE wide ({', '.join(f'column{n}' for n in range(1999))})")
    node.execute("COMMIT")
    node.close()
    assert [row[0] for row in read(database)] == ["a"]


def test_a_schema_with_a_huge_statement(database: Path) -> None:
    make(
        database,
        "CREATE TABLE TokensTable (token_id)",
        f"CREATE VIEW v AS SELECT '{'x' * 2_000_000}'",
    )
    assert refused(database) == "too_large_value"


def test_a_table_wider_than_any(database: Path) -> None:
    columns = ", ".join(f"c{n} text" for n in range(1990))
    make(
        database,
        f"CREATE TABLE TokensTable ({columns}, token_id text primary key)",
        "INSERT INTO TokensTable (token_id) VALUES ('a')",
    )
    assert [row[0] for row in read(database)] == ["a"]


def test_odd_names_of_indexes_and_columns(database: Path) -> None:
    make(
        database,
        'CREATE TABLE TokensTable (token_id text, "a""b;--" text, "token_id " text)',
        'CREATE UNIQUE INDEX "x""); DROP TABLE TokensTable; --" ON TokensTable (token_id)',
        "PRAGMA writable_schema=ON",
        "UPDATE sqlite_master SET name = CAST(x'ff41' AS text) WHERE type = 'index'",
        "INSERT INTO TokensTable VALUES ('a', 'b', 'c')",
    )
    # What the index is called, not even SQLite can say; the error must still be one.
    assert refused(database) == "corrupt"


def _page(kind: int, cells: list[bytes], size: int, start: int = 0, right: int = 0) -> bytes:
    """A b-tree page (sqlite.org/fileformat2.html, section 1.6)."""
    pointers = b""
    content = b""
    at = size
    for cell in cells:
        at -= len(cell)
        content = cell + content
        pointers += at.to_bytes(2, "big")
    header = bytes([kind]) + b"\0\0" + len(cells).to_bytes(2, "big") + at.to_bytes(2, "big") + b"\0"
    if kind == 5:
        header += right.to_bytes(4, "big")
    return (header + pointers).ljust(size - start - len(content), b"\0") + content


@pytest.fixture
def bomb(database: Path) -> Path:
    """Seven pages that hold 10^14 rows: every child of a page is the same next page."""
    make(
        database,
        "CREATE TABLE TokensTable (token_id text)",
        "INSERT INTO TokensTable VALUES ('a')",
        *[f"CREATE TABLE t{number} (a)" for number in range(6)],
    )
    size = 4096
    data = bytearray(database.read_bytes())
    assert len(data) == 8 * size
    leaf = data[size : 2 * size]
    for page in range(2, 8):  # page numbers; page 2 is the root
        child = (page + 1).to_bytes(4, "big")
        cells = [child + bytes([key]) for key in range(1, 100)]
        data[(page - 1) * size : page * size] = _page(5, cells, size, right=page + 1)
    data[7 * size :] = leaf
    database.write_bytes(data)
    return database


@pytest.mark.parametrize("head", [10, 50_000])
def test_pages_that_go_in_circles(head: int, bomb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", head)
    started = time.monotonic()
    assert refused(bomb) == "corrupt"
    assert time.monotonic() - started < 10


def test_counting_in_circles_is_interrupted(bomb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", 10)
    monkeypatch.setattr(snapshot_module, "_COUNT_SECONDS", 0.2)
    with open_snapshot(str(bomb)) as snapshot, pytest.raises(SourceError) as caught:
        _ = snapshot.count
    assert caught.value.code == "took_too_long"


@pytest.mark.parametrize("head", [10, 50_000])
def test_torn_page(head: int, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", head)
    fill(database, 2000)
    data = bytearray(database.read_bytes())
    for start in range(4096 * 8, len(data), 4096 * 4):
        data[start : start + 512] = b"\xff" * 512
    database.write_bytes(data)
    assert refused(database) == "corrupt"


@pytest.mark.parametrize("keep", [99, 100, 512, 4096, 4097, 20_000])
def test_cut_short(keep: int, database: Path) -> None:
    fill(database, 2000)
    database.write_bytes(database.read_bytes()[:keep])
    assert refused(database) in ("corrupt", "not_a_database")


def test_an_index_that_does_not_match_its_table(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", 1)
    make(
        database,
        "CREATE TABLE TokensTable (token_id text, x text)",
        "CREATE INDEX few ON TokensTable (token_id) ",
        "INSERT INTO TokensTable VALUES ('a', zeroblob(300)), ('b', zeroblob(300))",
        "PRAGMA writable_schema=ON",
        "UPDATE sqlite_master SET rootpage = 2 WHERE name = 'few'",
    )
    with pytest.raises(SourceError) as caught:
        _count_and_read(database)
    assert caught.value.code == "corrupt"


def _count_and_read(path: Path) -> None:
    with open_snapshot(str(path)) as snapshot:
        _ = snapshot.count
        everything(snapshot)


def test_a_pipe_or_a_directory_instead_of_a_file(database: Path) -> None:
    for suffix in ("", "-wal", "-journal", "-shm"):
        database.unlink(missing_ok=True)
        fill(database, 3)
        other = database.with_name(database.name + suffix)
        other.unlink(missing_ok=True)
        os.mkfifo(other)
        assert refused(database) == "not_a_file"
        other.unlink()
        other.mkdir()
        assert refused(database) == "not_a_file"
        other.rmdir()
        other.symlink_to("/etc/passwd" if suffix else "/dev/zero")
        assert refused(database) == "not_a_file"
        other.unlink()


@pytest.mark.long
def test_the_fuzzer_finds_nothing_in_some_seconds() -> None:
    """The same program with more seconds is the long run; it prints its seed."""
    fuzzer = Path(__file__).with_name("fuzz.py")
    done = subprocess.run(
        [sys.executable, str(fuzzer), "--seconds", "12"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no crash" in done.stdout
