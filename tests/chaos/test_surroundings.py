"""Full disks, missing rights, no handles, no memory, killed workers, wrong clocks, signals.

Each: the right exit code, a sentence, nothing lost.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rubix_token_sync.testing import Fleet, FleetPlan, make_fleet
from tests.chaos.battlefield import BROKEN, SETTINGS, Battlefield
from tests.chaos.door import Door, Finished, Running
from tests.chaos.target_state import content_of, leftovers, rows_of

_SENTENCE = re.compile(r"^(Error: |.* (ERROR|WARNING) )\S.{15,}", re.M)


def told(run: Finished, *codes: int) -> Finished:
    """It ended as it should, and said a sentence about it."""
    run.expect(*codes)
    assert _SENTENCE.search(run.stderr), run.stderr
    return run


def right_in_the_end(door: Door, field: Battlefield, url: str) -> None:
    """One undisturbed run later everything is as if nothing had happened."""
    door.run(*field.arguments(url), env=SETTINGS).expect(BROKEN)
    assert content_of(url).difference(field.change.content) == ""
    assert leftovers(url) == []


@pytest.fixture
def url(battlefield: Battlefield, tmp_path: Path) -> str:
    """A SQLite target that holds the first state."""
    return battlefield.fresh_sqlite(tmp_path / "target.db", battlefield.change)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, one MiB small."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True
    )
    if made.returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


# ------------------------------------------------------------------ no room


def test_no_room_for_the_target(
    door: Door, battlefield: Battlefield, small_disk: Path, tmp_path: Path
) -> None:
    fleet = make_fleet(tmp_path / "fleet", FleetPlan(nodes=1, tokens_per_node=3_000))
    url = f"sqlite:///{small_disk / 'target.db'}"
    arguments = (
        "sync", str(fleet.directory), "--target", url, "--source-ip", "vm1",
        "--report", str(tmp_path / "reports"),
    )  # fmt: skip
    full = told(door.run(*arguments, env=SETTINGS), 3)
    assert "no room" in full.stderr or "space" in full.stderr, full.stderr
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    door.run(*arguments, env=SETTINGS).expect(0)
    door.run("verify", *arguments[1:6]).expect(0)
    assert leftovers(url) == []


def test_files_may_not_grow(door: Door, battlefield: Battlefield, url: str) -> None:
    """A quota, as a limit of the size of files."""
    size = 200_000
    stopped = door.run(*battlefield.arguments(url), env=SETTINGS, limits={"RLIMIT_FSIZE": size})
    told(stopped, 1, 3)
    right_in_the_end(door, battlefield, url)


def test_no_room_for_the_report(
    door: Door, battlefield: Battlefield, url: str, small_disk: Path
) -> None:
    (small_disk / "ballast").write_bytes(bytes(1_044_480))
    arguments = [*battlefield.arguments(url)]
    arguments[arguments.index("--report") + 1] = str(small_disk / "reports")
    with contextlib.suppress(OSError):
        (small_disk / "ballast2").write_bytes(bytes(100_000))
    stopped = told(door.run(*arguments, env=SETTINGS), 1, 2)
    assert "eport" in stopped.stderr
    assert not list(small_disk.rglob("*.tmp"))
    right_in_the_end(door, battlefield, url)


def test_no_room_for_the_log(
    door: Door, battlefield: Battlefield, url: str, small_disk: Path
) -> None:
    """The log is for people; a run that cannot write it goes on, and says so on the console."""
    with contextlib.suppress(OSError):
        (small_disk / "ballast").write_bytes(bytes(2_000_000))
    run = door.run(
        *battlefield.arguments(url), "--log-file", str(small_disk / "run.log"), env=SETTINGS
    )
    told(run, BROKEN, 2)
    right_in_the_end(door, battlefield, url)


def test_no_room_for_copies(door: Door, battlefield: Battlefield, small_disk: Path) -> None:
    """A database that must be copied to be read is an error of that database."""
    with contextlib.suppress(OSError):
        (small_disk / "ballast").write_bytes(bytes(2_000_000))
    fresh = battlefield.fresh_sqlite(battlefield.home / "copies.db", battlefield.first)
    env = {**SETTINGS, "RUBIX_SYNC_SCRATCH": str(small_disk)}
    stopped = told(door.run(*battlefield.arguments(fresh), env=env), BROKEN)
    assert "SCRATCH" in stopped.stderr or "scratch" in stopped.stderr
    marks = rows_of(fresh, "SELECT db_path FROM ProcessedDatabases")
    assert len(marks) == 3  # of four: the one whose rows are in its -wal is missing
    door.run(*battlefield.arguments(fresh), env=SETTINGS).expect(BROKEN)
    assert content_of(fresh).difference(battlefield.first.content) == ""


# ------------------------------------------------------------------ no rights


def test_a_target_that_may_not_be_written(door: Door, battlefield: Battlefield, url: str) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    path.chmod(0o400)
    path.parent.chmod(0o500)
    refused = door.run(*battlefield.arguments(url), env=SETTINGS, plain=True)
    path.parent.chmod(0o700)
    path.chmod(0o600)
    told(refused, 3)
    right_in_the_end(door, battlefield, url)


def test_directories_that_may_not_be_written(
    door: Door, battlefield: Battlefield, url: str, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    fresh = door.run(
        *battlefield.arguments(f"sqlite:///{closed / 'target.db'}"), env=SETTINGS, plain=True
    )
    told(fresh, 3)
    arguments = [*battlefield.arguments(url)]
    arguments[arguments.index("--report") + 1] = str(closed)
    told(door.run(*arguments, env=SETTINGS, plain=True), 2)
    log = (*battlefield.arguments(url), "--log-file", str(closed / "log"))
    told(door.run(*log, env=SETTINGS, plain=True), 2)
    assert list(closed.iterdir()) == []
    right_in_the_end(door, battlefield, url)


# ------------------------------------------------------------------ no handles, no memory


@pytest.mark.parametrize("processes", [False, True])
@pytest.mark.parametrize("handles", [9, 14, 20])
def test_out_of_file_handles(
    door: Door, battlefield: Battlefield, url: str, handles: int, processes: bool
) -> None:
    run = door.run(
        *battlefield.arguments(url), env=SETTINGS, processes=processes,
        limits={"RLIMIT_NOFILE": handles},
    )  # fmt: skip
    told(run, 1, 2, 3)
    right_in_the_end(door, battlefield, url)


@pytest.mark.parametrize("processes", [False, True])
@pytest.mark.parametrize("share", [1.02, 1.1, 1.4])
def test_out_of_memory(
    door: Door, battlefield: Battlefield, tmp_path: Path, share: float, processes: bool
) -> None:
    """Address space is cut shortly above what the program needs to start."""
    fleet = make_fleet(tmp_path / "fleet", FleetPlan(nodes=2, tokens_per_node=2_000))
    url = f"sqlite:///{tmp_path / 'target.db'}"
    arguments = (
        "sync", str(fleet.directory), "--target", url, "--source-ip", "vm1",
        "--report", str(tmp_path / "reports"),
    )  # fmt: skip
    limit = int(door.address_space() * share)
    run = door.run(*arguments, processes=processes, limits={"RLIMIT_AS": limit})
    run.expect(0, 1, 3)
    if run.code:
        assert _SENTENCE.search(run.stderr), run.stderr
    door.run(*arguments).expect(0)
    door.run("verify", *arguments[1:6]).expect(0)
    assert leftovers(url) == []


# ------------------------------------------------------------------ workers that die


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Enough work that workers are under way for a while."""
    plan = FleetPlan(nodes=4, tokens_per_node=3_000, seed=3)
    return make_fleet(tmp_path_factory.mktemp("large") / "fleet", plan)


