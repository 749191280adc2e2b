"""`init` and `demo`: the first minutes."""

from __future__ import annotations

import os
import pwd
import sqlite3
import tomllib
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def _mode(path: str) -> int:
    return Path(path).stat().st_mode & 0o777


def test_init_writes_two_private_files_that_work(run: Run) -> None:
    ended = run("init", "here")
    assert ended.code == 0
    assert _mode("here/rubix-token-sync.toml") == _mode("here/azure_sql_connection.txt") == 0o600
    text = Path("here/rubix-token-sync.toml").read_text()
    assert "batch_size" in text
    tomllib.loads(text)
    ended = run("check", "--config", "here/rubix-token-sync.toml", "--json")
    ended.error(2, "connection_placeholder")


def test_init_leaves_what_exists_unless_forced(run: Run) -> None:
    Path("azure_sql_connection.txt").write_text("mine")
    Path("azure_sql_connection.txt").chmod(0o644)
    ended = run("init")
    assert "azure_sql_connection.txt exists; left as it is" in ended.out
    assert Path("azure_sql_connection.txt").read_text() == "mine"
    run("init", "--force")
    assert Path("azure_sql_connection.txt").read_text() != "mine"
    assert _mode("azure_sql_connection.txt") == 0o600


def test_init_where_nothing_can_be_made(run: Run) -> None:
    Path("file").touch()
    ended = run("init", "file/below")
    assert ended.code == 2
    assert "cannot be made" in ended.err


def test_init_for_a_service_fills_what_it_is_given(
    run: Run, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    own = pwd.getpwuid(os.getuid()).pw_name
    Path("given.txt").write_text("sqlite:///service.db\n")
    (tmp_path / "nodes").mkdir()
    before = os.umask(0o077)
    request.addfinalizer(lambda: os.umask(before))
    ended = run(
        "init", "--system", "etc", "--user", own, "--connection", "given.txt",
        "--set", f"roots={tmp_path}/nodes", "--set", "source_ip=vm1", "--set", "BATCH_SIZE=500",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert f"Wrote etc/settings.toml (mode 600, owner {own})." in ended.out
    assert "Test it: " in ended.out
    assert "Edit" not in ended.out
    held = tomllib.loads(Path("etc/settings.toml").read_text())
    assert _mode("etc") == 0o755
    assert held == {"roots": [f"{tmp_path}/nodes"], "source_ip": "vm1", "batch_size": 500}
    assert Path("etc/azure_sql_connection.txt").read_text() == "sqlite:///service.db\n"
    assert _mode("etc/settings.toml") == _mode("etc/azure_sql_connection.txt") == 0o600
    assert run("check", "--config", "etc/settings.toml", "-q").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "batch_size=0"), "from 1 to 20,000"),
        (("--set", "batchsize=5"), "batch_size"),
        (("--set", "batch_size"), "NAME=VALUE"),
        (("--set", "target=postgresql://u:hunter2@h/d"), "[setting_secret]"),
        (("--set", "alert_urls=json://hunter2"), "[setting_secret]"),
        (("--user", "nobody-here"), "[bad_user_name]"),
        (("--connection", "given.txt"), "[unknown_target]"),
    ],
)
def test_init_refuses_and_writes_nothing(run: Run, arguments: tuple[str, ...], said: str) -> None:
    Path("given.txt").write_text("what hunter2 is this")
    ended = run("init", "--system", "etc", *arguments)
    assert ended.code == 2
    assert said in ended.err
    assert "hunter2" not in ended.err + ended.out
    assert not Path("etc").exists()


def test_demo_makes_and_syncs_a_fleet(run: Run) -> None:
    ended = run("demo", "d", "--nodes", 2, "--tokens", 50)
    assert ended.code == 0, ended.err
    with closing(sqlite3.connect("d/rubix-tokens.db")) as db:
        kinds = "SELECT network, token_kind, count(*) FROM TokenRecords GROUP BY 1, 2"
        assert set(db.execute(kinds)) == {
            ("main", "rbt", 100), ("main", "ft", 100), ("main", "nft", 4), ("main", "data", 4),
            ("main", "contract", 2), ("test", "rbt", 20),
        }  # fmt: skip
    # Nothing of it is wrong.
    found = run("audit", "--target", "sqlite:///d/rubix-tokens.db", "--json").document
    assert (found["open"]["warning"], found["open"]["error"]) == (0, 0)
    # The command that it shows does what it says.
    line = next(line for line in ended.out.splitlines() if "rubix-token-sync verify" in line)
    assert run(*line.split()[1:]).code == 0
    again = run("demo", "d", "--json").document
    assert (again["total_databases_unchanged"], again["tokens_read"]) == (4, 0)
    assert again["records_by_kind"] == {"rbt": 120, "ft": 100, "nft": 4, "data": 4, "contract": 2}


def test_demo_does_not_touch_a_fleet_that_is_not_its_own(run: Run) -> None:
    Path("d/fleet").mkdir(parents=True)
    ended = run("demo", "d")
    assert ended.code == 2
    assert list(Path("d").rglob("*")) == [Path("d/fleet")]


def test_the_module_is_the_program(start: Run, nodes: Path) -> None:
    ended = start("sync", nodes, "--target", "sqlite:///m.db", "--json")
    assert ended.code == 0
    assert ended.document["records_inserted"] == 120
