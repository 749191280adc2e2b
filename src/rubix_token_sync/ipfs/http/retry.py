"""How remote ways ask: many at once, and again where that can help.

Only what can change is tried again (`PassingError`): time-outs, refused and broken
connections, answers of the 5xx kind.  Pauses double and are spread at random
so that many askers do not come back at the same moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from rubix_token_sync.ipfs.cid import Cid
from rubix_token_sync.ipfs.content import Failure

__all__ = ["Askers", "PassingError", "Persistence", "retry_after"]

LONGEST_PAUSE_S: Final = 5.0
_FIRST_PAUSE_S: Final = 0.25

T = TypeVar("T")
R = TypeVar("R")


class PassingError(Exception):
    """An attempt came to nothing, and another may not.

    ``failure`` is reported when there is no other; ``pause_s`` how long the
    endpoint asked to be left alone, if it did.
    """

    def __init__(self, failure: Failure, pause_s: float | None = None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.pause_s = pause_s


class Persistence:
    """Makes an attempt, and more of them after pauses while it raises `PassingError`."""

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self._backoff = wait_random_exponential(multiplier=_FIRST_PAUSE_S, max=LONGEST_PAUSE_S)
        self._retrying = Retrying(
            stop=stop_after_attempt(attempts),
            wait=self._pause,
            retry=retry_if_exception_type(PassingError),
            reraise=True,
        )

    def block(self, attempt: Callable[[Cid], bytes | Failure], cid: Cid) -> bytes | Failure:
        """What ``attempt`` gives in the end; failures tell how often it was tried."""
        try:
            return self._retrying(attempt, cid)
        except PassingError as error:
            times = "once" if self._attempts == 1 else f"{self._attempts} times"
            return Failure(error.failure.code, f"{error.failure.sentence} (tried {times})")

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, PassingError) and error.pause_s is not None:
            return error.pause_s
        return self._backoff(state)


class Askers:
    """A fixed number of threads that work through a list."""

    def __init__(self, count: int) -> None:
        self._count = max(1, count)
        self._pool: ThreadPoolExecutor | None = None

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """``work`` of every item, in the items' order; at most ``count`` at the same time.

        What ``work`` raises ends the whole list and is raised here.
        """
        queue = deque(enumerate(items))
        done: dict[int, R] = {}

        def drain() -> None:
            while True:
                try:
                    index, item = queue.popleft()
                except IndexError:
                    return
                try:
                    done[index] = work(item)
                except BaseException:
                    queue.clear()
                    raise

        others = min(self._count, len(items)) - 1
        if others > 0 and self._pool is None:
            self._pool = ThreadPoolExecutor(self._count - 1, thread_name_prefix="ipfs")
        futures = [self._pool.submit(drain) for _ in range(others)] if self._pool else []
        try:
            drain()
        finally:
            queue.clear()
            wait(futures)
        for future in futures:
            future.result()
        return [done[index] for index in range(len(items))]

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def retry_after(value: str | None) -> float | None:
    """Seconds in a ``Retry-After`` header (RFC 9110, the form with a number); else None."""
    if value is None or not value.strip().isdecimal() or len(value.strip()) > 9:
        return None
    return float(value)
