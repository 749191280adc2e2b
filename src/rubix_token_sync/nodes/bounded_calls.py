"""Calls that may hang for ever, because a file system does not answer.

A thread that waits for a dead network mount cannot be interrupted.  So whatever
touches a node's files runs in a thread of its own, which is left behind when it
makes no progress.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from rubix_token_sync.nodes.database_errors import failure

__all__ = ["STALL_SECONDS", "Patience"]

STALL_SECONDS: Final = 60.0
"""A file system that gives no answer for so long counts as stalled."""
_SLICE_SECONDS: Final = 0.5

T = TypeVar("T")
A = TypeVar("A")


class Patience:
    """Runs calls one after the other in one thread; gives up on one that hangs.

    Args:
        seconds: how long a call may go without `progress`.
    """

    def __init__(self, seconds: float = STALL_SECONDS) -> None:
        self._seconds = seconds
        self._beats = 0
        self._asked: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.gave_up = False
        """A call was left behind; nothing that it may still use is to be touched."""

    def progress(self) -> None:
        """Told by a long call: it moves."""
        self._beats += 1

    def call(self, function: Callable[[], T], *, if_late: Callable[[T], None] | None = None) -> T:
        """What ``function`` returns or raises.

        Args:
            function: the call.
            if_late: what to do, in the thread left behind, with a result that comes
                after all.

        Raises:
            SourceError: ``stalled``.
        """
        if self.gave_up:
            raise failure("stalled", "The file system did not answer before.")
        answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        settled = threading.Lock()

        def run() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = function()
            except BaseException as raised:  # noqa: BLE001 - raised where the call was made
                error = raised
            with settled:
                late = self.gave_up
                answers.put((result, error))
            if late and error is None and if_late is not None:
                if_late(result)  # type: ignore[arg-type]

        if self._thread is None:
            thread = threading.Thread(target=self._work, name="source", daemon=True)
            thread.start()
            self._thread = thread
        self._asked.put(run)
        try:
            result, error = self._wait(answers)
        except BaseException:  # stalled, or interrupted by a signal
            with settled:
                self.gave_up = True
                if answers.empty():
                    raise
            result, error = answers.get()
            if error is None and if_late is not None:
                if_late(result)  # type: ignore[arg-type]
            raise
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def _wait(self, answers: queue.SimpleQueue[A]) -> A:
        beats, since = self._beats, time.monotonic()
        while True:
            try:
                # In slices: a signal that came just before a wait is only heard after it.
                return answers.get(timeout=min(self._seconds, _SLICE_SECONDS))
            except queue.Empty:
                if self._beats != beats:
                    beats, since = self._beats, time.monotonic()
                elif time.monotonic() - since >= self._seconds:
                    raise failure(
                        "stalled", f"The file system gave no answer for {self._seconds:g} s."
                    ) from None

    def _work(self) -> None:
        while (run := self._asked.get()) is not None:
            run()

    def close(self, last: Callable[[], None] | None = None) -> None:
        """Make ``last`` the last call and end the thread.

        A call that hangs is not waited for; ``last`` follows when it ends.
        """
        if self._thread is None:
            if last is not None:
                last()
            return
        if last is not None:
            self._asked.put(last)
        self._asked.put(None)
        if not self.gave_up:
            self._thread.join(self._seconds)