def _large_run(door: Door, large: Fleet, home: Path, chunk: int = 500) -> Running:
    return door.start(
        "sync", str(large.directory), "--target", f"sqlite:///{home / 'target.db'}",
        "--source-ip", "vm1", "--report", str(home / "reports"),
        env={"BATCH_SIZE": "100", "BULK_INSERT_SIZE": str(chunk), "NUM_IPFS_WORKERS": "4"},
        processes=True, watched=True,
    )  # fmt: skip


def _large_end(door: Door, large: Fleet, home: Path) -> None:
    url = f"sqlite:///{home / 'target.db'}"
    common = (str(large.directory), "--target", url, "--source-ip", "vm1")
    door.run("sync", *common, "--report", str(home / "reports")).expect(0)
    door.run("verify", *common).expect(0)
    assert rows_of(url, "SELECT count(*) FROM TokenRecords") == [(large.tokens,)]
    assert leftovers(url) == []


@pytest.mark.parametrize(
    ("moment", "which"),
    [
        (0.0, 0),
        pytest.param(0.05, -1, marks=pytest.mark.long),
        pytest.param(0.2, 0, marks=pytest.mark.long),
        (0.5, -1),
    ],
)
def test_the_kernel_kills_a_worker(
    door: Door, large: Fleet, tmp_path: Path, moment: float, which: int
) -> None:
    run = _large_run(door, large, tmp_path)
    while not (workers := run.workers()):
        assert not run.ended_within(0.005), run.stderr
    run.ended_within(moment)
    hit = run.signal_other(workers[which], signal.SIGKILL)
    ended = run.wait(40)
    if hit and ended.code:
        told(ended, 1)
        assert "ended abruptly" in ended.stderr
    _large_end(door, large, tmp_path)


