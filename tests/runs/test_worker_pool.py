"""Workers: every report of every job, crashes noticed at once, no end that hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from rubix_token_sync.errors import TargetRefused, WorkerCrashed
from rubix_token_sync.nodes.discovery import Node
from rubix_token_sync.runs.cancel import CancelToken, Interrupted
from rubix_token_sync.runs.jobs import (
    ChunkPublished,
    Job,
    JobDone,
    JobFailed,
    Report,
    RowsRead,
    WorkerContext,
)
from rubix_token_sync.runs.worker_pool import WorkerPool
from rubix_token_sync.runs.worker_process import LogRecord, replay
from rubix_token_sync.targets.base import Lease, TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.testing import create_database
from tests.runs.makers import SOURCE, make_context, make_job, make_node

BOTH = pytest.mark.parametrize("processes", [0, 2])
LEASE = Lease(SOURCE, "00000000-0000-0000-0000-000000000001")


@pytest.fixture(autouse=True)
def _nothing_stays_behind() -> Iterator[None]:
    """No thread, no process and no open file outlives its pool."""
    threads, files = set(threading.enumerate()), set(os.listdir("/proc/self/fd"))
    _OTHERS[:] = _all_children()  # servers of other tests
    yield
    deadline = time.monotonic() + 10
    while left := [t for t in threading.enumerate() if t not in threads and t.is_alive()]:
        assert time.monotonic() < deadline, left
        left[0].join(0.1)
    assert _children() == []
    assert set(os.listdir("/proc/self/fd")) <= files


_OTHERS: list[int] = []


def _children() -> list[int]:
    """The processes that this test has started and not yet seen the end of."""
    return [pid for pid in _all_children() if pid not in _OTHERS]


def _all_children() -> list[int]:
    return [
        int(pid)
        for task in os.listdir("/proc/self/task")
        for pid in Path(f"/proc/self/task/{task}/children").read_text().split()
    ]


def _workers() -> list[int]:
    """The first worker, and those that it forked."""
    return [
        worker
        for first in _children()
        for worker in (
            first,
            *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split()),
        )
    ]


def _pool(context: WorkerContext, processes: int, **how: bool) -> WorkerPool:
    return WorkerPool(context, processes, CancelToken(), **how)


def _reports(pool: WorkerPool, jobs: Sequence[Job]) -> dict[int, list[Report]]:
    found: dict[int, list[Report]] = {}
    pool.run(jobs, lambda report: found.setdefault(report.job, []).append(report))
    return found


def _many_rows(directory: Path, rows: int) -> Node:
    """A node without content, whose reports do not fit into any buffer in batches of one."""
    path = directory / "Rubix" / "rubix.db"
    create_database(path, [(f"id {n}", "", 1.0, "d" * 200, 0, "", "", 0) for n in range(rows)])
    return Node(str(path), directory.name, None)


class _Waiting:
    """Calls ``then`` once, as soon as a job has reported something."""

    def __init__(self, then: Callable[[], None]) -> None:
        self.reports: list[Report] = []
        self._then: Callable[[], None] | None = then

    def note(self, report: Report) -> None:
        self.reports.append(report)

    def idle(self) -> None:
        if self.reports and self._then is not None:
            then, self._then = self._then, None
            then()


@BOTH
def test_every_report_of_every_job_in_order(tmp_path: Path, processes: int) -> None:
    jobs = [make_job(make_node(tmp_path / str(n), 5 * n), n) for n in range(4)]
    jobs.append(make_job(Node(str(tmp_path / "gone.db"), "gone", None), 4))
    with _pool(make_context(batch_size=4), processes) as pool:
        reports = _reports(pool, jobs)
    assert sorted(reports) == [0, 1, 2, 3, 4]
    for number in range(4):
        *read, done = reports[number]
        assert all(isinstance(report, RowsRead) for report in read)
        assert isinstance(done, JobDone)
        assert done.summary.records == 5 * number
        assert sum(r.tally.read for r in read if isinstance(r, RowsRead)) == 5 * number
    assert [type(report) for report in reports[4]] == [JobFailed]


@pytest.mark.parametrize(("processes", "in_turn"), [(0, False), (2, False), (2, True), (3, True)])
def test_workers_publish_by_themselves(tmp_path: Path, processes: int, in_turn: bool) -> None:
    address = parse_target(f"sqlite:///{tmp_path}/target.db")
    jobs = [make_job(make_node(tmp_path / str(n), 30), n) for n in range(5)]
    target = open_target(address, TargetOptions())
    try:
        target.ensure_schema()
        target.start_session(LEASE.session_id, SOURCE, "host", 1, "sync")
        target.acquire_lease(LEASE, "elsewhere|-|1|1")
        context = make_context(tmp_path / "target.db", 7, LEASE, bulk_insert_size=10)
        with _pool(context, processes, in_turn=in_turn) as pool:
            reports = _reports(pool, jobs)
        states = target.database_states(SOURCE)
    finally:
        target.close()
    assert [state.record_count for state in states] == [30] * 5
    for found in reports.values():
        chunks = [report for report in found if isinstance(report, ChunkPublished)]
        assert sum(chunk.inserted for chunk in chunks) == 30
        assert chunks[-1].marked is not None
        assert chunks[-1].marked.records == 30


@BOTH
def test_a_job_is_taken_when_somebody_is_free_for_it(tmp_path: Path, processes: int) -> None:
    """So that several pools can work off one list."""
    jobs = [make_job(make_node(tmp_path / str(n), 5), n) for n in range(6)]
    taken: list[int] = []
    in_hand: list[int] = []

    def take() -> Iterator[Job]:
        for job in jobs:
            taken.append(job.number)
            yield job

    def note(report: Report) -> None:
        if report.ends_job:
            in_hand.append(len(taken) - len(in_hand))

    with _pool(make_context(), processes) as pool:
        pool.run(take(), note)
    assert taken == [0, 1, 2, 3, 4, 5]
    assert max(in_hand) <= max(1, processes)


@BOTH
def test_no_jobs_no_reports(processes: int) -> None:
    with _pool(make_context(), processes) as pool:
        assert _reports(pool, []) == {}


@BOTH
def test_what_a_worker_raises_on_purpose_comes_as_it_is(tmp_path: Path, processes: int) -> None:
    jobs = [make_job(make_node(tmp_path / str(n), 2), n, read_known=True) for n in range(3)]
    with (
        _pool(make_context(tmp_path / "no" / "target.db"), processes) as pool,
        pytest.raises(TargetRefused) as raised,
    ):
        _reports(pool, jobs)
    assert raised.value.code == "cannot_open"


@BOTH
def test_anything_else_is_a_crash_that_names_error_and_database(
    tmp_path: Path, processes: int
) -> None:
    node = make_node(tmp_path / "a", 2)
    job = make_job(node, read_known=True)  # without a target to know anything from
    with _pool(make_context(), processes) as pool, pytest.raises(WorkerCrashed) as raised:
        _reports(pool, [job])
    assert raised.value.code == "worker_failed"
    assert node.db_path in str(raised.value)
    assert "RuntimeError: this run has no target" in str(raised.value)


def test_workers_load_libraries_that_give_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    with _pool(make_context(), 1):
        (worker,) = _workers()
        environment = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
    assert b"ARROW_DEFAULT_MEMORY_POOL=system" in environment
    assert b"OPENBLAS_NUM_THREADS=1" in environment


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_killed_worker_ends_the_run_and_the_others(
    tmp_path: Path, victim: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also the first one, which has forked the others."""
    jobs = [make_job(_many_rows(tmp_path / str(n), 5_000), n) for n in range(3)]
    waiting = _Waiting(lambda: os.kill(_workers()[victim], signal.SIGKILL))
    with _pool(make_context(batch_size=1), 3) as pool:
        with pytest.raises(WorkerCrashed) as raised:
            pool.run(jobs, waiting.note, waiting.idle)
        workers = _workers()
    assert raised.value.code == "worker_killed"
    assert not any(isinstance(report, JobDone) for report in waiting.reports)
    for worker in workers:
        assert not Path(f"/proc/{worker}/exe").exists()  # ended; a zombie has none
    assert capfd.readouterr().err == ""


