"""The pool of connections: checked after idling, replaced when broken, never more.

SQLAlchemy's pool does the counting; what it must know of this driver is here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import mssql_python
import sqlalchemy as sa

from rubix_token_sync.targets.mssql.dialect import DIALECT
from rubix_token_sync.targets.mssql.driver import DriverConnection, DriverCursor
from rubix_token_sync.targets.sql.pool import check_after_idling

__all__ = ["driver", "driver_cursor", "make_engine", "patient", "together"]

_TIDY: Final = "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION; SET NOCOUNT OFF; SELECT 1"
"""A batch that failed can leave both on."""
_MOST_PARAMETERS: Final = 2_000
"""Of a batch; the server takes 2,100."""
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
    check_after_idling(engine, _check, _take_failed)
    sa.event.listen(engine, "handle_error", _keep_the_others)
    sa.event.listen(engine, "begin", _begin)
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


def together(conn: sa.Connection, statements: Sequence[sa.Executable]) -> list[int]:
    """Execute these as one batch, or as few; see `Backend.together`.

    Behind one that fails none is done (XACT_ABORT).
    """
    raw = driver(conn)
    with raw.gathered() as waiting:
        for statement in statements:
            conn.execute(statement)
    counts: list[int] = []
    while waiting:
        part = [waiting.pop(0)]
        while waiting and sum(len(p) for _sql, p in (*part, waiting[0])) <= _MOST_PARAMETERS:
            part.append(waiting.pop(0))
        with driver_cursor(conn) as cursor:
            cursor.execute(_batch(part, raw.autocommit), [p for _sql, ps in part for p in ps])
            counts += cursor.fetchone()
    return counts


def _batch(statements: Sequence[tuple[str, Sequence[Any]]], transaction: bool) -> str:
    """Its one row says how many rows each statement touched; as a ``transaction`` if wanted."""
    names = [f"@rows{number}" for number in range(1, len(statements) + 1)]
    parts = ["SET NOCOUNT ON", *(f"DECLARE {name} INT" for name in names)]
    parts += ["BEGIN TRANSACTION"] if transaction else []
    for name, (sql, _parameters) in zip(names, statements, strict=True):
        parts += [sql, f"SET {name} = @@ROWCOUNT"]
    parts += ["COMMIT TRANSACTION"] if transaction else []
    parts += [f"SELECT {', '.join(names)}", "SET NOCOUNT OFF"]
    return "; ".join(parts)


def _begin(conn: sa.Connection) -> None:
    """What only reads, and not as of one moment, needs no transaction, nor does one message."""
    wanted = conn.get_execution_options()
    reads = bool(wanted.get("reading")) and not wanted.get("view")
    driver(conn).autocommit = reads or bool(wanted.get("alone"))


def _take_failed(connection: DriverConnection) -> bool:
    """Whether its last batch failed; a connection that did well since is as good as any."""
    failed, connection.failed = connection.failed, False
    return failed


def _check(connection: DriverConnection) -> None:
    try:
        connection.autocommit = True
        cursor: DriverCursor = connection.cursor()
        cursor.execute(_TIDY)
        cursor.fetchall()
        cursor.close()
    except mssql_python.Error as error:
        raise sa.exc.DisconnectionError("The connection died while it idled.") from error


def _keep_the_others(context: Any) -> None:
    """One connection's end says nothing of the others, which are checked when used."""
    context.invalidate_pool_on_disconnect = False
