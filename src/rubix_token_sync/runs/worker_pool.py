"""The one seam to executors: jobs go out, events come back.

By default a pool of processes started from a fork server (threads and forks do
not mix); for little work, one thread of this process.  Results that are too
large or too many for a future travel on a pipe, whose fixed size is the
back-pressure: a worker waits until the writer has taken what came before.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from rubix_token_sync import failpoints
from rubix_token_sync.errors import SyncError, WorkerCrashed
from rubix_token_sync.os_errors import refusal
from rubix_token_sync.runs.event_queue import EventQueue
from rubix_token_sync.runs.jobs import Batch, Emit, Event, Job, WorkerContext

if TYPE_CHECKING:
    from rubix_token_sync.runs.worker import Worker

__all__ = ["Crew", "affordable"]

_HELD_BYTES: Final = 48 << 20
"""Rows that wait to be written; so much can be read ahead of a target that is slow to start."""
_PIPE_BYTES: Final = 1 << 20
_NICENESS: Final = 5
"""Of worker processes: what waits to be stored goes first, as does the node on this machine."""
_LOOK_SECONDS: Final = 0.2
_LEAVE_SECONDS: Final = 5.0
"""So long a run waits for workers that were told to end."""
_HANDLES: Final = 32
_HANDLES_EACH: Final = 8
"""Open files of a run with worker processes, and of each of them in the run's own process."""


