"""The benchmarks measure what they say: tiny fleets through the real command."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from benchmarks.bare import bare_insert, bare_read, hash_blocks
from benchmarks.fleets import cached_fleet
from benchmarks.outcome import Outcome, Row, summary
from benchmarks.picture import draw
from benchmarks.program import (
    ProgramFailedError,
    _pss_kib,
    _sampling,
    _tree,
    first_line_seconds,
    run_program,
)

ROOT = Path(__file__).resolve().parents[2]


def test_median_spread_and_promises() -> None:
    fast = Row("s", "rate", "tokens/s", (10.0, 30.0, 20.0), goal=20.0)
    assert (fast.median, fast.spread, fast.met) == (20.0, 1.0, True)
    slow = Row("s", "time", "s", (1.0, 2.0, 9.0), goal=1.5, at_least=False)
    assert (slow.median, slow.met) == (2.0, False)
    assert Row("s", "x", "s", (1.0,)).met is None


def test_a_result_survives_its_json_and_says_what_was_missed(tmp_path: Path) -> None:
    rows = [
        Row("first", "ours", "tokens/s", (1000.0, 1200.0, 1100.0), goal=40_000),
        Row("first", "bare: insert", "tokens/s", (2000.0, 2100.0, 2200.0), "bare"),
        Row("first", "ours / bare", "ratio", (0.5, 0.6, 0.55), "ratio", goal=0.5),
    ]
    machine = {"cores": 2, "cpu": "x", "memory_gib": 1, "date": "today", "commit": "abc"}
    outcome = Outcome(machine, {"scale": 0.1}, rows, ["mssql: none"])
    path = tmp_path / "result.json"
    path.write_text(outcome.to_json(), encoding="utf-8")
    assert Outcome.load(path) == outcome
    table = summary(rows)
    assert "| 1,100/s | 1,000/s – 1,200/s | 18% | ≥ 40,000/s | **missed** |" in table
    assert "| 55% | 50% – 60% | 18% | ≥ 50% | met |" in table
    pytest.importorskip("matplotlib", reason="the picture needs the dependency group bench")
    assert draw(outcome, tmp_path / "result.svg")
    assert "bare: insert" in (tmp_path / "result.svg").read_text(encoding="utf-8")


def test_a_fleet_is_made_once(tmp_path: Path) -> None:
    first = cached_fleet(tmp_path, 2, 10)
    marks = {path: path.stat().st_mtime_ns for path in first.directory.rglob("*")}
    again = cached_fleet(tmp_path, 2, 10)
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in again.directory.rglob("*")} == marks
    assert cached_fleet(tmp_path, 2, 11).directory != first.directory
    assert len(first.databases) == len(first.repositories) == 2
    assert first.change(0.5, seed=1) == 10


def test_databases_that_share_repositories(tmp_path: Path) -> None:
    fleet = cached_fleet(tmp_path, 6, 10, pools=True)
    assert (fleet.tokens, fleet.nodes) == (60, 6)
    assert (len(fleet.databases), len(fleet.repositories)) == (6, 2)
    target = f"sqlite:///{tmp_path / 'target.db'}"
    run = run_program("sync", str(fleet.directory), "--target", target)
    assert run.document["content_by_way"] == {"blockstore": 60}


def test_only_root_makes_the_system_forget_where_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = cached_fleet(tmp_path, 2, 10)

    def refuse(*_: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", refuse)
        assert not fleet.chill()
    assert cached_fleet(tmp_path, 2, 10) == fleet


def test_bare_limits_do_the_whole_work(tmp_path: Path) -> None:
    fleet = cached_fleet(tmp_path, 2, 30)
    with ThreadPoolExecutor(2) as pool:
        assert bare_read(pool, fleet.databases)[0] == 60
        assert hash_blocks(pool, 2, fleet.repositories)[0] == 62  # and two empty directories

    synced = tmp_path / "synced.db"
    run = run_program("sync", str(fleet.directory), "--target", f"sqlite:///{synced}")
    assert run.document["exit_code"] == 0
    for late in (False, True):
        path = tmp_path / f"bare{late}.db"
        count, seconds = bare_insert(synced, path, late_indexes=late)
        assert count == 60
        assert seconds > 0
        assert _records(path) == _records(synced)
        assert _indexes(path) == _indexes(synced)


def _records(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT * FROM TokenRecords ORDER BY record_key").fetchall()


def _indexes(path: Path) -> set[str]:
    sql = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'TokenRecords'"
    with closing(sqlite3.connect(path)) as db:
        return {name for (name,) in db.execute(sql)}


def test_memory_is_that_of_the_whole_tree() -> None:
    """A child of the child holds 48 MB and says so; both are seen."""
    grandchild = "held = bytearray(b'x' * 48_000_000); print('held', flush=True); input()"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with _sampling(process.pid) as peak:
        assert process.stdout.readline() == b"held\n"
        pids = _tree(process.pid)
    process.stdin.write(b"\n")
    process.stdin.close()
    process.wait()
    process.stdout.close()
    assert len(pids) == 2
    assert 45 < peak.megabytes < 120
    assert _pss_kib(pids[0]) == 0


def test_a_failing_run_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(ProgramFailedError, match="ended with 2"):
        run_program("sync", str(tmp_path), "--target", "nonsense:")
    with pytest.raises(ProgramFailedError, match="no line"):
        first_line_seconds("sync", "--target", "nonsense:", word=b"Progress")


@pytest.mark.long
def test_scenarios_run_from_end_to_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "run", "startup", "life", "growth"]
    options = ["--target", "sqlite", "--node-tokens", "40", "--scale", "0.01"]
    options += ["--runs", "1", "--warmups", "0", "--cache", f"{tmp_path}", "--out", f"{tmp_path}"]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    names = {row["name"] for row in found["rows"]}
    assert names >= {
        "to the first progress line",
        "first sync",
        "first sync / slowest bare",
        "1 % changed / (5 % of the first sync + reading)",
        "time of verify / first sync",
        "peak of all processes, 120",
        "second run, 120 tokens, 3 databases, nothing changed",
    }
    assert all(row["median"] > 0 for row in found["rows"])
    assert "| first sync |" in (tmp_path / "result.md").read_text(encoding="utf-8")
    assert found["machine"]["cores"] >= 1
