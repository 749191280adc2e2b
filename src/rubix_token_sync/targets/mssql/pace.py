"""How fast a run may go: slower at once when the server throttles, faster again bit by bit."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

__all__ = ["Pace"]

_FEWEST_ROWS: Final = 250
_CHUNKS_BEFORE_FASTER: Final = 8


class Pace:
    """Bounds how many publish at once and how many rows a transaction has.

    The rule of TCP: halved when told to slow down, then one step up for every
    few chunks that went well.
    """

    def __init__(self, writers: int, rows: int) -> None:
        self._most_writers, self._most_rows = writers, rows
        self.writers, self.rows = writers, rows
        self.slowed = 0
        self._busy = 0
        self._went_well = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until fewer than `writers` are at work, then be one of them."""
        with self._changed:
            self._changed.wait_for(lambda: self._busy < self.writers)
            self._busy += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def slow_down(self) -> None:
        """The server asked for less."""
        with self._changed:
            self.writers = max(1, self.writers // 2)
            self.rows = max(_FEWEST_ROWS, self.rows // 2)
            self.slowed += 1
            self._went_well = 0

    def went_well(self) -> None:
        """A chunk was stored without the server complaining."""
        with self._changed:
            self._went_well += 1
            if self._went_well < _CHUNKS_BEFORE_FASTER:
                return
            self._went_well = 0
            self.writers = min(self._most_writers, self.writers + 1)
            self.rows = min(self._most_rows, self.rows * 2)
            self._changed.notify_all()
