"""A wish to stop a run: given by a signal at any moment, taken at safe points only.

An exception out of a signal handler can appear between any two instructions: in
the middle of a commit, of closing a session, of starting a thread.  So the
handler only leaves a note (`CancelToken.give`), and the run looks at it where
nothing is half done (`CancelToken.check`).  Where a run only reads and may take
long, it lets itself be torn away (`CancelToken.at_once`).
"""

from __future__ import annotations

from types import TracebackType

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
        self._torn = False

    def give(self, signal_number: int) -> None:
        """Ask for the stop; only for a handler that the main thread runs.

        Raises:
            Interrupted: the run is in a stretch of `at_once`.
        """
        self.signal_number = signal_number
        if self._torn:
            raise Interrupted(signal_number)

    def check(self) -> None:
        """A safe point.

        Raises:
            Interrupted: the stop was asked for.
        """
        if self.signal_number is not None:
            raise Interrupted(self.signal_number)

    def at_once(self) -> _Stretch:
        """``with stop.at_once():`` a stretch that may be broken off anywhere."""
        return _Stretch(self)


class _Stretch:
    def __init__(self, stop: CancelToken) -> None:
        self._stop = stop

    def __enter__(self) -> None:
        self._stop._torn = True  # before looking: a signal in between is not overlooked
        try:
            self._stop.check()
        except Interrupted:
            self._stop._torn = False
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop._torn = False
