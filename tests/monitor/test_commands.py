"""status, sessions, databases, errors: their numbers are those that plain SQL gives."""

from __future__ import annotations

import csv
import io
import json
import stat
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from rubix_token_sync.ipfs.content import CONTENT_LIMIT
from rubix_token_sync.targets.sql.target import SqlTarget

from .conftest import Answer

Ask = Callable[..., Answer]


def rows(store: SqlTarget, sql: str) -> list[Any]:
    with store.engine.connect() as conn:
        return list(conn.execute(sa.text(sql)))


def change(store: SqlTarget, sql: str, **values: Any) -> None:
    with store.engine.begin() as conn:
        assert conn.execute(sa.text(sql), values).rowcount > 0


def age_session(store: SqlTarget, seconds: float, *, status: str = "RUNNING") -> None:
    """The newest session as one that began and was last heard of so long ago."""
    sessions = store.tables.sessions
    then = store.server_time() - timedelta(seconds=seconds)
    newest = sa.select(sa.func.max(sessions.c.start_time)).scalar_subquery()
    with store.engine.begin() as conn:
        conn.execute(
            sa.update(sessions)
            .where(sessions.c.start_time == newest)
            .values(
                status=status,
                start_time=then,
                heartbeat_at=then,
                end_time=None if status == "RUNNING" else then,
                host="vm1.example",
                pid=4711,
            )
        )


# --- databases ------------------------------------------------------------------


def test_databases_are_those_of_the_fleet(
    ask: Ask, synced: Path, expected: dict[str, list[dict[str, Any]]]
) -> None:
    found = ask("databases", "--json")
    assert found.exit_code == 1, "three databases cannot be processed"
    assert found.json["ok"] is False
    by_path = {d["db_path"]: d for d in found.json["databases"]}
    for path, tokens in expected.items():
        row = by_path[str(synced / path)]
        assert row["state"] == "current"
        assert row["error"] is None
        small = [t for t in tokens if len(t["content"] or "") <= 2 * CONTENT_LIMIT]
        with_content = sum(t["content"] is not None for t in small)
        missing = sum(row["content_failures"].values())
        assert row["record_count"] == len(tokens)
        assert row["ipfs_success_count"] == with_content
        assert row["ipfs_fail_count"] == missing == len(tokens) - with_content
    failed = {d["node_name"]: d["error"]["code"] for d in by_path.values() if d["error"]}
    assert failed == {
        "node037": "no_tokens_table",
        "node038": "not_a_database",
        "node039": "empty_file",
    }


def test_database_reasons_are_counted_by_the_server(
    ask: Ask, synced: Path, store: SqlTarget
) -> None:
    told: Counter[tuple[str, str]] = Counter()
    for row in ask("databases", "--json").json["databases"]:
        for code, count in row["content_failures"].items():
            told[row["node_name"], code] += count
    held = Counter(
        (node, error.partition(":")[0])
        for node, error in rows(
            store, "SELECT node_name, ipfs_error FROM TokenRecords WHERE ipfs_error IS NOT NULL"
        )
    )
    assert told == held
    assert held[("node034", "no_repository")] == 20


def test_filters_leave_the_others_out(ask: Ask, synced: Path) -> None:
    one = ask("databases", "--node", "node032", "--json")
    assert one.exit_code == 0, "only a healthy node was asked for"
    assert [d["node_name"] for d in one.json["databases"]] == ["node032"]
    two = ask("databases", "--node", "node032", "--node", "node038", "--json").json["databases"]
    assert [d["node_name"] for d in two] == ["node032", "node038"]
    assert len(ask("sessions", "--source", "vm1", "--json").json["sessions"]) == 1
    recent = ask("databases", "--since", "1h", "--json").json["databases"]
    assert len(recent) == 6, "those that never succeeded are older than anything"


