"""What is said, where, and what never is."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import PROGRAM, Run, clean_environment

TARGET = ("--target", "sqlite:///t.db", "--source-ip", "10.0.0.4")
SECRET = "Tr0ub4dor&3 }x%"  # with everything that has to be encoded somewhere


def test_quiet_says_nothing_when_all_is_well(run: Run, nodes: Path) -> None:
    for command in ("sync", "verify", "retry-failed"):
        ended = run(command, nodes, *TARGET, "--quiet")
        assert (ended.code, ended.out, ended.err) == (0, "", ""), command


def test_quiet_still_tells_what_is_wrong(run: Run, broken: Path) -> None:
    ended = run("sync", broken, *TARGET, "-q")
    assert ended.out == ""
    assert "ERROR node003: " in ended.err
    assert len(ended.err.splitlines()) == 1


def test_verbose_adds_the_trace_of_an_error(run: Run) -> None:
    short, long = run("sync", "nowhere"), run("sync", "nowhere", "--verbose")
    assert "Traceback" not in short.err
    assert "Traceback" in long.err
    assert short.err.splitlines()[1] == "Error: nowhere is not a directory. [no_such_root]"


def test_a_run_in_a_few_lines(run: Run, nodes: Path) -> None:
    ended = run("sync", nodes, *TARGET)
    lines = ended.err.splitlines()
    assert len(lines) < 10  # sessions, plan, progress, one line a database: none a token
    assert sum("Progress:" in line for line in lines) >= 1
    assert "node001" in ended.out
    assert "Report: " in ended.out


def test_names_from_disk_are_not_read_as_markup(run: Run, nodes: Path) -> None:
    (nodes / "node001").rename(nodes / "[red]x")
    ended = run("sync", nodes, *TARGET)
    assert "[red]x" in ended.out


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_file(run: Run, broken: Path, form: str) -> None:
    run("sync", broken, *TARGET, "-q", "--log-file", "run.log", "--log-format", form)
    lines = Path("run.log").read_text().splitlines()
    assert any("Progress:" in line for line in lines)  # what is normal, though the screen is quiet
    if form == "json":
        events = [json.loads(line) for line in lines]
        assert {"session_started", "planned", "progress", "database_processed",
                "database_failed"} <= {event["event"] for event in events}  # fmt: skip


def test_secrets_are_in_no_output(start: Run, nodes: Path, tmp_path: Path) -> None:
    from urllib.parse import quote

    url = f"postgresql://user:{quote(SECRET, safe='')}@127.0.0.1:1/db?connect_timeout=1"
    file = tmp_path / "target.txt"
    file.write_text(url)
    file.chmod(0o600)
    odbc = tmp_path / "odbc.txt"
    odbc.write_text(
        "Server=tcp:127.0.0.1,1;Database=d;Uid=u;Pwd={"
        + SECRET.replace("}", "}}")
        + "};Encrypt=no;Connection Timeout=1"
    )
    odbc.chmod(0o600)
    for name in (file, odbc):
        for command in ("sync", "check", "verify"):
            ended = start(
                command, nodes, "--target-file", name, "--verbose", "--json", "--log-file",
                "run.log", "--retry-attempts", 1, "--ipfs-timeout", 1,
                RUBIX_SYNC_IPFS_API_TOKEN="bearer:0123456789abcdef",
            )  # fmt: skip
            assert ended.code == 3, ended.err
            said = ended.out + ended.err + Path("run.log").read_text()
            for form in (SECRET, quote(SECRET, safe=""), quote(SECRET), "0123456789abcdef"):
                assert form not in said
            assert json.dumps(SECRET)[1:-1] not in said


@pytest.mark.parametrize(
    "arguments", [["schema", "show"], ["sync", "--help"], ["--help"], ["discover"]]
)
def test_a_reader_that_leaves_is_no_error(arguments: list[str], nodes: Path) -> None:
    for number in range(200):  # more than a pipe holds
        (nodes / f"extra{number:03}" / "Rubix").mkdir(parents=True)
        (nodes / f"extra{number:03}" / "Rubix" / "rubix.db").touch()
    roots = [str(nodes)] if arguments == ["discover"] else []
    with subprocess.Popen(
        [*PROGRAM, *arguments, *roots],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment(),
    ) as program:  # fmt: skip
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.close()
        lines = program.stderr.read().splitlines()
        assert [x for x in lines if not x.startswith(b"Settings file: none.")] == []
    assert program.returncode == 141


def test_times_of_files_of_a_node_do_not_change(run: Run, nodes: Path) -> None:
    def state() -> list[tuple[str, int, int]]:
        return sorted(
            (str(path), os.stat(path).st_mtime_ns, os.stat(path).st_size)
            for path in [nodes, *nodes.rglob("*")]
        )

    before = state()
    for command in ("sync", "verify", "check", "discover", "retry-failed"):
        assert run(command, nodes, *(TARGET if command != "discover" else ())).code == 0
    assert state() == before


def test_a_dry_run_leaves_nothing(run: Run, nodes: Path) -> None:
    assert run("sync", nodes, *TARGET, "--dry-run").code == 0
    assert list(Path().iterdir()) == []


def test_reading_commands_leave_one_file(run: Run, nodes: Path) -> None:
    run("sync", nodes, *TARGET)
    for arguments in (["verify", nodes], ["sync", nodes, "--dry-run", "--force"]):
        assert run(*arguments, *TARGET).code == 0
        assert [p.name for p in Path().iterdir() if p.name.startswith("t.db")] == ["t.db"]
    assert Path("t.db").stat().st_mode & 0o777 == 0o600
