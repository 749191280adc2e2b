"""What a person at a terminal sees, and streams that take nothing."""

from __future__ import annotations

import json
import os
import pty
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

import rubix_token_sync as rts
from rubix_token_sync.cli import output
from rubix_token_sync.cli.terminal import bar_lines, print_problems
from tests.cli.conftest import PROGRAM, Run, clean_environment

TARGET = ("--target", "sqlite:///t.db", "--source-ip", "10.0.0.4")
EVIL = "a\x1b]0;owned\x07\x1b[2Kx\u202e=cmd"


class Screen:
    """A terminal of a width, as `output` sees it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("NO_COLOR", "1")


COLUMNS = [
    output.Column("Node"), output.Column("Records", right=True), output.Column("Age", 2),
    output.Column("Why", 1, wraps=True),
]  # fmt: skip
ROWS = [
    ["node001", "1,000", "3 h 5 min ago", "the database was busy for as long as it was looked at"],
    ["node002", "20", "1 d 2 h ago", ""],
]


@pytest.mark.parametrize("width", [30, 40, 60, 80, 200])
def test_a_table_fits_and_breaks_no_word(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Screen(monkeypatch, width)
    output.print_table(COLUMNS, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    words = {word for line in lines for word in line.split()}
    whole = {
        word for row in [[c.title for c in COLUMNS], *ROWS] for cell in row for word in cell.split()
    }
    assert words <= whole
    assert {"Node", "Records", "node001", "1,000", "node002"} <= words


def test_the_heaviest_columns_go_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Screen(monkeypatch, 45)
    output.print_table(COLUMNS, ROWS)
    out = capsys.readouterr().out
    assert "Why" in out
    assert "Age" not in out


def test_a_file_gets_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(COLUMNS, [["n" * 500, "1", "2", "w " * 400]])
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_problems_have_code_sentence_and_cure_and_are_grouped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_problems(
        [rts.Problem("database_failed", f"node{n:03}: busy", cure="Wait.") for n in range(50)]
        + [rts.Problem("content_missing", "5 of 9", detail="damaged", severity="warning")]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "✗ node000: busy [database_failed]"
    assert lines[3].strip().startswith("… and 47 more of this kind")
    assert lines[4] == "  Wait."
    assert lines[5] == "! 5 of 9 [damaged]"
    assert len(lines) == 6


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_bar_has_two_lines_that_fit(width: int) -> None:
    progress = rts.Progress()
    assert bar_lines("Verifying", None, 3, width)[0].startswith("Looking for nodes")
    progress.begin({0: 100, 1: 100})
    progress._shares = {0: 1.0, 1: 0.5}
    progress.counters.databases_processed = 1
    progress.counters.records_processed = 1
    progress.counters.ipfs_success = 1
    first, second = bar_lines("Verifying", progress, 30, width)
    assert max(len(first), len(second)) <= width
    assert first.startswith("Verifying ")
    assert "75 %" in first
    assert "1 of 2 databases" in second
    if width >= 80:
        assert "ETA 10.0 s  elapsed 30.0 s" in first
        assert "1 record " in second
        assert "content 100.0 %" in second


def test_a_cure_that_kinds_share_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    print_problems(
        [
            rts.Problem("last_run_interrupted", "The run.", cure="Run again."),
            rts.Problem("database_pending", "node001.", cure="Run again."),
            rts.Problem("stuck", "The other run.", cure="Wait."),
        ]
    )
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "✗ The run. [last_run_interrupted]", "✗ node001. [database_pending]", "Run again.",
        "✗ The other run. [stuck]", "Wait.",
    ]  # fmt: skip


def test_the_bar_is_full_once_every_database_is_stored() -> None:
    """What was read still has to be stored: no index is built until then."""
    progress = rts.Progress()
    progress.begin({0: 100, 1: 100})
    progress._shares = {0: 1.0, 1: 1.0}
    progress.counters.databases_processed = 1
    assert "Syncing ━" in bar_lines("Syncing", progress, 30, 80)[0]
    assert " 99 %" in bar_lines("Syncing", progress, 30, 80)[0]
    progress.counters.databases_failed = 1
    assert bar_lines("Syncing", progress, 30, 80)[0].startswith("Building indexes ")


def test_names_from_disk_reach_no_terminal_raw(run: Run, nodes: Path) -> None:
    """Incident 47: every way out."""
    (nodes / "node001").rename(nodes / EVIL)
    done = run("sync", nodes, *TARGET, "--log-file", "log.txt", "--report", "reports")
    assert done.code == 0
    with closing(sqlite3.connect("t.db")) as db, db:
        db.execute(
            "UPDATE TokenRecords SET ipfs_error = ? WHERE ipfs_fetched = 0", [f"c\x9b: {EVIL}"]
        )
    said = [done.out, done.err, Path("log.txt").read_text()]
    said += [path.read_text() for path in Path("reports").iterdir()]
    for arguments in (
        ["discover", nodes], ["discover", nodes, "--json"], ["check", nodes, *TARGET],
        ["databases", *TARGET], ["databases", *TARGET, "--csv"], ["databases", *TARGET, "--json"],
        ["errors", *TARGET], ["errors", *TARGET, "--json"], ["errors", *TARGET, "--csv"],
        ["status", *TARGET], ["verify", nodes, *TARGET], ["sessions", *TARGET],
    ):  # fmt: skip
        ended = run(*arguments)
        assert ended.code in (0, 1, 5), ended.err
        said += [ended.out, ended.err]
    for text in said:
        assert all(c.isprintable() or c == "\n" for c in text)
    assert json.loads(run("discover", nodes, "--json").out)["nodes"][0]["name"] == EVIL


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"), (" =1+1", "' =1+1"), ("@x", "'@x"), ("-2", "'-2"), ("+2", "'+2"),
        ("plain", "plain"), (-2, -2), (None, None), ("\t=x", "\\t=x"), ("a\nb", "a\\nb"),
    ],
)  # fmt: skip
def test_a_cell_runs_in_no_spreadsheet(value: object, cell: object) -> None:
    assert rts.cell(value) == cell


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing(nodes: Path, closed: str) -> None:
    """Incident 46: a supervisor may start us so; no file of ours takes their numbers."""
    line = " ".join([*PROGRAM, "sync", str(nodes), *TARGET])
    ended = subprocess.run(
        f"( {line} ) {closed}",
        shell=True,
        capture_output=True,
        timeout=100,
        env=clean_environment(),
    )
    assert ended.returncode == 0, ended.stderr
    with closing(sqlite3.connect("t.db")) as db:
        assert db.execute("SELECT count(*) FROM TokenRecords").fetchone() == (120,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_full_device_as_output_is_named(nodes: Path, more: list[str]) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*PROGRAM, "sync", str(nodes), *TARGET, *more],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=100, env=clean_environment(),
        )  # fmt: skip
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert (
        "The output cannot be written: No space left on device. [output_unwritable]" in ended.stderr
    )
    with closing(sqlite3.connect("t.db")) as db:
        assert db.execute("SELECT count(*) FROM TokenRecords").fetchone() == (120,)


def test_on_a_terminal_there_is_a_bar_and_no_log(nodes: Path) -> None:
    """Bar or log, not both."""
    parent, child = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, "sync", str(nodes), *TARGET], stdin=child, stdout=subprocess.PIPE, stderr=child,
        env={**clean_environment(), "TERM": "xterm", "COLUMNS": "80"},
    ) as program:  # fmt: skip
        os.close(child)
        shown = b""
        while True:
            try:
                shown += os.read(parent, 65_536)
            except OSError:  # its other end is closed
                break
        assert program.stdout is not None
        out = program.stdout.read().decode()
    os.close(parent)
    assert program.returncode == 0
    assert b"Looking for nodes" in shown or b"Syncing" in shown
    assert b"INFO" not in shown
    assert "Completed in" in out


@pytest.mark.parametrize("how", [signal.SIG_DFL, signal.SIG_IGN], ids=["plain", "in background"])
def test_status_watch_refreshes_until_it_is_stopped(
    run: Run, nodes: Path, how: signal.Handlers
) -> None:
    """Also where a shell started it in the background, which makes it ignore SIGINT."""
    run("sync", nodes, *TARGET)
    before = signal.signal(signal.SIGINT, how)
    try:
        program = subprocess.Popen(
            [*PROGRAM, "status", *TARGET, "--watch", "--interval", "0.2"],
            stdout=subprocess.PIPE, text=True, env=clean_environment(),
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    assert program.stdout is not None
    looks = 0
    for line in program.stdout:
        looks += line == "All is well.\n"
        if looks == 3:
            program.send_signal(signal.SIGINT)
            break
    try:
        program.communicate(timeout=30)
    finally:
        program.kill()
    assert program.returncode == 0


def test_databases_first_the_failed_then_as_asked(run: Run, broken: Path) -> None:
    run("sync", broken, *TARGET)
    lines = run("databases", *TARGET).out.splitlines()
    assert "node003" in lines[1]
    assert "[not_a_database]" in lines[1]
    assert "3 databases, 1 failed, 120 records." in lines
    only = run("databases", *TARGET, "--failed").out
    assert "node003" in only
    assert "node001" not in only
    assert " more." not in only  # what did not fail is not more of it
    assert "1 database needs attention: `rubix-token-sync status`" in only
    assert "… and 2 more." in run("databases", *TARGET, "--limit", "1").out
    assert run("databases", *TARGET, "--sort", "node").out.splitlines()[1].split()[1] == "node001"


def test_names_that_repeat_are_told_apart(run: Run, nodes: Path) -> None:
    (nodes / "other").mkdir()
    (nodes / "node002").rename(nodes / "other" / "node001")
    run("sync", nodes, *TARGET)
    assert f"node001 ({nodes}/other/node001/Rubix/rubix.db)" in run("databases", *TARGET).out
