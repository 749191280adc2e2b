"""The one seam to executors: jobs go out, events come back.

By default a pool of processes started from a fork server (threads and forks do
not mix); for little work, threads of this process.  Results that are too large
or too many for a future travel on a pipe, whose fixed size is the back-pressure:
a worker waits until the writer has taken what came before.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any

from rubix_token_sync import faults
from rubix_token_sync.errors import SyncError, WorkerCrashed
from rubix_token_sync.sync.jobs import Batch, Emit, Event, Job, WorkerContext

__all__ = ["Crew"]

_HELD_EVENTS = 8
_LOOK_SECONDS = 0.2


class Crew:
    """Runs jobs on several workers and hands their events over, one at a time."""

    def __init__(self, context: WorkerContext, processes: int) -> None:
        """``processes`` = 0 works in one thread of this process."""
        self._events: queue.Queue[Event] = queue.Queue(_HELD_EVENTS)
        self._stopped = threading.Event()
        self._worker_pids: Callable[[], list[int]] = list
        self._executor: Executor
        if processes == 0:
            self._start_thread(context)
        else:
            self._start_processes(context, processes)

    def _start_thread(self, context: WorkerContext) -> None:
        self._executor = ThreadPoolExecutor(1, "rubix-worker", _enlist, (context, self._put))

    def _start_processes(self, context: WorkerContext, processes: int) -> None:
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else None
        system = multiprocessing.get_context(method)
        if method == "forkserver":
            system.set_forkserver_preload([__name__, "rubix_token_sync.sync.worker"])
        pipe = system.SimpleQueue()
        pool = ProcessPoolExecutor(processes, system, _enlist_process, (context, pipe))
        # Python 3.14 has terminate_workers(); before that the pool's own table is the only way.
        self._worker_pids = lambda: list(getattr(pool, "_processes", None) or {})
        self._executor = pool
        threading.Thread(target=self._drain, args=(pipe,), name="rubix-events", daemon=True).start()

    def _drain(self, pipe: Any) -> None:
        """Take events off the pipe; stays behind (a daemon) when a worker died mid-event."""
        while not self._stopped.is_set():
            self._put(pipe.get())

    def _put(self, event: Event) -> None:
        while not self._stopped.is_set():
            try:
                self._events.put(event, timeout=_LOOK_SECONDS)
                return
            except queue.Full:
                continue
        raise _Stopped

    def run(self, jobs: Sequence[Job]) -> Iterator[Event | None]:
        """Every event of every job; None now and then while there is nothing new.

        Raises:
            WorkerCrashed: a worker died or raised what nobody foresaw.
            SyncError: what a worker raised on purpose (the target is gone …).
        """
        open_jobs: dict[int, Future[None]] = {
            job.number: self._executor.submit(_work, job) for job in jobs
        }
        while open_jobs:
            try:
                event = self._events.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                self._look_for_crashes(open_jobs)
                yield None
                continue
            yield event
            if not isinstance(event, Batch):
                open_jobs.pop(event.job)

    @staticmethod
    def _look_for_crashes(open_jobs: dict[int, Future[None]]) -> None:
        for number, future in open_jobs.items():
            if not future.done():
                continue
            error = future.exception()
            if isinstance(error, SyncError):
                raise error
            if isinstance(error, BrokenProcessPool):
                raise WorkerCrashed(
                    "A worker process ended abruptly (killed, or out of memory).",
                    code="worker_killed",
                    remedy="Check the system's log for the out-of-memory killer, lower "
                    "NUM_IPFS_WORKERS, and run again: nothing stored is lost.",
                ) from error
            if error is not None:
                raise WorkerCrashed(
                    f"A worker failed on job {number}: {type(error).__name__}: {error}",
                    code="worker_failed",
                    remedy="This is a bug; please report it with the log of a --verbose run.",
                ) from error

    def close(self) -> None:
        """End the workers now: they only read, so nothing is lost with them."""
        self._stopped.set()
        pids = self._worker_pids()
        self._executor.shutdown(wait=not pids, cancel_futures=True)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue


class _Stopped(BaseException):
    """Ends a worker thread whose run has ended."""


_do: Callable[[Job], None]


def _enlist(context: WorkerContext, emit: Emit) -> None:
    """Make this thread or process a worker."""
    from rubix_token_sync.sync.worker import Worker

    worker = Worker(context)

    def do(job: Job) -> None:
        worker.run(job, emit)

    global _do
    _do = do


def _enlist_process(context: WorkerContext, pipe: Any) -> None:
    # Ctrl-C reaches the whole process group; the run decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()
    _enlist(context, pipe.put)


def _follow(sentinel: int) -> None:
    """A worker does not outlive its run, even one that was killed."""
    wait([sentinel])
    os._exit(1)


def _work(job: Job) -> None:
    faults.point("worker.job")
    _do(job)
