"""The pool of connections: checked after idling, replaced when broken, never more.

SQLAlchemy's pool does the counting; what it must know of this driver is here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import mssql_python
import sqlalchemy as sa

from rubix_token_sync.targets.mssql.dialect import DIALECT
from rubix_token_sync.targets.mssql.driver import DriverConnection, DriverCursor

__all__ = ["driver", "driver_cursor", "make_engine", "patient"]

_IDLE_SECONDS: Final = 30.0
"""A connection that idled longer is asked whether it is alive before it is used."""

_LIFE_SECONDS: Final = 1_800
"""A connection is replaced after this: tokens of Entra ID end, gateways rebalance."""


def make_engine(
    connect: Callable[[], DriverConnection], size: int, wait_seconds: float
) -> sa.Engine:
    """An engine with at most ``size`` connections; who wants one waits ``wait_seconds``."""
    engine = sa.create_engine(
        f"{DIALECT}://",
        creator=connect,
        poolclass=sa.pool.QueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=wait_seconds,
        pool_recycle=_LIFE_SECONDS,
        pool_use_lifo=True,
        hide_parameters=True,  # rows of tokens, not to be repeated in every error
        paramstyle="qmark",
        use_insertmanyvalues=False,
    )
    sa.event.listen(engine, "checkin", _note_use)
    sa.event.listen(engine, "checkout", _check_before_use)
    sa.event.listen(engine, "handle_error", _keep_the_others)
    return engine


def driver(conn: sa.Connection) -> DriverConnection:
    raw: Any = conn.connection.dbapi_connection
    if not isinstance(raw, DriverConnection):
        raise TypeError(f"not a connection of this driver: {type(raw).__name__}")
    return raw


@contextlib.contextmanager
def driver_cursor(conn: sa.Connection) -> Iterator[DriverCursor]:
    """The driver's own cursor, for what SQLAlchemy has no word for."""
    cursor = driver(conn).cursor()
    try:
        yield cursor
    except mssql_python.Error as error:
        if cursor.lost(error):
            # Else the rollback that follows would fail, and hide this error.
            conn.invalidate(error)
        raise
    finally:
        if not conn.invalidated:
            cursor.close()


@contextlib.contextmanager
def patient(conn: sa.Connection, seconds: float) -> Iterator[None]:
    """Give the calls of this connection more time: DDL, and waiting for another's."""
    raw = driver(conn)
    with raw.patient(seconds):
        yield


def _note_use(_connection: Any, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _check_before_use(connection: DriverConnection, record: Any, _proxy: Any) -> None:
    """Ask a connection that idled, or had an error, whether it is well."""
    failed, connection.failed = connection.failed, False
    if not failed and time.monotonic() - record.info.get("used", time.monotonic()) < _IDLE_SECONDS:
        return
    try:
        cursor: DriverCursor = connection.cursor()
        cursor.execute("SET NOCOUNT OFF; SELECT 1")  # which a failed batch can leave on
        cursor.fetchall()
        cursor.close()
        connection.rollback()
    except mssql_python.Error as error:
        raise sa.exc.DisconnectionError("The connection died while it idled.") from error


def _keep_the_others(context: Any) -> None:
    """One connection's end says nothing of the others, which are checked when used."""
    context.invalidate_pool_on_disconnect = False
