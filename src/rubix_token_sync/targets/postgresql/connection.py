"""Connections whose every call is bounded by our own clock, and the limits of a transaction.

The server's ``statement_timeout`` ends what the server is busy with; it does
not help when the server, or the way to it, has stopped answering at all.

Nothing is set on a session: it may be a pooler's (PgBouncer), and the next transaction on
it another program's.  Every transaction sets what it needs for itself.

A server is 1 to 60 ms away, so nothing is asked by itself that can travel with something else
(libpq's pipeline mode): what begins a transaction goes with its first statement, and a statement
that only reads is a transaction of its own, which needs neither BEGIN nor ROLLBACK.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

import psycopg
import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.errors import TargetRefused
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.postgresql.address import PostgresAddress
from rubix_token_sync.targets.postgresql.dialect import DIALECT
from rubix_token_sync.targets.sql.pool import check_after_idling

__all__ = ["NOW", "BoundedConnection", "driver", "lift_limits", "make_engine"]

T = TypeVar("T")

NOW: Final = "timezone('utc', clock_timestamp())"

# It warns of what else fails on a connection that has failed; the first error is raised.
logging.getLogger("psycopg").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Opening:
    """What goes ahead of a transaction's statements."""

    begin: str
    limits: str
    """One statement that sets them until the transaction's end."""
    each_alone: bool
    """Each statement is a transaction of its own: they read, and not as of one moment."""