def test_a_worker_that_is_killed_in_its_turn_holds_nobody_up(tmp_path: Path) -> None:
    """It takes the token along; the others wait for it, and are ended."""
    context = make_context(tmp_path / "none.db", 1, LEASE)
    jobs = [make_job(_many_rows(tmp_path / str(n), 300), n, read_known=False) for n in range(3)]
    started = time.monotonic()
    waiting = _Waiting(lambda: [os.kill(pid, signal.SIGKILL) for pid in _workers()[1:2]] and None)
    with (
        _pool(context, 3, in_turn=True) as pool,
        pytest.raises((WorkerCrashed, TargetRefused)),
    ):
        pool.run(jobs, waiting.note, waiting.idle)
    assert time.monotonic() - started < 20


def test_workers_are_nicer_than_the_run(tmp_path: Path) -> None:
    niceness: list[int] = []
    waiting = _Waiting(
        lambda: niceness.extend(os.getpriority(os.PRIO_PROCESS, pid) for pid in _workers())
    )
    with _pool(make_context(batch_size=1), 2) as pool:
        pool.run([make_job(_many_rows(tmp_path, 3_000))], waiting.note, waiting.idle)
    assert set(niceness) == {min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)}
    assert len(niceness) == 2


def test_ctrl_c_is_not_for_workers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It reaches the whole of a terminal's group; they are not in it, and would heed nothing."""
    job = make_job(_many_rows(tmp_path, 500))
    groups: set[int] = set()

    def interrupt() -> None:
        for pid in _workers():
            groups.add(os.getpgid(pid))
            os.kill(pid, signal.SIGINT)

    waiting = _Waiting(interrupt)
    with _pool(make_context(batch_size=1), 2) as pool:
        pool.run([job], waiting.note, waiting.idle)
    assert isinstance(waiting.reports[-1], JobDone)
    assert groups
    assert os.getpgid(0) not in groups
    assert capfd.readouterr().err == ""