def test_an_unchanged_database_grows_no_older(
    ask: Ask, synced: Path, store: SqlTarget, tmp_path: Path
) -> None:
    databases = store.tables.databases
    old = store.server_time() - timedelta(days=3)
    with store.engine.begin() as conn:
        conn.execute(sa.update(databases).values(last_processed=old, last_seen_at=old))
    late = ask("databases", "--max-age", "26h", "--node", "node032", "--json")
    assert late.exit_code == 1
    assert [d["state"] for d in late.json["databases"]] == ["overdue"]
    ask("sync", str(synced), "--source-ip", "vm1", "--report", str(tmp_path / "reports"))
    fresh = ask("databases", "--max-age", "26h", "--node", "node032", "--json")
    assert fresh.exit_code == 0
    assert fresh.json["databases"][0]["age_seconds"] < 60
    assert fresh.json["databases"][0]["last_processed"] < fresh.json["databases"][0][
        "last_success_at"
    ]  # fmt: skip


# --- sessions -------------------------------------------------------------------


def test_sessions_have_the_guides_rates(ask: Ask, synced: Path, store: SqlTarget) -> None:
    """The guide's performance summary, from a session whose times are known."""
    sessions = store.tables.sessions
    now = store.server_time()
    with store.engine.begin() as conn:
        conn.execute(
            sa.update(sessions).values(
                start_time=now - timedelta(seconds=200),
                end_time=now - timedelta(seconds=100),
                total_records_processed=38_720,
                total_ipfs_success=34_848,
            )
        )
    document = ask("sessions", "--json").json
    (session,) = document["sessions"]
    assert session["duration_seconds"] == 100
    assert session["records_per_second"] == 387.2
    assert session["ipfs_success_rate"] == 90.0
    assert session["status"] == "COMPLETED"
    assert document["trend"] == {
        "runs": 1,
        "completed": 1,
        "failed": 0,
        "interrupted": 0,
        "running": 0,
        "success_rate": 100.0,
        "median_duration_seconds": 100.0,
        "median_records_per_second": 387.2,
        "rates": [387.2],
    }


def test_sessions_by_status_and_age(ask: Ask, synced: Path, store: SqlTarget) -> None:
    age_session(store, 7200, status="FAILED")
    assert ask("sessions", "--status", "FAILED", "--json").json["trend"]["failed"] == 1
    assert ask("sessions", "--status", "completed", "--json").json["sessions"] == []
    assert ask("sessions", "--since", "1h", "--json").json["sessions"] == []
    assert len(ask("sessions", "--since", "3h", "--json").json["sessions"]) == 1


# --- status ---------------------------------------------------------------------


def test_all_is_well(ask: Ask, fleet: Path, tmp_path: Path) -> None:
    done = ask("sync", str(fleet / "node032"), "--source-ip", "vm1", "--report", str(tmp_path))
    assert done.exit_code == 0
    found = ask("status", "--max-age", "26h", "--json")
    assert found.exit_code == 0
    assert found.json["ok"] is True
    assert found.json["problems"] == []
    (source,) = found.json["sources"]
    assert source["source_ip"] == "vm1"
    assert source["record_count"] == source["ipfs_success_count"] == 120
    assert source["age_seconds"] < 60
    assert "All is well." in ask("status").out


def test_failed_databases_are_problems(ask: Ask, synced: Path) -> None:
    found = ask("status", "--json")
    assert found.exit_code == found.json["exit_code"] == 1
    problems = {
        (p["severity"], p["code"], p["node_name"], p["detail"]) for p in found.json["problems"]
    }
    assert problems == {
        ("error", "database_failed", "node037", "no_tokens_table"),
        ("error", "database_failed", "node038", "not_a_database"),
        ("error", "database_failed", "node039", "empty_file"),
        # Below the threshold, or of nodes that have no repository: shown, with what to do.
        ("warning", "content_missing", "node034", "no_repository"),
        ("warning", "content_missing", "node035", "damaged"),
        ("warning", "content_missing", "node041", "no_repository"),
    }
    assert all(p["cure"] for p in found.json["problems"] if p["code"] == "content_missing")


