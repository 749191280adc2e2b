"""--json: one document on stdout; its keys are a contract and pinned here."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rubix_token_sync.testing import change_status
from tests.cli.conftest import Run

TARGET = ("--target", "sqlite:///t.db", "--source-ip", "10.0.0.4")

REPORT = {
    "report_version", "program_version", "command", "dry_run", "session_id", "source_ip", "target",
    "status", "exit_code", "start_time", "duration_seconds", "total_databases_found",
    "total_databases_processed", "total_databases_unchanged", "total_databases_failed",
    "total_records_processed", "records_per_second", "tokens_read", "records_inserted",
    "records_updated", "records_vanished", "records_rejected", "total_ipfs_success",
    "total_ipfs_failures", "ipfs_success_rate", "content_by_way", "content_failures",
    "content_healed", "total_validation_errors", "sql_success_rate", "total_sql_errors",
    "sql_batches", "sql_bulk_loads", "sql_retries", "dead_sessions_found", "databases", "skipped",
    "errors",
}  # fmt: skip
DATABASE = {
    "db_path", "node_name", "status", "reason", "records", "read", "inserted", "updated",
    "vanished", "rejected", "ipfs_success", "ipfs_failures", "validation_errors", "seconds",
    "chains_unread",
}  # fmt: skip
CHECKS = [
    "settings", "connection", "schema", "clock", "source", "lease", "load", "discovery",
]  # fmt: skip


def test_sync_retry_and_dry_run(run: Run, broken: Path) -> None:
    told = run("sync", broken, *TARGET, "--dry-run", "--json").document
    did = run("sync", broken, *TARGET, "--json").document
    again = run("retry-failed", broken, *TARGET, "--json").document
    for document, command in ((told, "sync"), (did, "sync"), (again, "retry-failed")):
        assert document.keys() >= REPORT
        assert document["command"] == command
        assert {frozenset(d) for d in document["databases"]} <= {frozenset(DATABASE)}
    assert told["session_id"] is None
    assert told["dry_run"] is True
    assert told["exit_code"] == did["exit_code"] == 1
    assert [e["code"] for e in did["errors"]] == ["not_a_database"]
    kept = json.loads(Path(did["report_file"]).read_text())
    del did["report_file"]
    did.pop("page_file", None)
    assert kept == did
    assert len(list(Path("reports").glob("*.json"))) == 2  # none of the dry run


def test_the_report_agrees_with_the_target(run: Run, nodes: Path) -> None:
    told = run("sync", nodes, *TARGET, "--json").document
    with closing(sqlite3.connect("t.db")) as db:
        (row,) = db.execute(
            "SELECT total_databases_found, total_databases_processed, total_records_processed,"
            " total_ipfs_success, total_ipfs_failures, total_validation_errors, total_sql_errors"
            " FROM SyncSessions"
        ).fetchall()
    names = ("databases_found", "databases_processed", "records_processed", "ipfs_success",
             "ipfs_failures", "validation_errors", "sql_errors")  # fmt: skip
    assert row == tuple(told[f"total_{name}"] for name in names)
    assert told["total_records_processed"] == 120
    assert told["total_ipfs_failures"] == sum(told["content_failures"].values()) > 0
    assert told["ipfs_success_rate"] == round(told["total_ipfs_success"] * 100 / 120, 2)


def test_verify(run: Run, broken: Path) -> None:
    run("sync", broken, *TARGET)
    changed = change_status(broken / "node001/Rubix/rubix.db", 0.5)
    ended = run("verify", broken, *TARGET, "--json", "--combined", "list.txt")
    told = ended.document
    assert told.keys() == {
        "equal", "exit_code", "target", "duration_seconds", "databases", "records", "differences",
        "unverified_content", "chains_unread", "missing_databases", "failed_databases",
        "unreadable_databases", "unread_directories", "problems", "examples", "repaired",
    }  # fmt: skip
    assert (told["equal"], told["exit_code"], ended.code) == (False, 5, 5)
    assert told["differences"] == {"new": 0, "vanished": 0, "changed": 30, "content": 0}
    assert (told["databases"], told["records"]) == (2, 120)
    assert len(told["examples"]) == 20
    assert told["examples"][0].keys() == {"letter", "db_path", "token_id", "table", "columns"}
    assert [d.keys() for d in told["unreadable_databases"]] == [{"db_path", "code", "message"}]
    lines = Path("list.txt").read_text().splitlines()
    path = broken / "node001/Rubix/rubix.db"
    assert sorted(lines) == sorted(
        f"* {path} {json.dumps(token)} row_digest,token_status" for token in changed
    )


def test_discover(run: Run, broken: Path) -> None:
    told = run("discover", broken, "--json").document
    assert told.keys() == {"roots", "nodes", "skipped", "notes"}
    assert [node["name"] for node in told["nodes"]] == ["node001", "node002", "node003"]
    assert told["nodes"][0].keys() == {"db_path", "name", "repository"}


def test_discover_shows_names_that_are_no_text(run: Run, start: Run, nodes: Path) -> None:
    odd = bytes(nodes) + b"/caf\xe9/Rubix"
    Path(odd.decode(errors="surrogateescape")).mkdir(parents=True)
    (Path(odd.decode(errors="surrogateescape")) / "rubix.db").touch()
    ended = start("discover", nodes, "--json", PYTHONUTF8="1")
    assert ended.code == 0
    (found,) = [node for node in ended.document["nodes"] if "caf" in node["name"]]
    assert found["name"] == "caf\\xe9"
    assert found["db_path"].endswith("caf%E9/Rubix/rubix.db")
    assert start("discover", odd.decode(errors="surrogateescape"), "--json").code == 0


def test_check(run: Run, broken: Path) -> None:
    ended = run("check", broken, *TARGET, "--json")
    told = ended.document
    assert told.keys() == {"ok", "exit_code", "checks"}
    assert (told["ok"], told["exit_code"], ended.code) == (False, 1, 1)
    assert told["checks"][0].keys() == {
        "name", "ok", "warning", "detail", "remedy", "code", "exit_code",
    }  # fmt: skip
    names = [check["name"] for check in told["checks"]]
    assert [name for name in names if not name.startswith(("node ", "note"))] == CHECKS
    assert {c["name"]: c["ok"] for c in told["checks"] if c["name"].startswith("node ")} == {
        "node node001": True, "node node002": True, "node node003": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("section", "arguments"),
    [
        ("discover", ["discover", "NODES"]), ("check", ["check", "NODES"]),
        ("verify", ["verify", "NODES"]), ("config", ["config", "show"]),
        ("config", ["explain", "busy"]), ("config", ["schema", "show"]),
    ],
)  # fmt: skip
def test_the_page_names_the_keys(run: Run, nodes: Path, section: str, arguments: list[str]) -> None:
    run("schema", "upgrade", *TARGET)
    words = [str(nodes) if word == "NODES" else word for word in arguments]
    told = run(*words, *(TARGET if arguments[0] in ("check", "verify") else ()), "--json").document
    page = (Path(__file__).parents[2] / "docs" / "JSON.md").read_text(encoding="utf-8")
    text = page.partition(f"\n## {section}")[2].partition("\n## ")[0]
    assert [key for key in told if f"`{key}`" not in text] == []


def test_schema(run: Run) -> None:
    shown = run("schema", "show", *TARGET, "--json").document
    assert shown.keys() == {"version", "ddl"}
    assert not Path("t.db").exists()
    made = run("schema", "upgrade", *TARGET, "--json").document
    assert made.keys() == {"target", "from", "to", "changed"}
    assert (made["from"], made["to"], made["changed"]) == (None, shown["version"], True)
    assert run("schema", "upgrade", *TARGET, "--json").document["changed"] is False
    # The printed DDL makes the same tables.
    with closing(sqlite3.connect("by_hand.db")) as db, closing(sqlite3.connect("t.db")) as own:
        db.executescript(shown["ddl"])
        tables = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
        assert db.execute(tables).fetchall() == own.execute(tables).fetchall()
    assert run("check", "--target", "sqlite:///by_hand.db").code == 0


@pytest.mark.parametrize("arguments", [["sync", "nowhere"], ["sync", "--nonsense"], ["nonsense"]])
def test_errors(run: Run, arguments: list[str]) -> None:
    told = run(*arguments, "--json").document
    assert told.keys() == {"ok", "exit_code", "error"}
    assert told["error"].keys() == {"code", "category", "message", "remedy"}


def test_stdout_holds_nothing_else(start: Run, nodes: Path) -> None:
    ended = start("sync", nodes, *TARGET, "--json", "--verbose")
    assert ended.document["exit_code"] == 0
    assert "Progress:" in ended.err