@pytest.mark.parametrize("after", [0, pytest.param(3, marks=pytest.mark.long), 10])
def test_a_worker_dies_while_it_reports(
    door: Door, large: Fleet, tmp_path: Path, after: int
) -> None:
    fired = tmp_path / "fired"
    env = {
        "BATCH_SIZE": "100", "BULK_INSERT_SIZE": "500", "NUM_IPFS_WORKERS": "4",
        "RUBIX_SYNC_FAULT": f"worker.emit:{after + 1}:kill", "RUBIX_SYNC_FAULT_ONCE": str(fired),
    }  # fmt: skip
    ended = door.run(
        "sync", str(large.directory), "--target", f"sqlite:///{tmp_path / 'target.db'}",
        "--source-ip", "vm1", "--report", str(tmp_path / "reports"), env=env,
        processes=True, seconds=40,
    )  # fmt: skip
    assert fired.exists()
    told(ended, 1)
    assert "ended abruptly" in ended.stderr
    _large_end(door, large, tmp_path)


def test_all_workers_are_killed(door: Door, large: Fleet, tmp_path: Path) -> None:
    run = _large_run(door, large, tmp_path)
    while len(run.workers()) < 2:
        assert not run.ended_within(0.005), run.stderr
    for pid in run.children():
        run.signal_other(pid, signal.SIGKILL)
    told(run.wait(40), 1)
    _large_end(door, large, tmp_path)


