"""Rows in digested batches: rows without an id are numbered, repeated ids left out."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.nodes.discovery import Node
from rubix_token_sync.nodes.snapshot import open_snapshot
from rubix_token_sync.records.schema import (
    ROW_DIGEST_BYTES,
    SourceRow,
    SqliteValue,
    digest_prefix,
    record_key,
    row_digest,
)
from rubix_token_sync.runs.row_reader import DigestedRows, RowReader
from tests.runs.makers import make_job

NODE_REPOSITORY = "/fleet/a/.ipfs"


def _database(path: Path, ids: list[SqliteValue]) -> Node:
    """A table without a primary key, as an older node may have it: one row an id."""
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE TokensTable (token_id, did, token_status)")
        rows = [(token, f"row {number}") for number, token in enumerate(ids)]
        db.executemany("INSERT INTO TokensTable VALUES (?, ?, 0)", rows)
    return Node(str(path), "a", NODE_REPOSITORY)


def _read(
    node: Node, batch_size: int, network: str = "main"
) -> tuple[list[SourceRow], bytes, list[bytes], RowReader]:
    """All batches together: rows, digests, record keys; and the reader for its counts."""
    job = make_job(node)
    with open_snapshot(node.db_path) as snapshot:
        reader = RowReader(job, snapshot, network, batch_size)
        rows: list[SourceRow] = []
        digests, keys = b"", b""
        for batch in reader:
            assert len(batch.digests) == ROW_DIGEST_BYTES * len(batch.rows)
            rows += batch.rows
            digests += batch.digests
            keys += batch.keys(job.database_key)
    split = [keys[i : i + 24] for i in range(0, len(keys), 24)]
    return rows, digests, split, reader


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_rows_without_id_are_numbered_across_batches(tmp_path: Path, batch_size: int) -> None:
    ids: list[SqliteValue] = [None, "a", None, None, "b", None]
    node = _database(tmp_path / "a/Rubix/rubix.db", ids)
    rows, digests, keys, reader = _read(node, batch_size)
    assert [row[0] for row in rows] == ids
    numbers = [0, 0, 1, 2, 0, 3]
    job = make_job(node)
    assert keys == [record_key(job.database_key, i, n) for i, n in zip(ids, numbers, strict=True)]
    prefix = digest_prefix("a", NODE_REPOSITORY, "rbt", "main")
    assert digests == b"".join(row_digest(prefix, r, n) for r, n in zip(rows, numbers, strict=True))
    assert (reader.distinct, reader.rejected, reader.errors()) == (6, 0, ())


def test_equal_rows_without_id_are_different_records(tmp_path: Path) -> None:
    path = tmp_path / "a/Rubix/rubix.db"
    node = _database(path, [])
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany("INSERT INTO TokensTable VALUES (NULL, 'same', 0)", [()] * 5)
    _, digests, keys, _ = _read(node, 2)
    assert len(set(keys)) == 5
    assert len({digests[i : i + 16] for i in range(0, len(digests), 16)}) == 5


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_first_row_of_an_id_is_the_record(tmp_path: Path, batch_size: int) -> None:
    ids: list[SqliteValue] = ["a", "b", "a", "c", "b", "a", b"a", 1, "1"]
    node = _database(tmp_path / "a/Rubix/rubix.db", ids)
    rows, _, keys, reader = _read(node, batch_size)
    assert [row[0] for row in rows] == ["a", "b", "c", b"a", 1, "1"]
    assert [row[1] for row in rows] == [f"row {n}" for n in (0, 1, 3, 6, 7, 8)]
    assert len(set(keys)) == len(keys) == reader.distinct == 6
    assert reader.rejected == 3
    (entry,) = reader.errors()
    assert (entry.category, entry.code, entry.occurrences) == (
        "validation",
        "duplicate_token_id",
        3,
    )
    assert all(f"'row {number}'" in str(entry.context) for number in (2, 4, 5))


def test_of_many_repeated_rows_only_some_are_listed(tmp_path: Path) -> None:
    node = _database(tmp_path / "a/Rubix/rubix.db", ["a"] * 500)
    _, _, _, reader = _read(node, 100)
    (entry,) = reader.errors()
    assert entry.occurrences == 499
    assert len(entry.context["rows"]) == 100


def test_digests_depend_on_every_value_and_on_the_node(tmp_path: Path) -> None:
    node = _database(tmp_path / "a/Rubix/rubix.db", ["a"])
    _, before, _, _ = _read(node, 10)
    with closing(sqlite3.connect(node.db_path)) as db, db:
        db.execute("UPDATE TokensTable SET token_status = '0'")
    _, after, _, _ = _read(node, 10)
    _, renamed, _, _ = _read(Node(node.db_path, "b", NODE_REPOSITORY), 10)
    _, moved, _, _ = _read(Node(node.db_path, "a", None), 10)
    _, elsewhere, _, _ = _read(node, 10, "test")
    assert len({before, after, renamed, moved, elsewhere}) == 5


def test_each_kind_has_ids_and_records_of_its_own(tmp_path: Path) -> None:
    node = _database(tmp_path / "a/Rubix/rubix.db", ["a", "b"])
    with closing(sqlite3.connect(node.db_path)) as db, db:
        db.execute("CREATE TABLE FTTokenTable (token_id, owner_did, token_status, ft_name)")
        db.execute("CREATE TABLE smartcontract (smart_contract_hash, deployer, contract_status)")
        db.executemany("INSERT INTO FTTokenTable VALUES (?, 'me', 4, 'GOLD')", ["a", "a", "c"])
        db.execute("INSERT INTO smartcontract VALUES ('a', 'you', 6)")
    for batch_size in (1, 100):
        rows, digests, keys, reader = _read(node, batch_size)
        assert [row[:2] for row in rows] == [
            ("a", "row 0"), ("b", "row 1"), ("a", "me"), ("c", "me"), ("a", "you"),
        ]  # fmt: skip
        assert (reader.distinct, reader.rejected) == (5, 1)
        assert len(set(keys)) == 5
        assert len({digests[i : i + 16] for i in range(0, len(digests), 16)}) == 5
        assert rows[2][-2:] == ("GOLD", None)


_ROWS = st.lists(st.sampled_from([None, "a", "b", "c"]), max_size=10)


def _digested(ids: list[str | None], first: int = 0) -> DigestedRows:
    numbers, nulls = {}, first
    for at, id_ in enumerate(ids):
        if id_ is None:
            numbers[at] = nulls
            nulls += 1
    rows: list[SourceRow] = [(id_, at) for at, id_ in enumerate(ids)]
    return DigestedRows(rows, b"".join(bytes([at]) * 16 for at in range(len(ids))), numbers)


def _listed(rows: DigestedRows) -> Iterator[tuple[SourceRow, bytes, bytes]]:
    keys = rows.keys(b"database")
    for at, row in enumerate(rows.rows):
        yield row, rows.digests[at * 16 : at * 16 + 16], keys[at * 24 : at * 24 + 24]


@given(_ROWS, _ROWS, st.data())
def test_taking_and_joining_keeps_rows_digests_and_numbers_together(
    left: list[str | None], right: list[str | None], data: st.DataObject
) -> None:
    one, two = _digested(left), _digested(right, first=left.count(None))
    whole = list(_listed(one.plus(two)))
    assert whole == [*_listed(one), *_listed(two)]
    positions = data.draw(st.sets(st.sampled_from(range(len(whole))))) if whole else set()
    chosen = sorted(positions)
    assert list(_listed(one.plus(two).take(np.array(chosen, np.int64)))) == [
        whole[at] for at in chosen
    ]
    assert list(_listed(DigestedRows.none().plus(one))) == list(_listed(one))
    assert list(_listed(one.plus(DigestedRows.none()))) == list(_listed(one))
