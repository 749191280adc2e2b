"""Workers: every event of every job, crashes told at once, no end that hangs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import _ExecutorManagerThread
from dataclasses import replace
from itertools import zip_longest
from multiprocessing import forkserver
from pathlib import Path

import pytest

from rubix_token_sync.errors import SyncError, TargetRefused, WorkerCrashed
from rubix_token_sync.nodes.discovery import Node
from rubix_token_sync.runs.jobs import Batch, Done, Emit, Event, Failed, Job
from rubix_token_sync.runs.worker import Worker
from rubix_token_sync.runs.worker_pool import Crew
from rubix_token_sync.testing import create_database
from tests.runs.makers import make_context, make_job, make_node

BOTH = pytest.mark.parametrize("processes", [0, 2])


@pytest.fixture(autouse=True)
def _nothing_stays_behind() -> Iterator[None]:
    """No thread and no worker outlives its crew."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 10
    while left := {t for t in threading.enumerate() if t not in before and t.is_alive()}:
        for thread in left:
            thread.join(0.1)
        assert time.monotonic() < deadline, left
    assert multiprocessing.active_children() == []


def _by_job(events: Sequence[Event | None]) -> dict[int, list[Event]]:
    found: dict[int, list[Event]] = {}
    for event in events:
        if event is not None:
            found.setdefault(event.job, []).append(event)
    return found


def _many_rows(directory: Path, rows: int) -> Node:
    """A node without content whose events do not fit into any buffer."""
    path = directory / "Rubix" / "rubix.db"
    create_database(path, [(f"id {n}", "", 1.0, "d" * 200, 0, "", "", 0) for n in range(rows)])
    return Node(str(path), directory.name, None)


@BOTH
def test_every_event_of_every_job_in_order(tmp_path: Path, processes: int) -> None:
    jobs = [make_job(make_node(tmp_path / str(n), 5 * n), n) for n in range(4)]
    broken = Node(str(tmp_path / "gone.db"), "gone", None)
    jobs.append(make_job(broken, 4))
    with Crew(make_context(batch_size=4), processes) as crew:
        events = _by_job(list(crew.run(jobs)))
    assert sorted(events) == [0, 1, 2, 3, 4]
    for number in range(4):
        *batches, done = events[number]
        assert all(isinstance(batch, Batch) for batch in batches)
        assert isinstance(done, Done)
        assert done.summary.stored == 5 * number
        tokens = [
            token
            for batch in batches
            if isinstance(batch, Batch) and batch.rows is not None
            for token in batch.rows.column("token_id").to_pylist()
        ]
        assert len(tokens) == len(set(tokens)) == 5 * number
    assert [type(event) for event in events[4]] == [Failed]


@BOTH
def test_no_jobs_no_events(processes: int) -> None:
    with Crew(make_context(), processes) as crew:
        assert list(crew.run([])) == []


@BOTH
def test_what_a_worker_raises_on_purpose_comes_as_it_is(tmp_path: Path, processes: int) -> None:
    jobs = [make_job(make_node(tmp_path / str(n), 2), n, read_known=True) for n in range(3)]
    with Crew(make_context(tmp_path / "no" / "target.db"), processes) as crew:
        with pytest.raises(TargetRefused) as raised:
            list(crew.run(jobs))
        assert raised.value.code == "cannot_open"


@BOTH
def test_anything_else_is_a_crash_that_names_error_and_database(
    tmp_path: Path, processes: int
) -> None:
    node = make_node(tmp_path / "a", 2)
    job = make_job(node, read_known=True)  # without a target to know anything from
    with Crew(make_context(), processes) as crew, pytest.raises(WorkerCrashed) as raised:
        list(crew.run([job]))
    assert raised.value.code == "worker_failed"
    assert node.db_path in str(raised.value)
    assert "RuntimeError: this run has no target" in str(raised.value)


def test_a_crash_ends_the_run_while_others_still_have_much_to_tell(tmp_path: Path) -> None:
    bad = make_job(make_node(tmp_path / "a", 1), 0, read_known=True)
    busy = make_job(_many_rows(tmp_path / "b", 5_000), 1)
    with Crew(make_context(batch_size=1), 2) as crew:
        seen = 0
        with pytest.raises(WorkerCrashed):  # noqa: PT012 - counts on the way
            for event in crew.run([bad, busy]):
                seen += event is not None
    assert seen < 5_000


def test_killed_worker(tmp_path: Path) -> None:
    job = make_job(_many_rows(tmp_path / "b", 5_000))
    with Crew(make_context(batch_size=1), 1) as crew:
        events = crew.run([job])
        assert isinstance(next(event for event in events if event is not None), Batch)
        # Nobody takes its events now: it waits in the middle of one, holding the pipe's lock.
        (worker,) = crew._worker_processes()
        os.kill(worker.pid or 0, signal.SIGKILL)
        with pytest.raises(WorkerCrashed) as raised:
            list(events)
    assert raised.value.code == "worker_killed"


def test_killed_worker_does_not_stop_others_from_being_ended(tmp_path: Path) -> None:
    jobs = [make_job(_many_rows(tmp_path / str(n), 5_000), n) for n in range(3)]
    with Crew(make_context(batch_size=1), 3) as crew:
        events = crew.run(jobs)
        while len(crew._worker_processes()) < 3:
            next(events)
        started = time.monotonic()
        for worker in crew._worker_processes()[:2]:
            os.kill(worker.pid or 0, signal.SIGKILL)
        with pytest.raises(WorkerCrashed):
            list(events)
    assert time.monotonic() - started < 30


