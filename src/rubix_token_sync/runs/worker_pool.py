"""Worker processes, and the way jobs go to them and reports come back.

One process is started; it loads what a worker needs and forks the others, so
that Python and its libraries are loaded once.  Each worker has a socket of its
own: a job goes in, reports and the result come out.  Nothing is shared, so a
worker that is killed at any instant leaves nothing locked and is noticed at
once.  No temporary file, no semaphore, no path in a file system is needed.

Little work is done in the run's own process: processes take 0.3 s to start.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Final, Protocol, TypeAlias

from rubix_token_sync.errors import SyncError
from rubix_token_sync.os_errors import refusal
from rubix_token_sync.runs.cancel import CancelToken
from rubix_token_sync.runs.jobs import Job, Report, WorkerContext
from rubix_token_sync.runs.worker_process import Failure, LogRecord, crashed, killed, replay
from rubix_token_sync.surroundings import LIBRARIES
from rubix_token_sync.targets.base import Lease

__all__ = ["Executor", "Pool", "WorkerPool", "affordable"]

_LOOK_SECONDS: Final = 0.2
_FINISH_SECONDS: Final = 30.0
"""So long a run that was asked to stop waits for the chunks under way."""
_LEAVE_SECONDS: Final = 2.0
"""So long any other run waits for its workers to end."""
_HANDLES: Final = 40
_HANDLES_EACH: Final = 4
"""Open files of a run with worker processes, and of each of them in the run's own process."""

# Started with -I: neither the current directory nor an empty entry of PYTHONPATH is ever on its
# path. The run's own path is handed over, for it may have been changed since Python started.
_BOOT: Final = (
    "import sys; a = sys.argv; import json; o = json.loads(a[1]); sys.path[:] = o['path'];"
    " from rubix_token_sync.runs.worker_process import main; main(o)"
)


class Pool(Protocol):
    """Who does jobs; a context that ends them."""

    def run(
        self,
        jobs: Iterable[Job],
        on_report: Callable[[Report], None],
        on_idle: Callable[[], None],
    ) -> None:
        """As `WorkerPool.run`."""

    def __enter__(self) -> Pool: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


Executor: TypeAlias = Callable[[Lease | None, CancelToken], Pool]
"""Makes the pool of a run, where that is not the run's own processes; jobs publish under the
lease, if there is one."""


def affordable(processes: int) -> int:
    """``processes``, or 0 where they cannot be had.

    The limit of open files is raised where it must be and can be; a system
    without `os.fork` runs its jobs in the run's own process.
    """
    if not hasattr(os, "fork"):
        return 0
    import resource

    needed = _HANDLES + _HANDLES_EACH * processes
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return processes
    if hard != resource.RLIM_INFINITY and hard < needed:
        return 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return processes


