"""Databases of a shared source that wait for a host: kept by the scheduler, taken one by one.

A host takes a database when one of its workers is free, so the fastest takes most.  What was
taken is never given out again in the same run: a host that seems lost may still be writing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from distributed import Scheduler

__all__ = ["POST", "TAKE", "Board", "serve_board"]

POST: Final = "rubix_post"
TAKE: Final = "rubix_take"
"""Names of the messages, among those that Dask's scheduler knows."""
_MOST_RUNS: Final = 8
"""A killed coordinator leaves its untaken jobs behind; the oldest runs are dropped."""


class Board:
    """What waits, run by run; plain values that only hosts look into."""

    def __init__(self, connected: Callable[[str], bool]) -> None:
        """``connected``: whether a client of the scheduler, by its id, is still there."""
        self._connected = connected
        self._runs: OrderedDict[str, tuple[str, deque[Any]]] = OrderedDict()

    def post(self, run: str, client: str, jobs: list[Any]) -> int:
        """Put a run's jobs up, in their order; those of ``client``'s runs end with it."""
        _, waiting = self._runs.setdefault(run, (client, deque()))
        waiting.extend(jobs)
        while len(self._runs) > _MOST_RUNS:
            self._runs.popitem(last=False)
        return len(waiting)

    def take(self, run: str) -> Any:
        """The next job; None: there is none, or its coordinator is gone."""
        client, waiting = self._runs.get(run, ("", None))
        if waiting and self._connected(client):
            return waiting.popleft()
        self._runs.pop(run, None)
        return None


def serve_board(scheduler: Scheduler) -> None:
    """Let hosts and coordinators of this scheduler use a board."""
    board = Board(lambda client: client in scheduler.clients)

    async def post(run: str, client: str, jobs: list[Any]) -> int:
        return board.post(run, client, jobs)

    async def take(run: str) -> Any:
        return board.take(run)

    scheduler.handlers[POST] = post
    scheduler.handlers[TAKE] = take