@pytest.mark.parametrize(("silent", "stuck"), [(40, False), (65, True)])
def test_a_silent_run_is_stuck_by_the_servers_clock(
    ask: Ask, synced: Path, store: SqlTarget, silent: int, stuck: bool
) -> None:
    age_session(store, silent)
    document = ask("status", "--json").json
    (run,) = document["running"]
    assert run["stuck"] is stuck
    assert run["heartbeat_age_seconds"] == pytest.approx(silent, abs=5)
    codes = [p["code"] for p in document["problems"]]
    assert ("stuck" in codes) is stuck
    table = ask("status").out
    assert ("STUCK" in table) is stuck
    assert "4711" in table
    wider = ask("status", "--stuck-after", "2m", "--json").json
    assert wider["running"][0]["stuck"] is False


@pytest.mark.parametrize("ended", ["FAILED", "INTERRUPTED"])
def test_a_last_run_that_ended_badly_is_a_problem_until_the_next(
    ask: Ask, fleet: Path, store: SqlTarget, tmp_path: Path, ended: str
) -> None:
    sync = ("sync", str(fleet / "node032"), "--source-ip", "vm1", "--report", str(tmp_path))
    assert ask(*sync).exit_code == 0
    age_session(store, 600, status=ended)
    found = ask("status", "--json")
    assert found.exit_code == 1
    assert [p["code"] for p in found.json["problems"]] == [f"last_run_{ended.lower()}"]
    assert ask(*sync).exit_code == 0
    assert ask("status").exit_code == 0


def test_overdue_nodes_and_machines(
    ask: Ask, fleet: Path, store: SqlTarget, tmp_path: Path
) -> None:
    ask("sync", str(fleet / "node032"), "--source-ip", "vm1", "--report", str(tmp_path))
    databases = store.tables.databases
    with store.engine.begin() as conn:
        old = store.server_time() - timedelta(hours=30)
        conn.execute(sa.update(databases).values(last_seen_at=old))
    assert ask("status").exit_code == 0, "without --max-age no age is too high"
    found = ask("status", "--max-age", "26h", "--json")
    assert found.exit_code == 1
    (problem,) = found.json["problems"]
    assert (problem["code"], problem["node_name"]) == ("overdue", "node032")
    assert "30.0 hours" in problem["message"]
    assert ask("status", "--max-age", "2d").exit_code == 0


def test_a_target_that_nobody_synced_into(ask: Ask, target: str) -> None:
    found = ask("status", "--json")
    assert found.exit_code == 3
    code = found.json["error"]["code"]
    assert code == ("target_absent" if target.startswith("sqlite") else "schema_missing")
    if target.startswith("sqlite"):
        assert not Path(target.removeprefix("sqlite:///")).exists(), "asking made a file"


# --- errors ---------------------------------------------------------------------


def test_errors_are_the_guides_queries(ask: Ask, synced: Path, store: SqlTarget) -> None:
    document = ask("errors", "--since", "24h", "--json").json
    told = [
        tuple(node[name] for name in
              ("node_name", "total_records", "ipfs_success", "ipfs_failures", "validation_errors"))
        for node in document["nodes"]
    ]  # fmt: skip
    fetched = "SUM(CASE WHEN ipfs_error IS NULL THEN 1 ELSE 0 END)"
    held = rows(
        store,
        f"SELECT node_name, COUNT(*), {fetched}, COUNT(*) - {fetched},"
        " SUM(CASE WHEN validation_errors IS NOT NULL THEN 1 ELSE 0 END)"
        " FROM TokenRecords GROUP BY node_name ORDER BY COUNT(*) DESC, node_name",
    )
    assert sorted(told) == sorted(tuple(row) for row in held)
    assert [t[1] for t in told] == sorted((t[1] for t in told), reverse=True)
    common = Counter(
        row[0].partition(":")[0]
        for row in rows(store, "SELECT ipfs_error FROM TokenRecords WHERE ipfs_error IS NOT NULL")
    )
    assert {reason["code"]: reason["count"] for reason in document["content"]} == common
    assert document["content"][0]["code"] == common.most_common(1)[0][0]
    assert document["content"][0]["example"]["message"].startswith(document["content"][0]["code"])
    # Without --since the answer comes from the marks; it is the same.
    assert ask("errors", "--json").json["nodes"] == document["nodes"]