class WorkerPool:
    """Does jobs in several processes, or in this one; a context that ends them.

    Everything it calls back, it calls in the thread of `run` or `close`.
    """

    def __init__(
        self, context: WorkerContext, processes: int, cancel: CancelToken, *, in_turn: bool = False
    ) -> None:
        """Starts to start ``processes`` workers; 0 works in this process.

        ``in_turn``: one worker at a time writes to the target.

        Raises:
            SyncError: the system refuses a process.
        """
        self._context = context
        self._cancel = cancel
        self._on_report: Callable[[Report], None] = lambda _report: None
        self._workers: dict[Connection[Any, Any], Job | None] = {}
        self._process: subprocess.Popen[bytes] | None = None
        if processes:
            self._start(processes, in_turn)

    def _start(self, processes: int, in_turn: bool) -> None:
        pairs = [socket.socketpair() for _ in range(processes)]
        # Nothing is ever sent on this one: that its other end is closed tells workers to leave.
        self._life, stay = os.pipe()[::-1]
        turn = os.pipe() if in_turn else ()
        if turn:
            os.write(turn[1], b"1")
        theirs = [theirs.fileno() for _, theirs in pairs]
        target = self._context.target
        orders = {
            "path": [entry for entry in sys.path if os.path.isabs(entry)],
            "sockets": theirs,
            "life": stay,
            "turn": turn,
            "preload": target.modules if target is not None else [],
        }
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", *_utf8_mode(), "-c", _BOOT, json.dumps(orders)],
                pass_fds=(*theirs, stay, *turn),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **LIBRARIES},
                process_group=0,  # Ctrl-C reaches the whole of a terminal's group
            )
        except OSError as error:
            raise (refusal(error) or killed("")) from error
        finally:
            for fd in (stay, *turn):
                os.close(fd)
            for _, end in pairs:
                end.close()
        for ours, _ in pairs:
            self._workers[Connection(ours.detach())] = None

    def run(
        self,
        jobs: Iterable[Job],
        on_report: Callable[[Report], None],
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        """Do the jobs, the first ones first; returns when all have ended.

        A job is taken when a worker is free for it, and not before.

        ``on_report`` gets every report; it must not raise.  ``on_idle`` is called
        after each and several times a second; what it raises ends the run.

        Raises:
            WorkerCrashed: a worker was killed or raised what was not foreseen.
            SyncError: what a worker raised on purpose (the target is gone …).
            Interrupted: the token was given.
        """
        self._on_report = on_report
        if self._process is None:
            self._run_here(jobs, on_idle)
            return
        waiting, more = iter(jobs), True
        for worker in self._workers:
            _post(worker, self._context)
        while True:
            for worker, busy in self._workers.items():
                if busy is None and more:
                    job = next(waiting, None)
                    if job is None:
                        more = False
                        break
                    self._workers[worker] = job
                    _post(worker, job)
            if not any(self._workers.values()):
                return
            for ready in wait(list(self._workers), _LOOK_SECONDS):
                assert isinstance(ready, Connection)
                self._receive(ready)
                on_idle()
            on_idle()

    def _run_here(self, jobs: Iterable[Job], on_idle: Callable[[], None]) -> None:
        from rubix_token_sync.runs.worker import Worker

        def send(report: Report) -> None:
            with self._cancel.shielded():
                self._on_report(report)
                on_idle()

        worker = Worker(self._context, self._cancel.shielded)
        try:
            for job in jobs:
                with self._cancel.at_once():
                    try:
                        result = worker.run(job, send)
                    except SyncError:
                        raise
                    except Exception as error:
                        raise crashed(error, f" on {job.node.db_path}") from error
                send(result)
        finally:
            worker.close()

    def _receive(self, worker: Connection[Any, Any]) -> None:
        job = self._workers[worker]
        where = f" on {job.node.db_path}" if job is not None else ""
        try:
            message = worker.recv()
        except (EOFError, OSError) as error:
            raise killed(where) from error
        except Exception as error:  # half a message of a worker that was killed
            raise crashed(error, where) from error
        if isinstance(message, Failure):
            raise message.error
        if isinstance(message, LogRecord):
            replay(message)
            return
        if message.ends_job:
            self._workers[worker] = None
        self._on_report(message)

    def close(self, seconds: float = _LEAVE_SECONDS) -> None:
        """End the workers after the transactions under way, but within ``seconds``.

        What they publish until then is reported.
        """
        process, self._process = self._process, None
        if process is None:
            return
        self._signal(process, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while self._workers and (left := deadline - time.monotonic()) > 0:
            for ready in wait(list(self._workers), left):
                assert isinstance(ready, Connection)
                try:
                    self._receive(ready)
                except SyncError:  # it has ended, one way or another
                    del self._workers[ready]
                    ready.close()
        if self._workers:
            self._signal(process, signal.SIGKILL)
        os.close(self._life)
        for worker in self._workers:
            worker.close()
        self._workers.clear()
        process.wait()

    @staticmethod
    def _signal(process: subprocess.Popen[bytes], number: int) -> None:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            process.poll()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asked = self._cancel.signal_number is not None
        self.close(_FINISH_SECONDS if asked else _LEAVE_SECONDS)


def _utf8_mode() -> list[str]:
    """As this process has it: -I leaves the environment's word for it out."""
    return ["-X", "utf8"] if sys.flags.utf8_mode else []


def _post(worker: Connection[Any, Any], message: WorkerContext | Job | None) -> None:
    try:
        worker.send(message)
    except OSError as error:
        raise killed("") from error
