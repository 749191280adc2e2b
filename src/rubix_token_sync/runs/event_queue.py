"""A queue of events that is bounded by the memory of their rows, not by their number."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque

from rubix_token_sync.runs.jobs import Batch, Event

__all__ = ["EventQueue"]

_LEAST_BYTES = 4_096
"""What an event counts for at least: its own objects."""


class EventQueue:
    """First in, first out, between threads; holds one event at least, however large.

    `None` says that there will be no more; it is up to who puts and gets.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held = 0
        self._events: deque[tuple[int, Event | None]] = deque()
        self._changed = threading.Condition()

    @property
    def held_bytes(self) -> int:
        """What waits in it."""
        return self._held

    def put(self, event: Event | None, seconds: float) -> None:
        """Add an event.

        Raises:
            queue.Full: there was no room for so long.
        """
        size = _size(event)
        until = time.monotonic() + seconds
        with self._changed:
            while self._events and self._held + size > self._most:
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise queue.Full
            self._events.append((size, event))
            self._held += size
            self._changed.notify_all()

    def get(self, seconds: float) -> Event | None:
        """Take the oldest event.

        Raises:
            queue.Empty: there was none for so long.
        """
        until = time.monotonic() + seconds
        with self._changed:
            while not self._events:
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise queue.Empty
            size, event = self._events.popleft()
            self._held -= size
            self._changed.notify_all()
            return event


def _size(event: Event | None) -> int:
    rows = event.rows if isinstance(event, Batch) else None
    return max(_LEAST_BYTES, rows.nbytes if rows is not None else 0)