def test_validation_codes_are_counted_as_their_json_says(
    ask: Ask, synced: Path, store: SqlTarget
) -> None:
    held: Counter[str] = Counter()
    texts = rows(
        store, "SELECT validation_errors FROM TokenRecords WHERE validation_errors IS NOT NULL"
    )
    for (text,) in texts:
        held.update({entry["code"] for entry in json.loads(text)})
    document = ask("errors", "--category", "validation", "--json").json
    assert {r["code"]: r["count"] for r in document["validation"]} == held
    assert document["content"] == []
    for reason in document["validation"]:
        assert reason["code"] in reason["example"]["message"]


def test_a_value_cannot_pose_as_a_code(ask: Ask, synced: Path, store: SqlTarget) -> None:
    forged = json.dumps([{"code": "did_malformed", "field": "did", "message": "x",
                          "value": '"code":"level_invalid"'}], separators=(",", ":"))  # fmt: skip
    before = {
        r["code"]: r["count"]
        for r in ask("errors", "--category", "validation", "--json").json["validation"]
    }
    change(
        store,
        "UPDATE TokenRecords SET validation_errors = :text WHERE node_name = 'node032'"
        " AND id = (SELECT MIN(id) FROM TokenRecords WHERE node_name = 'node032')",
        text=forged,
    )
    after = {
        r["code"]: r["count"]
        for r in ask("errors", "--category", "validation", "--json").json["validation"]
    }
    assert after == {**before, "did_malformed": before["did_malformed"] + 1}


def test_another_programs_texts_are_told_too(ask: Ask, synced: Path, store: SqlTarget) -> None:
    """Rows of the earlier script: free text in both columns."""
    records = store.tables.records
    with store.engine.begin() as conn:
        conn.execute(
            sa.update(records)
            .where(records.c.node_name == "node032")
            .values(validation_errors="Invalid DID", ipfs_fetched=False, ipfs_error="lock conflict")
        )
    document = ask("errors", "--node", "node032", "--since", "24h", "--json").json
    assert [(r["code"], r["count"]) for r in document["content"]] == [("lock conflict", 120)]
    assert [(r["code"], r["count"]) for r in document["validation"]] == [("other", 120)]


def test_events_by_category_and_limit(ask: Ask, synced: Path) -> None:
    document = ask("errors", "--category", "database", "--json").json
    assert {(e["category"], e["code"]) for e in document["events"]} == {
        ("database", "no_tokens_table"),
        ("database", "not_a_database"),
        ("database", "empty_file"),
    }
    assert document["nodes"] == document["content"] == document["validation"] == []
    assert len(ask("errors", "--limit", "1", "--json").json["content"]) == 1


def test_vanished_records_are_no_errors(ask: Ask, synced: Path, store: SqlTarget) -> None:
    change(
        store, "UPDATE TokenRecords SET source_deleted_at = synced_at WHERE node_name = 'node034'"
    )
    nodes = {e["example"]["node_name"] for e in ask("errors", "--json").json["content"]}
    assert nodes
    assert ask("errors", "--since", "24h", "--node", "node034", "--json").json["content"] == []


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_export_holds_every_error(
    ask: Ask, synced: Path, store: SqlTarget, tmp_path: Path, form: str
) -> None:
    file = tmp_path / f"errors.{form}"
    told = ask("errors", "--export", str(file), "--json").json["exported"]
    text = file.read_text(encoding="utf-8")
    lines = (
        list(csv.DictReader(io.StringIO(text, newline="")))
        if form == "csv"
        else [json.loads(line) for line in text.splitlines()]
    )
    assert told == {"file": str(file), "lines": len(lines)}
    kinds = Counter(line["kind"] for line in lines)
    content = rows(store, "SELECT COUNT(*) FROM TokenRecords WHERE ipfs_error IS NOT NULL")[0][0]
    events = rows(store, "SELECT COUNT(*) FROM SyncErrors")[0][0]
    codes = sum(
        len(json.loads(text))
        for (text,) in rows(
            store, "SELECT validation_errors FROM TokenRecords WHERE validation_errors IS NOT NULL"
        )
    )
    assert kinds == {"content": content, "event": events, "validation": codes}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    hostile = "Q'; DROP TABLE TokenRecords;--"
    assert any(line["token_id"] == hostile for line in lines), "hostile ids come through unharmed"


