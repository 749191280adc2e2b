"""The fixture fleet, end to end by the command line: the target is what the truth says."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.records.content_text import decode_content
from tests.chaos.door import Door, Finished
from tests.incidents.nodes import execute, look

_CODES = {
    "no repository": "no_repository",
    "not in this repository": "not_in_repository",
    "block damaged: hash differs": "damaged",
}
"""The truth's reasons in this program's codes."""

_TOO_LARGE = "content over 50 KB"

_FINDINGS = {
    "token id is no CID": "token_id_not_cid",
    "token id missing": "token_id_missing",
    "token id too long": "token_id_too_long",
}
_BROKEN = {"node037": "no_tokens_table", "node038": "not_a_database", "node039": "empty_file"}


class Tool:
    """The program over one fleet and one target."""

    def __init__(self, door: Door, fleet: Path, home: Path) -> None:
        self._door, self.fleet, self._home = door, fleet, home
        self.target = home / "target.db"

    def run(self, command: str, *more: str) -> Finished:
        reports = ("--report", str(self._home / "reports")) if command == "sync" else ()
        return self._door.run(
            command, str(self.fleet), "--target", f"sqlite:///{self.target}",
            "--source-ip", "10.1.2.3", "--json", *reports, *more,
        )  # fmt: skip

    def sync(self, *more: str) -> dict[str, Any]:
        return self.run("sync", *more).expect(1).document  # three databases are broken

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.target}?mode=ro", uri=True)) as db:
            return db.execute(query, values).fetchall()

    def tamper(self, statement: str, *values: object) -> int:
        with closing(sqlite3.connect(self.target)) as db, db:
            return db.execute(statement, values).rowcount

    def stored(self) -> dict[int, tuple[Any, ...]]:
        """Every record by its id, times included."""
        return {row[0]: row for row in self.rows("SELECT * FROM TokenRecords")}


@pytest.fixture
def tool(door: Door, fleet: Path, tmp_path: Path) -> Tool:
    return Tool(door, fleet, tmp_path)


@pytest.fixture(scope="module")
def synced(door: Door, unpacked_fleet: Path, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """The fleet, synced and found equal: only to be copied."""
    tool = Tool(door, unpacked_fleet, tmp_path_factory.mktemp("synced"))
    tool.sync()
    _assert_equal(tool)
    return tool


def _code(truth: dict[str, Any]) -> str | None:
    reason = truth["ipfs_error"]
    if truth["invalid"] == _TOO_LARGE:
        return "too_large_to_store"
    if truth["content"] is not None:
        return None
    if reason is None:
        return "no_cid"  # an id that is none has no content, and that is why
    return _CODES[reason]


def _expected_records(truth: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    found: Counter[tuple[Any, ...]] = Counter()
    for token in truth:
        content = None if token["invalid"] == _TOO_LARGE else token["content"]  # the guide's limit
        ident = token["token_id"]
        found[
            ident[:500] if ident is not None else None,
            bytes.fromhex(content) if content is not None else None,
            _code(token),
            str(token["status"]) if token.get("status") is not None else None,
        ] += 1
    return found


def _assert_equal(tool: Tool) -> None:
    """Nothing differs; three databases cannot be read, so that 0 would say too much."""
    found = tool.run("verify").expect(1).document
    assert set(found["differences"].values()) == {0}
    assert len(found["unreadable_databases"]) == len(_BROKEN)


def test_every_token_is_stored_as_the_truth_says(
    tool: Tool, expected: dict[str, list[dict[str, Any]]]
) -> None:
    before = look(tool.fleet)
    report = tool.sync()
    assert look(tool.fleet) == before

    assert report["total_records_processed"] == sum(map(len, expected.values())) == 373
    for path, truth in expected.items():
        rows = tool.rows(
            "SELECT token_id, ipfs_data, ipfs_error, token_status, ipfs_fetched, source_ip,"
            " node_name, validation_errors FROM TokenRecords WHERE db_path = ?",
            str(tool.fleet / path),
        )
        found: Counter[tuple[Any, ...]] = Counter()
        for ident, data, error, status, fetched, source, node, _ in rows:
            content = decode_content(data) if data is not None else None
            assert bool(fetched) == (content is not None)
            assert (error is None) == (content is not None)
            assert source == "10.1.2.3"
            assert node == Path(path).parents[1].name
            code = error.partition(": ")[0] if error is not None else None
            if not any("status" in t for t in truth if t["token_id"] == ident):
                status = None  # the truth does not tell
            found[ident, content, code, status] += 1
        assert found == _expected_records(truth), path

    # What is invalid, and nothing else about ids.
    for path, truth in expected.items():
        told = {
            (ident, finding["code"])
            for ident, text in tool.rows(
                "SELECT token_id, validation_errors FROM TokenRecords"
                " WHERE db_path = ? AND validation_errors IS NOT NULL",
                str(tool.fleet / path),
            )
            for finding in json.loads(text)
            if finding["code"].startswith("token_id")
        }
        invalid = {
            (t["token_id"][:500] if t["token_id"] else t["token_id"], _FINDINGS[t["invalid"]])
            for t in truth
            if t["invalid"] in _FINDINGS
        }
        assert invalid <= told, path
        valid = {t["token_id"] for t in truth if t["invalid"] not in _FINDINGS}
        assert not {ident for ident, _ in told} & valid, path

    failed = {d["node_name"]: d["reason"] for d in report["databases"] if d["status"] == "failed"}
    assert failed == _BROKEN
    _assert_equal(tool)


def test_second_run_reads_nothing_and_each_change_changes_its_record_only(tool: Tool) -> None:
    tool.sync()
    first = tool.stored()
    again = tool.sync()
    assert (again["tokens_read"], again["total_databases_processed"]) == (0, 0)
    assert tool.stored() == first

    path = tool.fleet / "node032" / "Rubix" / "rubix.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        tokens = [row[0] for row in db.execute("SELECT token_id FROM TokensTable LIMIT 3")]
    added = "QmTQsnvbSCoqxQjcgX2MahN1DRcpipMt3xxaCC11Qim3Nf"

    def step(statement: str, *, inserted: int = 0, updated: int = 0, vanished: int = 0) -> set[int]:
        before = tool.stored()
        execute(path, statement)
        untouched = look(tool.fleet)
        report = tool.sync()
        assert look(tool.fleet) == untouched
        counts = [report[f"records_{what}"] for what in ("inserted", "updated", "vanished")]
        assert counts == [inserted, updated, vanished]
        _assert_equal(tool)
        after = tool.stored()
        assert before.keys() <= after.keys()
        return {ident for ident in after if after[ident] != before.get(ident)}

    def ids_of(token: str) -> set[int]:
        query = "SELECT id FROM TokenRecords WHERE db_path = ? AND token_id = ?"
        return {row[0] for row in tool.rows(query, str(path), token)}

    changed = step(
        f"UPDATE TokensTable SET token_status = 15 - token_status WHERE token_id = '{tokens[0]}'",
        updated=1,
    )
    assert changed == ids_of(tokens[0])
    changed = step(
        f"UPDATE TokensTable SET token_value = 0.0375 WHERE token_id = '{tokens[1]}'", updated=1
    )
    assert changed == ids_of(tokens[1])
    assert tool.rows(
        "SELECT token_value FROM TokenRecords WHERE db_path = ? AND token_id = ?",
        str(path), tokens[1],
    ) == [("0.0375",)]  # fmt: skip
    changed = step(
        f"INSERT INTO TokensTable (token_id, token_value, did, token_status)"
        f" SELECT '{added}', 1.0, did, 0 FROM TokensTable LIMIT 1",
        inserted=1,
    )
    assert changed == ids_of(added)
    changed = step(f"DELETE FROM TokensTable WHERE token_id = '{tokens[2]}'", vanished=1)
    assert changed == ids_of(tokens[2])
    gone = tool.rows("SELECT token_id FROM TokenRecords WHERE source_deleted_at IS NOT NULL")
    assert gone == [(tokens[2],)]
    # It comes back: the same record, alive again.
    step(
        f"INSERT INTO TokensTable (token_id, token_value, did, token_status)"
        f" SELECT '{tokens[2]}', 1.0, did, 0 FROM TokensTable LIMIT 1",
        updated=1,
    )
    assert len(ids_of(tokens[2])) == 1


_COPIED = "source_ip, node_name, did, token_status, db_path, db_last_modified, row_digest"
_TAMPERED = {
    "status": ("UPDATE TokenRecords SET token_status = 'x' WHERE id = 7", "changed"),
    "value": ("UPDATE TokenRecords SET token_value = token_value || '0' WHERE id = 7", "changed"),
    "did": ("UPDATE TokenRecords SET did = NULL WHERE id = 7", "changed"),
    "node": ("UPDATE TokenRecords SET node_name = 'other' WHERE id = 7", "changed"),
    "content": ("UPDATE TokenRecords SET ipfs_data = ipfs_data || ' ' WHERE id = 7", "content"),
    "content gone": (
        "UPDATE TokenRecords SET ipfs_data = NULL, ipfs_fetched = 0 WHERE id = 7",
        "content",
    ),
    "row gone": ("DELETE FROM TokenRecords WHERE id = 7", "new"),
    "row marked deleted": (
        "UPDATE TokenRecords SET source_deleted_at = synced_at WHERE id = 7",
        "new",
    ),
    "row too many": (
        f"INSERT INTO TokenRecords (record_key, {_COPIED}, ipfs_fetched)"
        f" SELECT CAST(substr(record_key, 1, 8) || zeroblob(16) AS BLOB), {_COPIED}, 0"
        " FROM TokenRecords WHERE id = 7",
        "vanished",
    ),
    "row of no database": (
        f"INSERT INTO TokenRecords (record_key, {_COPIED}, ipfs_fetched)"
        f" SELECT randomblob(24), {_COPIED}, 0 FROM TokenRecords WHERE id = 7",
        "vanished",
    ),
}


@pytest.mark.parametrize("what", _TAMPERED)
def test_verify_finds_what_was_changed_behind_its_back(
    door: Door, synced: Tool, tmp_path: Path, what: str
) -> None:
    tool = Tool(door, synced.fleet, tmp_path)
    shutil.copy(synced.target, tool.target)
    statement, kind = _TAMPERED[what]
    assert tool.tamper(statement) == 1
    listed = tool.target.with_suffix(".differences")
    found = tool.run("verify", "--combined", str(listed)).expect(5).document
    counts = found["differences"]
    assert counts[kind] == 1, counts
    assert sum(counts.values()) == 1
    assert len(listed.read_text(encoding="utf-8").splitlines()) == 1


def test_verify_finds_a_source_that_moved_on(tool: Tool) -> None:
    tool.sync()
    path = tool.fleet / "node032" / "Rubix" / "rubix.db"
    execute(
        path,
        "UPDATE TokensTable SET token_status = token_status + 1 WHERE rowid = 1",
        "DELETE FROM TokensTable WHERE rowid = 2",
    )
    found = tool.run("verify").expect(5).document
    assert found["differences"] == {"new": 0, "vanished": 1, "changed": 1, "content": 0}
    os.unlink(path)
    tool.run("verify").expect(5)
