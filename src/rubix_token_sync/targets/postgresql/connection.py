"""A connection whose every call is bounded by our own clock.

The server's ``statement_timeout`` ends what the server is busy with; it does
not help when the server, or the way to it, has stopped answering at all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa

__all__ = ["BoundedConnection", "driver"]

T = TypeVar("T")


class BoundedConnection(psycopg.Connection[Any]):
    """Gives up, and closes the connection, when one call takes too long.

    ``call_seconds`` None waits for ever.
    """

    call_seconds: float | None = None

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        """Consume a protocol generator; psycopg sends every call through here."""
        if self.call_seconds is None:
            return super().wait(gen, *args, **kwargs)
        return super().wait(self._bounded(gen, self.call_seconds), *args, **kwargs)

    def _bounded(self, gen: Generator[Any, Any, T], seconds: float) -> Generator[Any, Any, T]:
        deadline = time.monotonic() + seconds
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted  # falsy after each interval without news
                if not ready and time.monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"timeout: no answer within {seconds:g} s")
                wanted = gen.send(ready)
        except StopIteration as done:
            result: T = done.value
            return result

    @contextlib.contextmanager
    def unbounded(self) -> Iterator[None]:
        """For the few statements whose duration depends on the table's size."""
        before, self.call_seconds = self.call_seconds, None
        try:
            yield
        finally:
            self.call_seconds = before


def driver(conn: sa.Connection) -> BoundedConnection:
    """The driver's connection below SQLAlchemy's."""
    raw: object = conn.connection.dbapi_connection
    if not isinstance(raw, BoundedConnection):
        raise TypeError(f"not a PostgreSQL connection: {type(raw).__name__}")
    return raw
