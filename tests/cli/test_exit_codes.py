"""What a monitor acts on: the exit code of every end."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from rubix_token_sync.testing import FleetPlan, change_status, make_fleet
from tests.cli.conftest import PROGRAM, Run, clean_environment

TARGET = ("--target", "sqlite:///t.db", "--source-ip", "10.0.0.4")


def _change(statement: str) -> None:
    with closing(sqlite3.connect("t.db")) as db, db:
        db.execute(statement)


def test_0_done_though_content_is_missing(run: Run, nodes: Path) -> None:
    assert run("sync", nodes, *TARGET).code == 0
    assert run("sync", nodes, *TARGET).code == 0
    assert run("verify", nodes, *TARGET).code == 0
    assert run("check", nodes, *TARGET).code == 0
    assert run("discover", nodes).code == 0
    assert run("retry-failed", nodes, *TARGET).code == 0
    assert run("sync", nodes, *TARGET, "--dry-run").code == 0


def test_1_a_database_was_left_undone(run: Run, broken: Path) -> None:
    for more in ([], ["--dry-run"], ["--force"]):
        assert run("sync", broken, *TARGET, *more).code == 1
    assert run("check", broken, *TARGET).code == 1
    # The target rightly holds nothing of it, but it was not compared (incident 21).
    assert run("verify", broken, *TARGET).code == 1
    shutil.copyfile(broken / "node003/Rubix/rubix.db", broken / "node001/Rubix/rubix.db")
    assert run("verify", broken, *TARGET).code == 1


def test_1_a_database_is_gone(run: Run, nodes: Path) -> None:
    run("sync", nodes, *TARGET)
    shutil.rmtree(nodes / "node001")
    assert run("sync", nodes, *TARGET).code == 1
    assert run("sync", nodes, *TARGET, "--node", "node002").code == 0
    assert run("sync", nodes, *TARGET, "--allow-shrink").code == 0
    assert run("sync", nodes, *TARGET).code == 0


def test_1_most_of_a_database_is_gone(run: Run, nodes: Path) -> None:
    run("sync", nodes, *TARGET)
    with closing(sqlite3.connect(nodes / "node001/Rubix/rubix.db")) as db, db:
        db.execute("DELETE FROM TokensTable WHERE rowid > 10")
    ended = run("sync", nodes, *TARGET)
    assert ended.code == 1
    assert "--allow-shrink" in ended.err
    assert run("sync", nodes, *TARGET, "--allow-shrink").code == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["sync", "nowhere"], "no_such_root"),
        (["check", "nowhere"], "no_such_root"),
        (["verify", "nowhere"], "no_such_root"),
        (["discover", "nowhere"], "no_such_root"),
        (["sync", "--nonsense"], "usage"),
        (["sync", "--batch-size", "many"], "usage"),
        (["sync", "--batch-size", "0"], "setting_invalid"),
        (["sync", "--profile", "best"], "usage"),
        (["sync", "--target", "oracle://x"], "unknown_target"),
        (["sync", "--target", "sqlite:///a?b"], "bad_sqlite_url"),
        (["sync", "--target", "sqlite:///a#b"], "bad_sqlite_url"),
        (["sync", "--target-file", "nowhere"], "target_file_missing"),
        (["sync", "--target", "sqlite:///a", "--target-file", "b"], "target_twice"),
        (["sync", "--config", "nowhere.toml"], "config_unreadable"),
        (["sync", "--log-file", "/nowhere/log"], "log_file_unwritable"),
        (["sync", "--node", "nobody"], "no_such_node"),
        (["verify", "--target", "sqlite:///t.db", "--combined", "/nowhere/list"],
         "combined_unwritable"),
        (["demo", "demo", "--nodes", "x"], "usage"),
    ],
)  # fmt: skip
def test_2_usage_and_settings(run: Run, arguments: list[str], code: str) -> None:
    error = run(*arguments, "--json").error(2, code)
    assert error["message"]


def test_2_an_unknown_command(run: Run) -> None:
    ended = run("snyc")
    assert ended.code == 2
    assert "Unknown command 'snyc'. Did you mean 'sync'?" in ended.err


def test_2_a_report_that_could_not_be_written_is_told_before_anything_is_done(
    run: Run, nodes: Path
) -> None:
    Path("file").touch()
    error = run("sync", nodes, *TARGET, "--report", "file/reports", "--json")
    error.error(2, "report_unwritable")
    assert not Path("t.db").exists()
    # A dry run writes none.
    assert run("sync", nodes, *TARGET, "--report", "file/reports", "--dry-run").code == 0


def test_3_the_target_refuses(run: Run, nodes: Path) -> None:
    where = ("--target", "sqlite:///missing/t.db")
    error = run("sync", nodes, *where, "--json").error(3, "cannot_open")
    assert "directory" in error["message"]
    assert "mkdir" in error["remedy"]
    run("verify", nodes, *where, "--json").error(3, "cannot_open")
    run("sync", nodes, *where, "--dry-run", "--json").error(3, "cannot_open")
    run("verify", nodes, *TARGET, "--json").error(3, "schema_missing")
    assert run("check", *where).code == 3
    Path("text.db").write_text("this is no database, and longer than a header of one " * 5)
    run("sync", nodes, "--target", "sqlite:///text.db", "--json").error(3, "damaged_target")


def test_3_a_server_that_is_not_there(run: Run, nodes: Path) -> None:
    ended = run(
        "sync", nodes, "--target", "postgresql://u@127.0.0.1:1/db", "--retry-attempts", 1, "--json"
    )
    assert ended.code == 3
    assert ended.document["error"]["category"] == "database"


def test_4_another_run_is_under_way(run: Run, nodes: Path) -> None:
    run("sync", nodes, *TARGET)
    now = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
    _change(
        "INSERT INTO SyncLeases (source_ip, session_id, holder, acquired_at, heartbeat_at) VALUES"
        f" ('10.0.0.4', '{'0' * 32}', 'elsewhere|boot|1|1', {now}, {now})"
    )
    error = run("sync", nodes, *TARGET, "--json").error(4, "lease_held")
    assert "elsewhere" in error["message"]
    assert run("sync", nodes, "--target", "sqlite:///t.db", "--source-ip", "other").code == 0
    assert run("sync", nodes, *TARGET, "--dry-run").code == 0
    assert run("verify", nodes, *TARGET).code == 0


def test_5_verify_found_differences(run: Run, nodes: Path) -> None:
    run("sync", nodes, *TARGET)
    change_status(nodes / "node001/Rubix/rubix.db", 0.1)
    assert run("verify", nodes, *TARGET).code == 5
    assert run("verify", nodes, *TARGET, "--quiet").code == 5
    assert run("verify", nodes, *TARGET, "--node", "node002").code == 0
    run("sync", nodes, *TARGET)
    assert run("verify", nodes, *TARGET).code == 0


@pytest.fixture(scope="module")
def long_fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough to be in the middle of it for a while, in worker processes."""
    directory = tmp_path_factory.mktemp("long") / "fleet"
    make_fleet(directory, FleetPlan(nodes=2, tokens_per_node=10_000))
    return directory


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
@pytest.mark.parametrize("whole_group", [False, True], ids=["alone", "group"])
def test_130_and_143_stopped_by_a_signal(
    long_fleet: Path, run: Run, number: signal.Signals, code: int, whole_group: bool
) -> None:
    program = subprocess.Popen(
        [*PROGRAM, "sync", str(long_fleet), *TARGET, "--batch-size", "50",
         "--bulk-insert-size", "50"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment(),
        start_new_session=True,
    )  # fmt: skip
    assert program.stderr is not None
    for line in program.stderr:
        if "Progress:" in line:
            break
    (os.killpg if whole_group else os.kill)(program.pid, number)
    out, err = program.communicate(timeout=60)
    assert program.returncode == code, err
    assert "Stopping after the chunk under way" in err
    assert "Traceback" not in err
    assert out.startswith("Node")  # what was done until then is told
    assert [path.name for path in Path().iterdir() if path.name.startswith("t.db")] == ["t.db"]
    with closing(sqlite3.connect("t.db")) as db:
        assert db.execute("SELECT status FROM SyncSessions").fetchall() == [("INTERRUPTED",)]
        assert db.execute("SELECT * FROM SyncLeases").fetchall() == []
    (report,) = Path("reports").glob("*.json")
    assert '"INTERRUPTED"' in report.read_text()


def test_a_second_signal_ends_it_at_once(nodes: Path) -> None:
    """The writer stands still in the middle of a transaction; nothing but the second helps."""
    os.mkfifo("passed")
    passed = os.open("passed", os.O_RDWR)  # also for writing: it has no end then
    with subprocess.Popen(
        [*PROGRAM, "sync", str(nodes), *TARGET],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**clean_environment(), "RUBIX_SYNC_FAULT": "store.publish:1:stall",
             "RUBIX_SYNC_FAULT_LOG": "passed"},
    ) as program, open(passed) as points:  # fmt: skip
        assert program.stderr is not None
        assert any(line.endswith(" store.publish\n") for line in points)
        program.send_signal(signal.SIGINT)
        assert any("Stopping after the chunk under way" in line for line in program.stderr)
        program.send_signal(signal.SIGINT)
        assert any("Stopped at once" in line for line in program.stderr)
    assert program.returncode == 130
