"""A circuit breaker: an endpoint that keeps failing is left alone for a while.

Closed: requests go through.  After some failures in a row it opens: requests
fail at once, with the failure that opened it.  When its time is over, one
request goes through as a probe; its outcome closes the breaker or opens it
again for twice as long.

Breakers belong to the process, not to a node: what one database's tokens have
taught about a gateway holds for the next database too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from rubix_token_sync.ipfs.content import Failure

__all__ = ["Breaker", "breaker_of", "forget_breakers"]

THRESHOLD: Final = 5
COOL_S: Final = 30.0
LONGEST_S: Final = 300.0


class Breaker:
    """The state of one endpoint; safe to use from many threads."""

    def __init__(
        self, *, threshold: int = THRESHOLD, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._threshold = threshold
        self._clock = clock
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._failure: Failure | None = None
        self._probing = False
        self._until = 0.0
        self._cool_s = COOL_S

    @property
    def open(self) -> bool:
        """Whether requests are kept back (but for a probe now and then)."""
        return self._failure is not None

    def resting(self) -> Failure | None:
        """The failure that keeps all requests back just now; None when `check` is worth a call."""
        failure = self._failure
        return failure if failure is not None and self._clock() < self._until else None

    def check(self) -> Failure | None:
        """None when a request may go out, else the failure that keeps it from going.

        Who is let through reports the outcome by `succeeded` or `failed`.
        """
        if self._failure is None:
            return None
        with self._lock:
            now = self._clock()
            if self._failure is not None and now < self._until:
                return self._failure
            self._probing = self._failure is not None
            self._until = now + self._cool_s  # the others wait for the probe's outcome
            return None

    def succeeded(self) -> None:
        """The endpoint answered, whatever it said."""
        if self._in_a_row or self._failure is not None:
            with self._lock:
                self._in_a_row, self._failure, self._probing = 0, None, False
                self._cool_s = COOL_S

    def failed(self, failure: Failure, *, at_once: bool = False) -> None:
        """A request came to nothing; ``at_once`` opens without waiting for more of them."""
        with self._lock:
            if self._failure is not None:
                # Requests that were under way when it opened add nothing.
                if self._probing:
                    self._probing = False
                    self._cool_s = min(self._cool_s * 2, LONGEST_S)
                    self._until = self._clock() + self._cool_s
                    self._failure = failure
                return
            self._in_a_row += 1
            if at_once or self._in_a_row >= self._threshold:
                self._failure = failure
                self._until = self._clock() + self._cool_s


_breakers: dict[str, Breaker] = {}
_lock = threading.Lock()


def breaker_of(endpoint: str) -> Breaker:
    """This process's breaker for the endpoint of that name."""
    with _lock:
        return _breakers.setdefault(endpoint, Breaker())


def forget_breakers() -> None:
    """Start afresh, as a new process would."""
    with _lock:
        _breakers.clear()