def test_no_worker_outlives_its_run(door: Door, large: Fleet, tmp_path: Path) -> None:
    run = _large_run(door, large, tmp_path)
    while len(run.workers()) < 2:
        assert not run.ended_within(0.005), run.stderr
    family = [*run.workers(), *run.children()]
    run.signal(signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + 20
    while left := [pid for pid in family if _alive(pid)]:
        assert time.monotonic() < deadline, f"{left} live on"
        time.sleep(0.01)  # polling the kernel, nothing else tells
    _large_end(door, large, tmp_path)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# ------------------------------------------------------------------ signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("processes", [False, True])
@pytest.mark.parametrize(
    "moment", [pytest.param(0.2, marks=pytest.mark.long), 0.5,
               pytest.param(0.8, marks=pytest.mark.long)],
)  # fmt: skip
def test_a_signal_at_any_moment(
    door: Door, battlefield: Battlefield, url: str, number: int, processes: bool, moment: float
) -> None:
    whole = door.run(*battlefield.arguments(url), env=SETTINGS, processes=processes)
    battlefield.fresh_sqlite(Path(url.removeprefix("sqlite:///")), battlefield.change)
    before = len(rows_of(url, "SELECT 1 FROM SyncSessions"))
    run = door.start(*battlefield.arguments(url), env=SETTINGS, processes=processes)
    run.ended_within(moment * whole.seconds)
    run.signal(number)
    ended = run.wait(30)
    # Before the run begins and after it is done, a signal does what it does to any program.
    ended.expect(128 + number, BROKEN, -number)
    states = [row[0] for row in rows_of(url, "SELECT status FROM SyncSessions")][before:]
    assert states in ([], ["INTERRUPTED"], ["COMPLETED"])
    assert (ended.code == BROKEN) <= (states == ["COMPLETED"])
    assert rows_of(url, "SELECT count(*) FROM SyncLeases") == [(0,)]
    right_in_the_end(door, battlefield, url)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_publish(door: Door, large: Fleet, tmp_path: Path, number: int) -> None:
    """What is published is whole; the session says how it ended; the rest comes later."""
    url = f"sqlite:///{tmp_path / 'target.db'}"
    run = _large_run(door, large, tmp_path, chunk=100)
    while not (tmp_path / "target.db").exists() or not _count(url):
        assert not run.ended_within(0.005), run.stderr
    run.signal(number)
    ended = run.wait(30).expect(128 + number)
    assert "Stopping after the chunk under way" in ended.stderr
    assert rows_of(url, "SELECT status FROM SyncSessions") == [("INTERRUPTED",)]
    assert rows_of(url, "SELECT count(*) FROM SyncLeases") == [(0,)]
    assert 0 < _count(url) < large.tokens
    _large_end(door, large, tmp_path)


def _count(url: str) -> int:
    try:
        return int(rows_of(url, "SELECT count(*) FROM TokenRecords")[0][0])
    except Exception as error:
        if "no such table" in str(error):
            return 0
        raise


# ------------------------------------------------------------------ time


def test_the_clock_jumps_back(door: Door, tmp_path: Path) -> None:
    """Everything that was stored lies in the future: no time is ever compared for 'newer'."""
    battlefield = Battlefield.make(tmp_path, door)  # its own: times of its files are changed
    url = battlefield.fresh_sqlite(tmp_path / "target.db", battlefield.change)
    door.run(*battlefield.arguments(url), env=SETTINGS).expect(BROKEN)
    path = Path(url.removeprefix("sqlite:///"))
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        for table, columns in (
            ("TokenRecords", ("synced_at",)),
            ("ProcessedDatabases", ("last_processed", "last_seen_at", "content_checked_at")),
            ("SyncSessions", ("start_time", "end_time", "heartbeat_at")),
        ):
            for column in columns:
                db.execute(
                    f"UPDATE {table} SET {column} = '2999-01-01 00:00:00.000000'"
                    f" WHERE {column} IS NOT NULL"
                )
    quiet = door.run(*battlefield.arguments(url), "--json", env=SETTINGS).expect(BROKEN).document
    assert quiet["tokens_read"] == 0
    databases = [*battlefield.fleet.rglob("rubix.db")]
    times = {path: path.stat() for path in databases}
    for database in databases:
        os.utime(database, (1, 1))  # 1970: older than everything, and changed all the same
    again = door.run(*battlefield.arguments(url), "--json", env=SETTINGS).expect(BROKEN).document
    for database, status in times.items():
        os.utime(database, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert again["tokens_read"] > 0
    assert again["records_inserted"] == again["records_vanished"] == 0


@pytest.mark.long
@pytest.mark.timeout(200)
@pytest.mark.parametrize("processes", [False, True])
def test_a_source_that_stalls(
    door: Door, battlefield: Battlefield, url: str, tmp_path: Path, processes: bool
) -> None:
    """The other databases are done; the stalled one is told; a later run reads it."""
    env = {
        **SETTINGS,
        "RUBIX_SYNC_FAULT": "source.connect:1:stall",
        "RUBIX_SYNC_FAULT_ONCE": str(tmp_path / "fired"),
    }
    run = door.run(*battlefield.arguments(url), env=env, processes=processes, seconds=150)
    told(run, BROKEN)
    assert "gave no answer" in run.stderr or "did not answer" in run.stderr
    right_in_the_end(door, battlefield, url)


@pytest.mark.parametrize("processes", [False, True])
def test_a_run_that_stalls_can_be_stopped(
    door: Door, battlefield: Battlefield, url: str, tmp_path: Path, processes: bool
) -> None:
    fired = tmp_path / "fired"
    env = {
        **SETTINGS,
        "RUBIX_SYNC_FAULT": "source.connect:1:stall",
        "RUBIX_SYNC_FAULT_ONCE": str(fired),
    }
    run = door.start(*battlefield.arguments(url), env=env, processes=processes)
    while not fired.exists():
        assert not run.ended_within(0.01), run.stderr
    run.signal(signal.SIGTERM)
    run.wait(20).expect(143)
    right_in_the_end(door, battlefield, url)
