"""Connections whose every call is bounded by our own clock, and the limits of a transaction.

The server's ``statement_timeout`` ends what the server is busy with; it does
not help when the server, or the way to it, has stopped answering at all.

Nothing is set on a session: it may be a pooler's (PgBouncer), and the next transaction on
it another program's.  Every transaction sets what it needs for itself, in the same message
that begins it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from typing import Any, Final, TypeVar

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from rubix_token_sync import failpoints
from rubix_token_sync.errors import TargetRefused
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.postgresql.address import PostgresAddress
from rubix_token_sync.targets.sql.functions import before_colon, number_of

__all__ = ["NOW", "BoundedConnection", "driver", "lift_limits", "make_engine"]

T = TypeVar("T")

NOW: Final = "timezone('utc', clock_timestamp())"


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
                ready = yield wanted  # falsy after each interval without an answer
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


def make_engine(address: PostgresAddress, options: TargetOptions) -> sa.Engine:
    """An engine with at most ``options.pool_size`` connections."""
    engine = sa.create_engine(
        "postgresql+psycopg://",
        creator=lambda: _open(address, options.call_seconds),
        pool_size=options.pool_size,
        max_overflow=0,
        pool_timeout=options.call_seconds,
        pool_pre_ping=True,
        pool_use_lifo=True,
    )
    milliseconds = int(options.call_seconds * 1000)
    limits = (
        f"SET LOCAL statement_timeout = {milliseconds}; SET LOCAL lock_timeout = {milliseconds};"
        f" SET LOCAL idle_in_transaction_session_timeout = {5 * milliseconds};"
        " SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO';"
        " SET LOCAL synchronous_commit = on"
    )

    def begin(conn: sa.Connection) -> None:
        raw, wanted = driver(conn), conn.get_execution_options()
        isolation = " ISOLATION LEVEL REPEATABLE READ" if wanted.get("view") else ""
        access = " READ ONLY" if options.read_only else ""
        # A limit on whole transactions is a role's or a database's: our own are bounded already.
        whole = "; SET LOCAL transaction_timeout = 0" if raw.info.server_version >= 170_000 else ""
        raw.execute(f"BEGIN{isolation}{access}; {limits}{whole}".encode())

    sa.event.listen(engine, "begin", begin)
    return engine


def _open(address: PostgresAddress, call_seconds: float) -> BoundedConnection:
    failpoints.point("store.open")
    conn = BoundedConnection.connect(
        **address.connection_arguments(),  # type: ignore[arg-type] # names from libpq
        autocommit=True,  # `begin` begins each transaction
        prepare_threshold=None,  # nothing stays behind in a pooler's connection
    )
    conn.call_seconds = call_seconds + 10  # the server's own limit comes first
    encoding = conn.info.parameter_status("server_encoding") or "UTF8"
    if encoding not in ("UTF8", "SQL_ASCII"):
        conn.close()
        raise TargetRefused(
            f"{address.place}: the database's encoding is {encoding}, in which the names and "
            "contents of other scripts cannot be stored.",
            code="wrong_encoding",
            remedy="Create a database with ENCODING 'UTF8' TEMPLATE template0, and name it.",
            context={"encoding": encoding},
        )
    return conn


def lift_limits(conn: sa.Connection) -> None:
    """For the rest of this transaction: its duration depends on the table's size."""
    driver(conn).execute(
        "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;"
        " SET LOCAL idle_in_transaction_session_timeout = 0"
    )


@compiles(before_colon, "postgresql")
def _before_colon(element: before_colon, compiler: Any, **options: Any) -> str:
    return f"split_part({compiler.process(element.clauses, **options)}, ':', 1)"


@compiles(number_of, "postgresql")
def _number_of(element: number_of, compiler: Any, **options: Any) -> str:
    text = compiler.process(element.clauses, **options)
    return (
        f"CASE WHEN length({text}) <= 25 AND {text} ~ '^[0-9]+([.][0-9]*)?$'"
        f" THEN CAST({text} AS double precision) END"
    )