class BoundedConnection(psycopg.Connection[Any]):
    """Gives up, and closes the connection, when one call takes too long.

    ``call_seconds`` None waits for ever.
    """

    call_seconds: float | None = None
    opening: Opening | None = None
    """What the next statement sends ahead of itself."""

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is executed meanwhile goes to the server as one message.

        Cursors have their results when the context ends.  The first error is raised then;
        what stands behind it is not done.
        """
        if not psycopg.Pipeline.is_supported():  # a libpq before 14
            self.begin_now()
            yield
            return
        opening, self.opening = self.opening, None
        try:
            with self.pipeline():
                if opening is not None:
                    if not opening.each_alone:
                        self.execute(opening.begin.encode())
                    self.execute(opening.limits.encode())
                yield
        finally:
            if opening is not None and opening.each_alone:
                self.opening = opening

    def begin_now(self) -> None:
        """Begin by a message of its own: what follows cannot travel with others."""
        opening, self.opening = self.opening, None
        if opening is not None:
            self.execute(f"{opening.begin}; {opening.limits}".encode())

    def commit(self) -> None:
        self.opening = None
        super().commit()

    def rollback(self) -> None:
        self.opening = None
        super().rollback()

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


class _Cursor(psycopg.Cursor[Any]):
    """Sends with a statement what goes ahead of it."""

    def execute(self, *arguments: Any, **options: Any) -> Any:
        with self._ahead():
            return super().execute(*arguments, **options)

    def executemany(self, *arguments: Any, **options: Any) -> None:
        with self._ahead():
            super().executemany(*arguments, **options)

    def copy(self, *arguments: Any, **options: Any) -> Any:
        _bounded(self).begin_now()  # COPY has no place in a pipeline
        return super().copy(*arguments, **options)

    def _ahead(self) -> contextlib.AbstractContextManager[None]:
        connection = _bounded(self)
        if connection.opening is None:
            return contextlib.nullcontext()
        return connection.together()


class _ServerCursor(psycopg.ServerCursor[Any]):
    """A cursor at the server, which lives in a transaction."""

    def execute(self, *arguments: Any, **options: Any) -> Any:
        _bounded(self).begin_now()
        return super().execute(*arguments, **options)


def _bounded(cursor: psycopg.Cursor[Any] | psycopg.ServerCursor[Any]) -> BoundedConnection:
    connection: psycopg.Connection[Any] = cursor.connection
    assert isinstance(connection, BoundedConnection)
    return connection


class _IsoTimestamp(psycopg.adapt.Loader):
    """Times as this program's transactions get them, whatever the role's DateStyle is.

    The driver goes by what the server said before: that the transaction sets another style it
    is told only after the answer to the first statement, which travels with the setting.
    """

    def load(self, data: psycopg.abc.Buffer) -> datetime:
        text = bytes(data).decode()
        try:
            return datetime.fromisoformat(text)
        except ValueError as error:  # infinity, or a year that Python does not have
            raise psycopg.DataError(f"can't parse timestamp {text!r}") from error


def driver(conn: sa.Connection) -> BoundedConnection:
    """The driver's connection below SQLAlchemy's."""
    raw: object = conn.connection.dbapi_connection
    if not isinstance(raw, BoundedConnection):
        raise TypeError(f"not a PostgreSQL connection: {type(raw).__name__}")
    return raw


def make_engine(address: PostgresAddress, options: TargetOptions) -> sa.Engine:
    """An engine with at most ``options.pool_size`` connections."""
    engine = sa.create_engine(
        f"{DIALECT}://",
        creator=lambda: _open(address, options.call_seconds),
        pool_size=options.pool_size,
        max_overflow=0,
        pool_timeout=options.call_seconds,
        pool_use_lifo=True,
    )
    check_after_idling(engine, _check)
    milliseconds = int(options.call_seconds * 1000)
    limits = {
        "statement_timeout": f"{milliseconds}",
        "lock_timeout": f"{milliseconds}",
        "idle_in_transaction_session_timeout": f"{5 * milliseconds}",
        # A machine that was cut off in a transaction keeps no other one waiting for longer.
        "tcp_keepalives_idle": "20",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "4",
        "timezone": "UTC",
        "datestyle": "ISO",
        "extra_float_digits": "1",
        "synchronous_commit": "on",
    }

    def begin(conn: sa.Connection) -> None:
        raw, wanted = driver(conn), conn.get_execution_options()
        isolation = " ISOLATION LEVEL REPEATABLE READ" if wanted.get("view") else ""
        access = " READ ONLY" if options.read_only else ""
        own, version = dict(limits), raw.info.server_version
        if version >= 120_000:  # keepalives are not sent while an answer waits to be confirmed
            own["tcp_user_timeout"] = "40000"
        if version >= 170_000:
            # A limit on whole transactions is a role's or a database's: ours are bounded already.
            own["transaction_timeout"] = "0"
        each_alone = bool(wanted.get("reading")) and not wanted.get("view")
        if each_alone:  # nobody would roll back what it writes
            own["transaction_read_only"] = "on"
        raw.opening = Opening(f"BEGIN{isolation}{access}", _setting(own), each_alone)

    sa.event.listen(engine, "begin", begin)
    return engine


def _check(connection: BoundedConnection) -> None:
    try:
        connection.execute("")
    except psycopg.Error as error:
        raise sa.exc.DisconnectionError("The connection died while it idled.") from error


def _open(address: PostgresAddress, call_seconds: float) -> BoundedConnection:
    failpoints.point("store.open")
    conn = BoundedConnection.connect(
        **address.connection_arguments(),  # type: ignore[arg-type] # names from libpq
        autocommit=True,  # `begin` begins each transaction
        prepare_threshold=None,  # nothing stays behind in a pooler's connection
    )
    conn.cursor_factory, conn.server_cursor_factory = _Cursor, _ServerCursor
    conn.call_seconds = call_seconds + 10  # the server's own limit comes first
    conn.adapters.register_loader("timestamp", _IsoTimestamp)
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
    timeouts = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    driver(conn).execute(_setting(dict.fromkeys(timeouts, "0")).encode())


def _setting(values: Mapping[str, str]) -> str:
    """A statement that sets these until the end of its transaction: SET takes one a statement."""
    return "SELECT " + ", ".join(
        f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in values.items()
    )
