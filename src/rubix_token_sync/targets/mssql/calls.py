"""Calls into Microsoft's driver, bounded by our own clock and with one kind of error.

The driver's own time-out can hang while the server does not acknowledge the
cancel.  So each connection has a thread for its calls, and is waited for no
longer than it was told; what its native parts raise becomes a driver's error.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final, TypeVar

import mssql_python

from rubix_token_sync import threads

__all__ = ["CallThread", "Hung", "as_driver_errors"]

_GRACE_SECONDS: Final = 5.0
"""The driver's own time-out comes first by so much."""

T = TypeVar("T")


class Hung(mssql_python.OperationalError):
    """A call that did not come back in time."""

    def __init__(self, seconds: float) -> None:
        super().__init__("Timeout expired", f"No answer within {seconds:g} s.")


class CallThread:
    """Runs one connection's calls, one after the other."""

    def __init__(self) -> None:
        self.hung = False
        """A call did not come back: nothing is called any more."""
        self._ended = False
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # A daemon: a call that never returns must not keep the program from ending.
        self._thread = threads.daemon(self._run, "rubix-mssql")

    def call(
        self, work: Callable[[], T], seconds: float, late: Callable[[], None] | None = None
    ) -> T:
        """The result of ``work``; raises `Hung` when it takes much longer than ``seconds``.

        ``seconds`` is what the driver was told, so that its time-out comes first where it
        works.  ``late`` runs in the thread if the call returns after all.
        """
        seconds += _GRACE_SECONDS
        if threading.current_thread() is self._thread:
            return work()
        if self.hung or self._ended:
            why = "its last call hung" if self.hung else "it was given up"
            raise mssql_python.InterfaceError(
                "Connection not open", f"Cannot use a closed connection: {why}."
            )
        finished = threading.Event()
        result: list[T] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                result.append(work())
            except BaseException as error:  # noqa: BLE001 - raised again by the caller
                failure.append(error)
            with self._lock:
                finished.set()
                if not self.hung:
                    return
            if late is not None:
                late()
            self.end()

        self._calls.put(run)
        if not finished.wait(seconds):
            with self._lock:
                self.hung = not finished.is_set()
            if self.hung:
                raise Hung(seconds)
        if failure:
            raise failure[0]
        return result[0]

    def end(self) -> None:
        """No more calls; the thread ends after those it has."""
        self._ended = True
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def as_driver_errors(work: Callable[[], T]) -> T:
    """The result of ``work``; what the driver's native parts raise as the driver's own errors.

    Raises:
        mssql_python.Error: nothing else comes of a driver's failure.
    """
    try:
        return work()
    except ValueError as error:  # a value that its column cannot take
        raise mssql_python.DataError("String data, right truncated", str(error)) from error
    except (RuntimeError, OSError) as error:  # what the bulk copy's client raises
        raise mssql_python.OperationalError("Bulk copy failed", str(error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise mssql_python.OperationalError(
            "Bulk copy panicked", f"The driver's bulk copy panicked: {error}"
        ) from error
