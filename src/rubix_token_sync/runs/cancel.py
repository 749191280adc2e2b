"""A request to stop: made by a signal at any moment, honoured at safe points only.

An exception out of a signal handler can appear between any two instructions: in
the middle of a commit, of closing a session, of starting a thread.  So the
handler only records the request (`CancelToken.give`), and the run looks at it
where nothing is half done (`CancelToken.check`).  A stretch that only reads, and
may take long, can be left anywhere (`CancelToken.at_once`); within it a
transaction is shielded (`CancelToken.shielded`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["CancelToken", "Interrupted"]


class Interrupted(BaseException):
    """The run was asked to stop and has come to a point where it can."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class CancelToken:
    """What the signal handler of the main thread and the run share."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        """The signal that asked for the stop, once one did."""
        self._anywhere = False

    def give(self, signal_number: int) -> None:
        """Ask for the stop; only for a handler that the main thread runs.

        Raises:
            Interrupted: the run is in a stretch of `at_once`.
        """
        self.signal_number = signal_number
        if self._anywhere:
            raise Interrupted(signal_number)

    def ask(self, signal_number: int) -> None:
        """Ask for the stop from another thread: the run finds it at its next safe point."""
        self.signal_number = signal_number

    def check(self) -> None:
        """A safe point.

        Raises:
            Interrupted: the stop was asked for.
        """
        if self.signal_number is not None:
            raise Interrupted(self.signal_number)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A stretch that may be left anywhere.

        Raises:
            Interrupted: the stop was or is asked for.
        """
        before = self._anywhere
        try:
            self._anywhere = True  # before looking: a signal in between is not overlooked
            self.check()
            yield
        finally:
            self._anywhere = before

    @contextlib.contextmanager
    def shielded(self) -> Iterator[None]:
        """A part of such a stretch that is finished first.

        Raises:
            Interrupted: the stop was asked for meanwhile; after what is shielded.
        """
        before, self._anywhere = self._anywhere, False
        try:
            yield
        finally:
            self._anywhere = before
        if before:
            self.check()
