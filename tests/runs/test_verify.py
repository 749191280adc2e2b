"""verify: equal after a sync, and every change behind its back is found, by its letter."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from rubix_token_sync.audit.judging import JudgeFiles
from rubix_token_sync.errors import SchemaError
from rubix_token_sync.records.schema import RECORD_SCHEMA
from rubix_token_sync.runs.compare import _COMPARED
from rubix_token_sync.runs.jobs import Difference
from rubix_token_sync.runs.result import RunOptions
from rubix_token_sync.runs.sync import sync
from rubix_token_sync.runs.verify import Verification, repair, verify
from rubix_token_sync.testing import (
    FlatfsWriter,
    change_status,
    create_database,
    delete_tokens,
    encode_file,
    sized_content,
    write_block,
)

from .conftest import run_options

Options = Callable[..., RunOptions]

# In one statement each; the row that is changed is one with content.
ROW = "WHERE id = (SELECT id FROM TokenRecords WHERE ipfs_fetched ORDER BY id LIMIT 1 OFFSET 7)"


def _change(target: Path, statement: str) -> None:
    with closing(sqlite3.connect(target)) as db, db:
        assert db.execute(statement).rowcount > 0


def _verify(options: RunOptions) -> tuple[Verification, list[Difference]]:
    found: list[Difference] = []
    result = verify(replace(options, command="verify"), on_difference=found.append)
    assert Counter(difference.letter for difference in found) == result.differences
    return result, found


@pytest.fixture
def synced(options: Options) -> RunOptions:
    made = options()
    sync(made)
    result, found = _verify(made)
    assert (result.exit_code, found) == (0, [])
    assert (result.databases, result.records) == (3, 240)
    return made


@pytest.fixture(scope="module")
def synced_file(made_fleet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target that equals the made fleet: only to be copied."""
    file = tmp_path_factory.mktemp("synced") / "tokens.db"
    sync(run_options(made_fleet, file))
    assert _verify(run_options(made_fleet, file))[1] == []
    return file


@pytest.fixture
def copied(made_fleet: Path, synced_file: Path, target_file: Path) -> RunOptions:
    """The same fleet, which is only to be read, and a copy of its target."""
    target_file.parent.mkdir()
    shutil.copy(synced_file, target_file)
    return run_options(made_fleet, target_file)


@pytest.mark.parametrize(
    "column",
    [name for name in RECORD_SCHEMA.names if name not in ("ipfs_fetched", "record_key")],
)
def test_a_change_of_any_column_is_found(
    copied: RunOptions, target_file: Path, column: str
) -> None:
    value = {
        "row_digest": "zeroblob(16)",
        "created_at": "'2024-01-01 00:00:00.000000'",
        "updated_at": "'2024-01-01 00:00:00.000000'",
        "db_last_modified": "'2024-01-01 00:00:00.000000'",
        "token_level": "1",
        "token_number": "1",
    }.get(column, f"coalesce({column}, '') || 'x'")
    _change(target_file, f"UPDATE TokenRecords SET {column} = {value} {ROW}")
    result, found = _verify(copied)
    if column in ("ipfs_error", "db_last_modified"):  # they say when and why, not what
        assert (result.exit_code, found) == (0, [])
        return
    assert result.exit_code == 5
    (difference,) = found
    assert difference.columns == (column,)
    assert difference.letter == ("c" if column in ("ipfs_data", "validation_errors") else "*")


@pytest.mark.parametrize(
    ("column", "value"),
    [("did", "x'ff'"), ("created_at", "'soon'"), ("created_at", "5"), ("token_level", "'high'")],
)
def test_a_value_of_another_type_is_a_difference_and_repaired(
    copied: RunOptions, target_file: Path, column: str, value: str
) -> None:
    """SQLite stores anything in any column."""
    _change(target_file, f"UPDATE TokenRecords SET {column} = {value} {ROW}")
    result, found = _verify(copied)
    assert (result.exit_code, [difference.columns for difference in found]) == (5, [(column,)])
    mended = repair(replace(copied, command="verify"), on_difference=lambda _: None)
    assert mended.exit_code == 0
    assert _verify(copied)[0].exit_code == 0