def test_export_in_blocks_repeats_and_loses_nothing(
    ask: Ask, synced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, blocks = tmp_path / "whole.jsonl", tmp_path / "blocks.jsonl"
    ask("errors", "--export", str(whole))
    monkeypatch.setattr("rubix_token_sync.monitor.export._BLOCK", 7)
    ask("errors", "--export", str(blocks))
    assert blocks.read_text() == whole.read_text()
    assert len(whole.read_text().splitlines()) > 21


def test_csv_is_no_formula(ask: Ask, synced: Path, store: SqlTarget, tmp_path: Path) -> None:
    change(
        store,
        "UPDATE TokenRecords SET token_id = '=HYPERLINK(\"http://x\")' WHERE node_name = 'node041'",
    )
    file = tmp_path / "errors.csv"
    ask("errors", "--node", "node041", "--export", str(file))
    with file.open(newline="") as lines:
        cells = [cell for row in csv.reader(lines) for cell in row]
    assert '\'=HYPERLINK("http://x")' in cells
    assert not any(cell.startswith("=") for cell in cells)


def test_export_into_nowhere(ask: Ask, synced: Path, tmp_path: Path) -> None:
    found = ask("errors", "--export", str(tmp_path / "no" / "such.csv"), "--json")
    assert found.exit_code == 2
    assert found.json["error"]["code"] == "export_unwritable"


# --- forms ----------------------------------------------------------------------


@pytest.mark.parametrize("command", ["status", "sessions", "databases", "errors"])
def test_csv_has_the_keys_of_json(ask: Ask, synced: Path, command: str) -> None:
    document = ask(command, "--json").json
    lists = {
        "status": document.get("problems"),
        "sessions": document.get("sessions"),
        "databases": document.get("databases"),
        "errors": [
            *document.get("content", []),
            *document.get("validation", []),
            *document.get("events", []),
        ],
    }
    read = list(csv.DictReader(io.StringIO(ask(command, "--csv").out)))
    assert len(read) == len(lists[command])
    assert list(read[0]) == list(lists[command][0])


@pytest.mark.parametrize("command", ["sessions", "databases", "errors"])
def test_quiet_says_nothing(ask: Ask, synced: Path, command: str) -> None:
    answer = ask(command, "--quiet")
    assert (answer.out, answer.err) == ("", "")


def test_quiet_status_says_only_what_its_exit_code_comes_from(ask: Ask, synced: Path) -> None:
    answer = ask("status", "--quiet")
    assert (answer.exit_code, answer.err) == (1, "")
    assert [line[:9] for line in answer.out.splitlines()[:3]] == [
        "✗ node037", "✗ node038", "✗ node039",
    ]  # fmt: skip
    assert "records processed" not in answer.out


def test_both_forms_at_once_are_refused(ask: Ask, synced: Path) -> None:
    assert ask("status", "--json", "--csv").exit_code == 2


@pytest.mark.parametrize("age", ["", "24", "h", "-1h", "1y", "9999999w"])
def test_ages_that_are_none(ask: Ask, synced: Path, age: str) -> None:
    answer = ask("errors", "--since", age)
    assert answer.exit_code == 2
    assert "age" in answer.err or "hundred years" in answer.err


def test_terminals_are_not_written_by_names_from_disk(
    ask: Ask, synced: Path, store: SqlTarget
) -> None:
    change(
        store,
        "UPDATE ProcessedDatabases SET node_name = :name WHERE node_name = 'node032'",
        name="\x1b[2J[bold]x",
    )
    table = ask("databases").out
    assert "\x1b" not in table
    assert r"\x1b[2J[bold]x" in table


def test_asking_writes_nothing(ask: Ask, synced: Path, target: str, store: SqlTarget) -> None:
    before = {
        table.name: rows(store, f"SELECT * FROM {table.name}") for table in store.tables.all()
    }
    for command in ("status", "sessions", "databases", "errors"):
        ask(command)
    after = {table.name: rows(store, f"SELECT * FROM {table.name}") for table in store.tables.all()}
    assert after == before
