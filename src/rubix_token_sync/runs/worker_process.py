"""What a worker process is: the other end of `rubix_token_sync.runs.worker_pool`.

The first one is started by the run; it loads what a worker needs and forks the
others.  All then do the same: take jobs off their socket until it is closed.
A SIGTERM ends a worker after the transaction it is in; whatever else it does
can be left at any instant, for it only reads.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final, NoReturn

from rubix_token_sync import failpoints, threads
from rubix_token_sync.errors import SyncError, WorkerCrashed
from rubix_token_sync.os_errors import refusal
from rubix_token_sync.runs.cancel import CancelToken, Interrupted
from rubix_token_sync.runs.jobs import Report, WorkerContext
from rubix_token_sync.surroundings import hide_unused

__all__ = ["Failure", "LogRecord", "crashed", "killed", "main", "replay"]

_NICENESS: Final = 5
"""Of worker processes: the node on this machine goes first."""


@dataclass(frozen=True)
class Failure:
    """What ends the run, sent instead of a result."""

    error: SyncError


@dataclass(frozen=True)
class LogRecord:
    """A line that a worker logs; the run prints it."""

    name: str
    level: int
    message: str


def replay(record: LogRecord) -> None:
    """Log a worker's line here."""
    logging.getLogger(record.name).log(record.level, "%s", record.message)


def killed(where: str) -> WorkerCrashed:
    """A worker ended without a word."""
    return WorkerCrashed(
        f"A worker process ended abruptly{where} (killed, or out of memory).",
        code="worker_killed",
        remedy="Check the system's log for the out-of-memory killer, lower "
        "NUM_IPFS_WORKERS, and run again: nothing stored is lost.",
    )


def crashed(error: BaseException, where: str) -> WorkerCrashed:
    """What a run ends with when one of its workers ended with ``error``."""
    if (refused := refusal(error)) is not None:
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


def main(orders: dict[str, Any]) -> NoReturn:
    """Become a worker, and fork the others: one for each of the sockets."""
    sockets: list[int] = orders["sockets"]
    number = 0
    try:
        # Whoever asks for the end before there is anything to finish need not wait.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(1))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.nice(_NICENESS)
        failpoints.arm()
        hide_unused()
        for module in ("rubix_token_sync.runs.worker", *orders["preload"]):
            importlib.import_module(module)
        # What is loaded stays; a batch makes thousands of objects and hardly a cycle.
        gc.freeze()
        gc.set_threshold(50_000, 10, 10)
        number = _forked(len(sockets))
        for other in sockets:
            if other != sockets[number]:
                os.close(other)
        _serve(_Line(Connection(sockets[number])), orders["life"], orders["turn"])
    except BaseException as error:  # noqa: BLE001 - sent to the run, which ends with it
        with contextlib.suppress(OSError):
            _send_failure(_Line(Connection(sockets[number])), crashed(error, ""))
    finally:
        os._exit(0)


def _forked(workers: int) -> int:
    """Fork the other workers; which of them this process is now."""
    for number in range(1, workers):
        if os.fork() == 0:
            return number
    return 0


def _serve(run: _Line, life: int, turn: list[int]) -> None:
    cancel = CancelToken()
    signal.signal(signal.SIGTERM, lambda number, _frame: cancel.give(number))
    threads.daemon(_follow, "rubix-run", life)
    logger = logging.getLogger("rubix_token_sync")
    logger.addHandler(_ToRun(run))
    logger.propagate = False
    try:
        with cancel.at_once():
            context: WorkerContext = run.receive()
            taking_turns = partial(_turn, cancel, *turn) if turn else cancel.shielded
            _work(context, run, taking_turns)
    except (EOFError, ConnectionError, Interrupted):
        pass  # the run has ended, or wants this to end


def _work(
    context: WorkerContext,
    run: _Line,
    turn: Callable[[], AbstractContextManager[None]],
) -> None:
    from rubix_token_sync.runs.worker import Worker

    def send(report: Report) -> None:
        failpoints.point("worker.emit")
        run.send(report)

    worker = Worker(context, turn)
    while True:
        job = run.receive()
        try:
            run.send(worker.run(job, send))
        except SyncError as error:
            _send_failure(run, error)
        except (EOFError, ConnectionError):
            raise
        except Exception as error:  # noqa: BLE001 - sent to the run, which ends with it
            _send_failure(run, crashed(error, f" on {job.node.db_path}"))


def _send_failure(run: _Line, error: SyncError) -> None:
    error.__cause__ = None  # not every exception survives the way to another process
    run.send(Failure(error))


@contextlib.contextmanager
def _turn(cancel: CancelToken, take: int, give_back: int) -> Iterator[None]:
    """Wait for the one token of all workers, and keep it until the end.

    A worker that is killed takes it along; the run then ends the others.
    """
    token = os.read(take, 1)
    try:
        with cancel.shielded():
            yield
    finally:
        os.write(give_back, token)


def _follow(life: int) -> None:
    """A worker does not outlive its run, even one that was killed."""
    poller = select.poll()
    poller.register(life, select.POLLHUP | select.POLLERR)
    poller.poll()
    os._exit(1)


class _Line:
    """The worker's end of the socket; several threads may send."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def receive(self) -> Any:
        return self._connection.recv()

    def send(self, message: Report | Failure | LogRecord) -> None:
        with self._lock:
            self._connection.send(message)


class _ToRun(logging.Handler):
    """Warnings and errors of a worker are the run's to print."""

    def __init__(self, run: _Line) -> None:
        super().__init__(logging.WARNING)
        self._run = run

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # the run has ended
            self._run.send(LogRecord(record.name, record.levelno, record.getMessage()))
