"""How large a transaction may be: smaller at once when the server throttles, larger bit by bit."""

from __future__ import annotations

from typing import Final

__all__ = ["Pace"]

_FEWEST_ROWS: Final = 250
_CHUNKS_BEFORE_LARGER: Final = 8


class Pace:
    """The rule of TCP: halved when the server asks for less, doubled after some good chunks."""

    def __init__(self, rows: int) -> None:
        self._most_rows = rows
        self.rows = rows
        """The most rows of a transaction now."""
        self._went_well = 0

    def slow_down(self) -> None:
        """The server asked for less."""
        self.rows = max(_FEWEST_ROWS, self.rows // 2)
        self._went_well = 0

    def went_well(self) -> None:
        """A chunk was stored without the server complaining."""
        self._went_well += 1
        if self._went_well >= _CHUNKS_BEFORE_LARGER:
            self._went_well = 0
            self.rows = min(self._most_rows, self.rows * 2)