def affordable(processes: int) -> int:
    """``processes``, or 0 where the limit of open files cannot be raised far enough for them."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return processes
    needed = _HANDLES + _HANDLES_EACH * processes
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return processes
    if hard != resource.RLIM_INFINITY and hard < needed:
        return 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return processes


class Crew:
    """Runs jobs on several workers and hands their events over, one at a time.

    A context: leaving it ends the workers, whatever they are at.
    """

    def __init__(self, context: WorkerContext, processes: int) -> None:
        """``processes`` = 0 works in one thread of this process."""
        self._events = EventQueue(_HELD_BYTES)
        self._stopped = threading.Event()
        self._crash: SyncError | None = None
        self._dismiss: Callable[[], None] = lambda: None
        self._all_left: Callable[[float], None] = lambda _seconds: None
        self._worker_processes: Callable[[], list[BaseProcess]] = list
        self._served: Callable[[], bool] = lambda: True
        self._hiring: threading.Thread | None = None
        self._inline: list[Worker] = []
        self._executor: Executor
        if processes == 0:
            self._executor = _Inline(partial(_enlist, context, self._put, self._inline))
        else:
            self._start_processes(context, processes)

    def _start_processes(self, context: WorkerContext, processes: int) -> None:
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else None
        system = multiprocessing.get_context(method)
        if method == "forkserver":
            needed = [__name__, "rubix_token_sync.runs.worker"]
            if context.target is not None:
                needed.append(context.target.module)
            system.set_forkserver_preload(needed)
            # It loads them while the target is prepared; if it cannot start, the first job says so.
            with contextlib.suppress(OSError):
                _start_fork_server()
        # A pipe with a lock rather than a queue: with the last writer gone, its reader ends.
        reader, writer = system.Pipe(duplex=False)
        _widen(writer)
        # Nothing is ever sent on this one: that its other end is closed tells workers to leave.
        leave, stay = system.Pipe(duplex=False)
        pool = ProcessPoolExecutor(
            processes, system, _enlist_process, (context, writer, system.Lock(), leave)
        )
        # Python 3.14 has terminate_workers(); before that the pool's own table is the only way.
        self._worker_processes = lambda: list((getattr(pool, "_processes", None) or {}).values())
        self._executor = pool
        self._served = lambda: _is_served(pool)
        drain = threading.Thread(
            target=self._drain, args=(reader,), name="rubix-events", daemon=True
        )
        drain.start()
        self._all_left = drain.join

        def dismiss() -> None:
            for end in (writer, leave, stay):
                end.close()

        self._dismiss = dismiss

    def _drain(self, pipe: Connection[Any, Any]) -> None:
        """Take events off the pipe until its last writer has gone."""
        with pipe:
            try:
                while True:
                    self._put(pipe.recv())
            except BaseException as error:  # noqa: BLE001 - handed to the run, which ends with it
                if not self._stopped.is_set():
                    self._note_crash(error)
            _discard(pipe)

    def _put(self, event: Event) -> None:
        while not self._stopped.is_set():
            try:
                self._events.put(event, _LOOK_SECONDS)
                return
            except queue.Full:
                continue
        raise _Stopped

    def run(self, jobs: Sequence[Job]) -> Iterator[Event | None]:
        """Begin with the jobs; gives every event of each, None now and then while there is none.

        The iterator raises:
            WorkerCrashed: a worker died or raised what nobody foresaw.
            SyncError: what a worker raised on purpose (the target is gone …).
        """
        # In a thread: the first process cannot start until its server has loaded everything.
        hiring = threading.Thread(
            target=self._hire, args=(tuple(jobs),), name="rubix-jobs", daemon=True
        )
        hiring.start()
        self._hiring = hiring
        return self._tell({job.number for job in jobs})

    def _hire(self, jobs: Sequence[Job]) -> None:
        try:
            for job in jobs:
                if self._stopped.is_set():
                    return
                future = self._executor.submit(_work, job)
                future.add_done_callback(partial(self._note_end, job.node.db_path))
        except BaseException as error:  # noqa: BLE001 - handed to the run, which ends with it
            # A worker, or the server that forks them, died at the start, or cannot start.
            self._note_crash(error)

    def _tell(self, open_jobs: set[int]) -> Iterator[Event | None]:
        while open_jobs:
            if self._crash is not None:
                raise self._crash
            try:
                event = self._events.get(_LOOK_SECONDS)
            except queue.Empty:
                self._look()
                yield None
                continue
            yield event
            if event is not None and not isinstance(event, Batch):
                open_jobs.remove(event.job)

    def _look(self) -> None:
        """Notice what the pool does not tell."""
        if not self._served():
            self._note_crash(RuntimeError("can't start new thread"))
        # It waits for the workers that it had when it began to wait: not for the last started.
        if wait([process.sentinel for process in self._worker_processes()], 0):
            self._note_crash(BrokenExecutor())

    def _note_end(self, path: str, future: Future[None]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self._note_crash(error, f" on {path}")

    def _note_crash(self, error: BaseException, where: str = "") -> None:
        """The first one is what the run ends with; called in any thread."""
        crash = error if isinstance(error, SyncError) else _crashed(error, where)
        self._crash = self._crash or crash

    def close(self) -> None:
        """End the workers now: they only read, so nothing is lost with them.

        Waits until they have gone, but not for one that is stuck in the system.
        """
        self._stopped.set()
        if self._hiring is not None:
            self._hiring.join(_LEAVE_SECONDS)
            if self._hiring.is_alive():  # it holds what a shutdown would wait for
                self._dismiss()
                return
        processes = self._worker_processes()
        self._executor.shutdown(wait=not processes, cancel_futures=True)
        for process in processes:
            process.terminate()
        self._dismiss()
        deadline = time.monotonic() + _LEAVE_SECONDS
        left = {process.sentinel for process in processes}
        while left and (seconds := deadline - time.monotonic()) > 0:
            left.difference_update(wait(left, seconds))
        # Where the server that forked them was killed, they look as if they had ended.
        self._all_left(max(0.0, deadline - time.monotonic()))
        if isinstance(self._executor, _Inline) and self._executor.stuck:
            return  # its worker may still use what would be closed
        for worker in self._inline:
            worker.close()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _start_fork_server() -> None:
    """Start the server so that Ctrl-C, which reaches all of a terminal's group, is not for it.

    It heeds that itself, but only once it has loaded everything; until then, and in a worker
    that has not begun yet, it would be a traceback on the user's terminal.
    """
    resource_tracker.ensure_running()  # which sets the mask itself
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _widen(pipe: Connection[Any, Any]) -> None:
    """Have a pipe take a batch at once: each time it is full costs two switches of processes."""
    # A user may be allowed less, and not every system can.
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _discard(pipe: Connection[Any, Any]) -> None:
    """Read to the end what nobody wants any more."""
    with contextlib.suppress(OSError):  # a writer that died in the middle of something
        while os.read(pipe.fileno(), 1 << 20):
            pass


def _is_served(pool: ProcessPoolExecutor) -> bool:
    """False when the pool's own thread has died, which it tells nobody.

    It starts a second thread at its first job; where the system refuses that, every
    job would wait for ever.
    """
    thread: threading.Thread | None = getattr(pool, "_executor_manager_thread", None)
    if thread is None or thread.ident is None:  # it is not yet started
        return True
    return thread.is_alive() or getattr(pool, "_broken", False) is not False


class _Inline(Executor):
    """One thread.  Unlike the standard pool's, one that hangs does not keep the program alive."""

    def __init__(self, prepare: Callable[[], None]) -> None:
        """``prepare`` is called once, in the thread."""
        self._prepare = prepare
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._tasks = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="rubix-worker", daemon=True)
        self._thread.start()

    @property
    def stuck(self) -> bool:
        """It was told to end and did not."""
        return self._thread.is_alive()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._tasks.put((future, partial(fn, *args, **kwargs)))
        return future

    def _serve(self) -> None:
        ready = False
        while (task := self._tasks.get()) is not None:
            future, work = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if not ready:
                    self._prepare()
                    ready = True
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
                future.set_exception(error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        while cancel_futures:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                break
            if task is not None:
                task[0].cancel()
        self._tasks.put(None)
        if wait:
            self._thread.join(_LEAVE_SECONDS)


def _crashed(error: BaseException, where: str) -> WorkerCrashed:
    """What a run ends with when one of its workers ended with ``error``."""
    if isinstance(error, BrokenExecutor | EOFError | ConnectionError):
        crash = WorkerCrashed(
            "A worker process ended abruptly (killed, or out of memory).",
            code="worker_killed",
            remedy="Check the system's log for the out-of-memory killer, lower "
            "NUM_IPFS_WORKERS, and run again: nothing stored is lost.",
        )
    elif (refused := refusal(error)) is not None:
        crash = WorkerCrashed(
            f"A worker failed{where}. {refused.message}", code=refused.code, remedy=refused.remedy
        )
    else:
        crash = WorkerCrashed(
            f"A worker failed{where}: {type(error).__name__}: {error}",
            code="worker_failed",
            remedy="This is a bug; please report it with the log of a --verbose run.",
        )
    crash.__cause__ = error
    return crash


class _Stopped(BaseException):
    """Ends a worker thread whose run has ended."""


_here = threading.local()
"""``do``: how this thread (the only one of a worker process) does a job."""


def _enlist(context: WorkerContext, emit: Emit, enlisted: list[Worker]) -> None:
    """Make this thread or process a worker."""
    from rubix_token_sync.runs.worker import Worker

    worker = Worker(context)
    enlisted.append(worker)

    def do(job: Job) -> None:
        worker.run(job, emit)

    _here.do = do


def _enlist_process(
    context: WorkerContext,
    pipe: Connection[Any, Any],
    lock: Lock,
    leave: Connection[Any, Any],
) -> None:
    # Ctrl-C reaches the whole process group; the run decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(os, "nice"):  # Windows has no such thing
        os.nice(_NICENESS)
    parent = multiprocessing.parent_process()
    ends = [leave] if parent is None else [leave, parent.sentinel]
    threading.Thread(target=_follow, args=(ends,), daemon=True).start()

    def emit(event: Event) -> None:
        with lock:
            failpoints.point("worker.emit")
            pipe.send(event)

    _enlist(context, emit, [])
    # What is loaded stays; a batch makes thousands of objects and hardly a cycle.
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def _follow(ends: list[Connection[Any, Any] | int]) -> None:
    """A worker does not outlive its crew, nor its run, even one that was killed."""
    wait(ends)
    os._exit(1)


def _work(job: Job) -> None:
    try:
        failpoints.point("worker.job")
        do: Callable[[Job], None] = _here.do
        do(job)
    except SyncError:
        raise
    except Exception as error:
        # Here, not in the run: not every exception survives the way to another process.
        raise _crashed(error, f" on {job.node.db_path}") from error
