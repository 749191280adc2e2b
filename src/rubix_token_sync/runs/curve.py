"""How fast a run was over its time: a curve of bounded size."""

from __future__ import annotations

from typing import Final

__all__ = ["FINEST_SECONDS", "MOST_POINTS", "Curve"]

MOST_POINTS: Final = 240
"""A curve has no more points; a long run has coarser ones."""

FINEST_SECONDS: Final = 0.1
"""Between two points; rates over less are noise."""


class Curve:
    """Points of (seconds since the start, tokens read so far), in order.

    When it is full every second point goes and the step doubles: memory and report
    stay small however long a run takes, and no part of it is better drawn than another.
    """

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []
        self._last: tuple[float, int] | None = None
        self._step = FINEST_SECONDS

    def note(self, seconds: float, tokens: int) -> None:
        """So many tokens were read when so many seconds had gone."""
        if self._last is not None and tokens == self._last[1]:
            return
        self._last = (seconds, tokens)
        if self._points and seconds - self._points[-1][0] < self._step:
            return
        self._points.append(self._last)
        if len(self._points) >= MOST_POINTS:
            self._points = self._points[1::2]
            self._step = max(self._step * 2, self._points[-1][0] / MOST_POINTS * 2)

    @property
    def points(self) -> list[tuple[float, int]]:
        """From the start to the newest one."""
        points = list(self._points)
        if self._last is not None and (not points or points[-1] != self._last):
            points.append(self._last)
        return points

    def samples(self) -> list[dict[str, float | int]]:
        """For the report: each point with the rate since the one before it."""
        found: list[dict[str, float | int]] = []
        before = (0.0, 0)
        for seconds, tokens in self.points:
            passed = seconds - before[0]
            if passed <= 0:
                continue
            found.append(
                {
                    "seconds": round(seconds, 3),
                    "tokens_read": tokens,
                    "tokens_per_second": round((tokens - before[1]) / passed, 1),
                }
            )
            before = (seconds, tokens)
        return found