@BOTH
def test_a_stop_ends_the_run_soon(tmp_path: Path, processes: int) -> None:
    jobs = [make_job(_many_rows(tmp_path / str(n), 5_000), n) for n in range(4)]
    cancel = CancelToken()
    reports: list[Report] = []

    def look() -> None:
        if reports:
            cancel.signal_number = signal.SIGTERM
        cancel.check()

    started = time.monotonic()
    pool = WorkerPool(make_context(batch_size=1), processes, cancel)
    with pool, pytest.raises(Interrupted):
        pool.run(jobs, reports.append, look)
    assert time.monotonic() - started < 20
    assert not any(isinstance(report, JobDone) for report in reports)


@BOTH
def test_closing_without_a_run_and_twice(processes: int) -> None:
    pool = _pool(make_context(), processes)
    pool.close()
    pool.close()


def test_two_pools_side_by_side_do_not_mix(tmp_path: Path) -> None:
    one = [make_job(_many_rows(tmp_path / f"one{n}", 60), n) for n in range(3)]
    two = [make_job(_many_rows(tmp_path / f"two{n}", 90), n) for n in range(3)]
    context = make_context(batch_size=5)
    with _pool(context, 1) as first, _pool(context, 1) as second:
        for reports, rows in ((_reports(first, one), 60), (_reports(second, two), 90)):
            done = [r for found in reports.values() for r in found if isinstance(r, JobDone)]
            assert [report.summary.records for report in done] == [rows] * 3


def test_workers_end_with_a_run_that_was_killed(tmp_path: Path) -> None:
    node = _many_rows(tmp_path, 20_000)
    program = (
        "import os, sys, json\n"
        "from tests.runs.makers import make_context, make_job\n"
        "from rubix_token_sync.nodes.discovery import Node\n"
        "from rubix_token_sync.runs.cancel import CancelToken\n"
        "from rubix_token_sync.runs.worker_pool import WorkerPool\n"
        "from tests.runs.test_worker_pool import _workers\n"
        "job = make_job(Node(sys.argv[1], 'n', None))\n"
        "def note(report):\n"
        "    print(json.dumps(_workers()), flush=True); os.kill(os.getpid(), 9)\n"
        "WorkerPool(make_context(batch_size=1), 2, CancelToken()).run([job], note)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, node.db_path],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    workers = json.loads(ended.stdout)
    assert len(workers) == 2
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/exe").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_line_of_a_worker_is_logged_under_its_own_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        replay(LogRecord("rubix_token_sync.targets", 30, "left behind"))
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
        ("rubix_token_sync.targets", "WARNING", "left behind")
    ]


def test_no_file_of_the_current_directory_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write there could have their code run by our user (incident 41)."""
    for module in ("signal", "selectors", "socket", "json", "rubix_token_sync", "click"):
        (tmp_path / f"{module}.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", str(tmp_path)]))
    with _pool(make_context(), 2) as pool:
        _reports(pool, [make_job(make_node(tmp_path / "a", 2))])
    assert not (tmp_path / "RAN").exists()


def test_processes_only_where_files_can_be_open() -> None:
    """The soft limit is raised as far as it may be; where that is too little, nobody is forked."""
    program = (
        "import resource, sys\n"
        "from rubix_token_sync.runs.worker_pool import affordable\n"
        "limits = tuple(int(word) for word in sys.argv[1:])\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, limits)\n"
        "print(affordable(2), *resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    for limits, expected in (
        ((20, 20), "0 20 20"),
        ((20, 60), "2 48 60"),
        ((100, 200), "2 100 200"),
    ):
        said = subprocess.run(
            [sys.executable, "-c", program, *map(str, limits)],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert said.strip() == expected