def test_workers_let_go_first_whoever_stores(tmp_path: Path) -> None:
    with Crew(make_context(batch_size=1), 1) as crew:
        events = crew.run([make_job(_many_rows(tmp_path, 5_000))])
        assert isinstance(next(event for event in events if event is not None), Batch)
        (worker,) = crew._worker_processes()
        niceness = os.getpriority(os.PRIO_PROCESS, worker.pid or 0)
    assert niceness == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)


class _Gate(str):
    """A path; whoever gets it from another process waits until there is a file."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return _pass, (str(self),)


def _pass(path: str) -> str:
    Path(f"{path}.reached").touch()
    while not Path(path).exists():
        time.sleep(0.01)
    return path


def test_a_worker_that_still_starts_is_waited_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its fork server was killed: it looks as if it had ended, and it cannot be told to."""
    gate, reached = _Gate(tmp_path / "gate"), tmp_path / "gate.reached"
    context = replace(make_context(), scratch=gate)

    pids: list[int] = []

    def kill_the_fork_server() -> None:
        while not reached.exists():
            time.sleep(0.01)
        (starting,) = crew._worker_processes()
        vars(starting)["_popen"].returncode = 255  # what it says of such a worker
        pids.append(starting.pid or 0)
        os.kill(vars(forkserver._forkserver)["_forkserver_pid"], signal.SIGKILL)
        threading.Timer(0.5, Path(gate).touch).start()

    with Crew(context, 1) as crew:
        events = crew.run([make_job(make_node(tmp_path / "a", 1))])
        kill_the_fork_server()
        with pytest.raises(WorkerCrashed) as raised:
            list(events)
    assert raised.value.code == "worker_killed"
    assert Path(gate).exists()
    assert not Path(f"/proc/{pids[0]}/exe").exists()  # ended; a zombie has none
    assert capfd.readouterr().err == ""


def test_a_pool_that_is_slow_to_start_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread is there a while before it runs: it has not died."""
    start = _ExecutorManagerThread.start

    def late(thread: threading.Thread) -> None:
        time.sleep(0.7)
        start(thread)

    monkeypatch.setattr(_ExecutorManagerThread, "start", late)
    with Crew(make_context(), 1) as crew:
        events = list(crew.run([make_job(make_node(tmp_path / "a", 1))]))
    assert isinstance(events[-1], Done)


def test_ctrl_c_is_not_for_workers_nor_their_server(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not even while it loads what they need: a traceback would stand on the terminal."""
    server = vars(forkserver._forkserver)
    if server["_forkserver_pid"] is not None:
        os.kill(server["_forkserver_pid"], signal.SIGKILL)
        os.waitid(os.P_PID, server["_forkserver_pid"], os.WEXITED | os.WNOWAIT)
    started = threading.Event()

    def interrupt() -> None:
        while not started.wait(0.005):
            for pid in (server["_forkserver_pid"], *(w.pid for w in crew._worker_processes())):
                os.kill(pid or 0, signal.SIGINT)

    with Crew(make_context(), 1) as crew:
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            events = list(crew.run([make_job(make_node(tmp_path / "a", 1))]))
        finally:
            started.set()
            thread.join()
    assert isinstance(events[-1], Done)
    assert capfd.readouterr().err == ""


@BOTH
def test_leaving_early_ends_the_workers(tmp_path: Path, processes: int) -> None:
    jobs = [make_job(_many_rows(tmp_path / str(n), 3_000), n) for n in range(4)]
    started = time.monotonic()
    with Crew(make_context(batch_size=1), processes) as crew:
        next(event for event in crew.run(jobs) if event is not None)
    assert time.monotonic() - started < 30


@BOTH
def test_closing_without_a_run(processes: int) -> None:
    Crew(make_context(), processes).close()


@BOTH
def test_closing_twice(tmp_path: Path, processes: int) -> None:
    crew = Crew(make_context(), processes)
    list(crew.run([make_job(make_node(tmp_path / "a", 1))]))
    crew.close()
    crew.close()


def test_two_crews_of_threads_do_not_mix_their_events(tmp_path: Path) -> None:
    one = [make_job(_many_rows(tmp_path / f"one{n}", 60), n) for n in range(3)]
    two = [make_job(_many_rows(tmp_path / f"two{n}", 90), n) for n in range(3)]
    context = make_context(batch_size=5)
    taken: tuple[list[Event | None], list[Event | None]] = ([], [])
    with Crew(context, 0) as first, Crew(context, 0) as second:
        for event, other in zip_longest(first.run(one), second.run(two)):
            taken[0].append(event)
            taken[1].append(other)
    for events, rows in zip(taken, (60, 90), strict=True):
        summaries = [event.summary for event in events if isinstance(event, Done)]
        assert [summary.stored for summary in summaries] == [rows] * 3


def test_a_thread_gives_its_connection_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Worker] = []
    monkeypatch.setattr(Worker, "close", lambda worker: closed.append(worker))
    with Crew(make_context(), 0) as crew:
        list(crew.run([make_job(make_node(tmp_path / "a", 1))]))
        assert closed == []
    assert len(closed) == 1


def test_events_that_cannot_be_read_are_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Crew, _event: Event) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(Crew, "_put", refuse)
    with Crew(make_context(), 1) as crew, pytest.raises(WorkerCrashed, match="ZeroDivisionError"):
        list(crew.run([make_job(make_node(tmp_path / "a", 1))]))


def test_errors_of_a_thread_come_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_self: Worker, _job: Job, _emit: Emit) -> None:
        raise SyncError("from the thread", code="x")

    monkeypatch.setattr(Worker, "run", run)
    with Crew(make_context(), 0) as crew, pytest.raises(SyncError, match="from the thread"):
        list(crew.run([make_job(make_node(tmp_path / "a", 1))]))


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