def test_what_nobody_has_judged_yet_is_no_difference(copied: RunOptions, target_file: Path) -> None:
    """A sync of a few tokens does not build the tables, a later run may have them."""
    unjudged = "verdict = NULL, verdict_source = NULL, token_level = NULL, token_number = NULL"
    _change(target_file, f"UPDATE TokenRecords SET {unjudged}")
    result, found = _verify(copied)
    assert (result.exit_code, found) == (0, [])


def test_where_nobody_can_judge_any_more_no_verdict_differs(
    synced: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No memory for the tables of token numbers: it is warned of, and proves nothing."""

    def refuse(_files: JudgeFiles) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(JudgeFiles, "open", refuse)
    result, found = _verify(synced)
    assert (result.exit_code, found) == (0, [])


def test_how_an_earlier_version_worded_a_finding_is_no_difference(
    synced: RunOptions, target_file: Path, small_fleet: Path
) -> None:
    with closing(sqlite3.connect(next(small_fleet.rglob("rubix.db")))) as db, db:
        db.execute("UPDATE TokensTable SET did = NULL WHERE rowid = 1")
    assert sync(synced).status == "COMPLETED"
    earlier = "replace(validation_errors, 'did is missing', 'there is no did')"
    _change(target_file, f"UPDATE TokenRecords SET validation_errors = {earlier}")
    result, found = _verify(synced)
    assert (result.exit_code, found) == (0, [])
    other = "replace(validation_errors, 'did_missing', 'did_malformed')"
    _change(target_file, f"UPDATE TokenRecords SET validation_errors = {other}")
    assert [difference.columns for difference in _verify(synced)[1]] == [("validation_errors",)]


def test_every_column_is_compared_or_named_here() -> None:
    assert set(RECORD_SCHEMA.names) - set(_COMPARED) == {
        "record_key", "ipfs_error", "db_last_modified",
    }  # fmt: skip


def test_content_that_is_said_not_to_be_there(copied: RunOptions, target_file: Path) -> None:
    _change(target_file, f"UPDATE TokenRecords SET ipfs_data = NULL, ipfs_fetched = 0 {ROW}")
    result, found = _verify(copied)
    assert [(d.letter, d.columns) for d in found] == [("c", ("ipfs_data", "ipfs_fetched"))]
    assert result.exit_code == 5


def test_a_record_under_another_key(copied: RunOptions, target_file: Path) -> None:
    _change(
        target_file,
        "UPDATE TokenRecords SET record_key = CAST(substr(record_key, 1, 8) || zeroblob(16)"
        f" AS BLOB) {ROW}",
    )
    result, found = _verify(copied)
    assert sorted(d.letter for d in found) == ["+", "-"]
    assert result.exit_code == 5


def test_two_records_with_their_keys_exchanged(copied: RunOptions, target_file: Path) -> None:
    with closing(sqlite3.connect(target_file)) as db, db:
        query = "SELECT id, record_key FROM TokenRecords ORDER BY record_key LIMIT 2"
        (one, key), (two, other) = db.execute(query).fetchall()
        db.execute("UPDATE TokenRecords SET record_key = x'00' WHERE id = ?", (one,))
        db.execute("UPDATE TokenRecords SET record_key = ? WHERE id = ?", (key, two))
        db.execute("UPDATE TokenRecords SET record_key = ? WHERE id = ?", (other, one))
    _, found = _verify(copied)
    assert [d.letter for d in found] == ["*", "*"]


def test_a_record_too_many(copied: RunOptions, target_file: Path) -> None:
    columns = [name for name in (*RECORD_SCHEMA.names, "synced_at") if name != "record_key"]
    for suffix in ("00", "ff"):
        with closing(sqlite3.connect(target_file)) as db, db:
            db.execute(
                f"INSERT INTO TokenRecords (record_key, {', '.join(columns)})"
                f" SELECT CAST(substr(record_key, 1, 8) || x'{suffix * 16}' AS BLOB),"
                f" {', '.join(columns)} FROM TokenRecords {ROW}"
            )
    _, found = _verify(copied)
    assert [d.letter for d in found] == ["-", "-"]


@pytest.mark.parametrize(
    "statement", ["DELETE FROM TokenRecords", "UPDATE TokenRecords SET source_deleted_at = '2024'"]
)
def test_a_record_too_few(copied: RunOptions, target_file: Path, statement: str) -> None:
    _change(target_file, f"{statement} {ROW}")
    result, found = _verify(copied)
    assert [d.letter for d in found] == ["+"]
    assert result.exit_code == 5


def test_what_a_node_changed_since(synced: RunOptions, small_fleet: Path) -> None:
    path = str(small_fleet / "node001/Rubix/rubix.db")
    changed, lost = set(change_status(path, 0.1)), set(delete_tokens(path, 0.1, seed=2))
    _, found = _verify(synced)
    assert {(d.letter, d.token_id) for d in found} == {("*", t) for t in changed - lost} | {
        ("-", t) for t in lost
    }
    assert {d.columns for d in found if d.letter == "*"} == {("row_digest", "token_status")}
    sync(synced)
    assert _verify(synced)[0].exit_code == 0


def test_nodes_that_are_new_gone_or_broken(
    synced: RunOptions, small_fleet: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_fleet / "node001", small_fleet / "node009")
    (small_fleet / "node002").rename(tmp_path / "aside")
    (small_fleet / "node003/Rubix/rubix.db").write_bytes(b"broken")
    result, found = _verify(synced)
    assert {d.letter for d in found} == {"+"}
    assert Counter(d.table for d in found) == {"TokenRecords": 80, "NodeDids": 100}
    assert [Path(state.db_path).parents[1].name for state in result.missing] == ["node002"]
    assert [Path(path).parents[1].name for path, _ in result.failed] == ["node003"]
    assert result.exit_code == 5


def test_what_cannot_be_compared_is_no_difference(synced: RunOptions, small_fleet: Path) -> None:
    (small_fleet / "node003/Rubix/rubix.db").write_bytes(b"broken")
    result, found = _verify(synced)
    assert (found, result.exit_code) == ([], 1)
    # Of a database that was never stored, the target rightly holds nothing.
    extra = small_fleet / "extra/Rubix/rubix.db"
    extra.parent.mkdir(parents=True)
    extra.write_bytes(b"broken")
    (small_fleet / "node003/Rubix/rubix.db").unlink()
    shutil.rmtree(small_fleet / "node003")
    result, _ = _verify(synced)
    assert [path for path, _ in result.unreadable] == [str(extra)]


def test_content_that_only_the_target_still_has(
    options: Options, small_fleet: Path, target_file: Path
) -> None:
    """It is proven by the id alone; what was chunked in an unusual way cannot be, and is told."""
    home = small_fleet / "big"
    small = write_block(home / ".ipfs", b"small content of one block")
    chunked, blocks = encode_file(sized_content(1, 1, 40_000), chunk=10_000)
    FlatfsWriter(home / ".ipfs").put(blocks)
    rows = [(token, "", 1.0, "d", 0, "", "", 0) for token in (small, chunked)]
    create_database(home / "Rubix/rubix.db", rows)
    only = options(nodes=frozenset({"big"}))
    assert sync(only).counters.ipfs_success == 2
    shutil.rmtree(home / ".ipfs/blocks")
    (home / ".ipfs/blocks").mkdir()
    _, found = _verify(only)
    assert [(d.letter, d.token_id) for d in found] == [("c", chunked)]
    where = f"WHERE token_id = '{small}'"
    _change(target_file, f"UPDATE TokenRecords SET ipfs_data = 'tampered' {where}")
    _, found = _verify(only)
    assert {(d.letter, d.token_id) for d in found} == {("c", small), ("c", chunked)}


def test_workers_in_processes_find_the_same(synced: RunOptions, target_file: Path) -> None:
    _change(target_file, f"UPDATE TokenRecords SET did = 'x' {ROW}")
    one, found = _verify(synced)
    two, also = _verify(replace(synced, processes=2))
    assert found == also
    assert (one.exit_code, two.exit_code) == (5, 5)


def test_no_target_is_told(options: Options, target_file: Path) -> None:
    with pytest.raises(SchemaError):
        _verify(options())
    assert not target_file.exists()


def test_another_sources_records_are_none_of_its_business(
    synced: RunOptions, options: Options, target_file: Path
) -> None:
    sync(options(source="10.0.0.5"))
    _change(
        target_file,
        "DELETE FROM TokenRecords WHERE id = (SELECT max(id) FROM TokenRecords"
        " WHERE source_ip = '10.0.0.5')",
    )
    assert _verify(synced)[0].exit_code == 0
    assert _verify(options(source="10.0.0.5"))[0].exit_code == 5
