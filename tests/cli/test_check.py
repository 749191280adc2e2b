"""`check` names each thing that a run would fail of, and leaves nothing behind."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.errors import TargetRefused
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.cli.conftest import Ended, Run
from tests.targets.parts import part_with

TARGET = ("--target", "sqlite:///t.db", "--source-ip", "10.0.0.4")


def _failed(ended: Ended) -> dict[str, str]:
    return {check["name"]: check["code"] for check in ended.document["checks"] if not check["ok"]}


def _detail(ended: Ended, name: str) -> str:
    return str({check["name"]: check["detail"] for check in ended.document["checks"]}[name])


def test_all_well_and_nothing_left_behind(run: Run) -> None:
    ended = run("check", *TARGET, "--json")
    assert (ended.code, _failed(ended)) == (0, {})
    with closing(sqlite3.connect("t.db")) as db:
        for table in ("TokenRecords", "ProcessedDatabases", "SyncSessions", "SyncLeases"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
    assert run("check", *TARGET).out.endswith("Everything a run needs is there.\n")


def test_a_schema_of_a_later_version(run: Run) -> None:
    run("check", *TARGET)
    with closing(sqlite3.connect("t.db")) as db, db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    ended = run("check", *TARGET, "--json")
    assert (ended.code, _failed(ended)) == (3, {"schema": "schema_newer"})


@pytest.mark.parametrize(
    ("method", "check"),
    [
        ("describe_connection", "connection"),
        ("ensure", "schema"),
        ("server_time", "clock"),
        ("publish", "load"),
        ("retire_database", "load"),
    ],
)
def test_a_right_that_is_missing(
    run: Run, monkeypatch: pytest.MonkeyPatch, method: str, check: str
) -> None:
    def refuse(*_args: Any) -> None:
        raise TargetRefused("The server says no.", code="denied", remedy="Ask for the right.")

    monkeypatch.setattr(part_with(method), method, refuse)
    ended = run("check", *TARGET, "--json")
    assert (ended.code, _failed(ended)) == (3, {check: "denied"})
    monkeypatch.undo()
    said = run("check", "--target", "sqlite:///missing/t.db").out
    assert "FAIL connection" in said
    assert said.endswith("Not ready.\n")


def test_a_clock_that_is_wrong_is_told_and_no_failure(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SqlTarget.server_time
    monkeypatch.setattr(
        SqlTarget, "server_time", lambda store: original(store) - timedelta(hours=1)
    )
    ended = run("check", *TARGET, "--json")
    assert ended.code == 0
    assert "differs from the server's by +3600 s" in _detail(ended, "clock")


def test_a_warning_is_not_shown_as_ok(run: Run, nodes: Path) -> None:
    shutil.rmtree(nodes / "node001" / ".ipfs")
    ended = run("check", nodes, *TARGET)
    assert ended.code == 0
    assert ended.out.startswith("warn node node001: ")
    assert "[no_repository]\n     Restore or mount" in ended.out
    assert ended.out.endswith("Everything a run needs is there; see the warnings above.\n")
    strict = run("check", nodes, *TARGET, "--strict", "--json")
    assert (strict.code, _failed(strict)) == (1, {"node node001": "no_repository"})


def test_roots_without_nodes_are_a_warning(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = run("check", tmp_path / "empty", *TARGET)
    assert (ended.code, ended.out.partition("\n")[0]) == (
        0, f"warn discovery: no node database was found below {tmp_path}/empty [no_nodes]",
    )  # fmt: skip
    strict = run("check", tmp_path / "empty", *TARGET, "--strict", "--json")
    assert (strict.code, _failed(strict)) == (1, {"discovery": "no_nodes"})


def test_a_run_under_way_is_told(run: Run) -> None:
    run("check", *TARGET)
    now = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
    with closing(sqlite3.connect("t.db")) as db, db:
        db.execute(
            "INSERT INTO SyncLeases (source_ip, session_id, holder, acquired_at, heartbeat_at)"
            f" VALUES ('10.0.0.4', '{'0' * 32}', 'elsewhere|boot|1|1', {now}, {now})"
        )
    ended = run("check", *TARGET, "--json")
    assert ended.code == 0
    assert "is under way" in _detail(ended, "lease")


def test_each_node_by_itself(run: Run, nodes: Path) -> None:
    shutil.rmtree(nodes / "node002/.ipfs")
    (nodes / "node003/Rubix").mkdir(parents=True)
    (nodes / "node003/Rubix/rubix.db").touch()
    ended = run("check", nodes, *TARGET, "--json")
    assert (ended.code, _failed(ended)) == (1, {"node node003": "empty_file"})
    assert "60 RBT; content of 1" in _detail(ended, "node node001")
    assert "no_repository" in _detail(ended, "node node002")
    assert "3 databases" in _detail(ended, "discovery")


def test_settings_are_named_with_where_they_come_from(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_SIZE", "123")
    detail = _detail(run("check", *TARGET, "--json"), "settings")
    assert "BATCH_SIZE (environment: BATCH_SIZE)" in detail
    assert "target (flag: --target)" in detail
