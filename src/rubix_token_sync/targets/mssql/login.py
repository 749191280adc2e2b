"""Logging in by Microsoft's driver, within our own clock."""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Final

import mssql_python

from rubix_token_sync.errors import SchemaError
from rubix_token_sync.targets.mssql.address import DEFAULT_PORT, MssqlTarget
from rubix_token_sync.targets.mssql.calls import CallThread
from rubix_token_sync.targets.mssql.driver import DriverConnection
from rubix_token_sync.targets.mssql.socket import DriverSocket, watch_for_socket

__all__ = ["open_connection"]

_FIRST: Final = (
    "SET XACT_ABORT ON; SET LOCK_TIMEOUT {lock_ms}; SET TEXTSIZE 2147483647;"
    " SELECT SCHEMA_NAME(), @@VERSION, USER_NAME()"
)
"""The first statements of every connection."""

# The driver's own pool would hand out again what we have given up.
mssql_python.pooling(enabled=False)


def open_connection(target: MssqlTarget, call_seconds: float) -> DriverConnection:
    """Log in, and prepare the session.

    ``call_seconds`` bounds each call; the connection string's ``Command Timeout`` is stronger.

    Raises:
        mssql_python.Error: with ``diagnostics`` where they say more.
        SchemaError: the tables of this user would not be those of the schema dbo.
    """
    thread = CallThread()
    call_seconds = target.command_timeout_s or call_seconds
    login_seconds = target.connect_timeout_s
    opened: list[Any] = []
    sockets: list[DriverSocket] = []

    def connect(string: str) -> Any:
        with watch_for_socket(target.port or DEFAULT_PORT) as noted:
            # Whoever begins a transaction says so.
            raw = mssql_python.connect(string, autocommit=True, timeout=login_seconds)
        sockets.append(noted)
        return raw

    def work() -> None:
        _resolve(target)
        string = target.to_driver()
        try:
            raw = connect(string)
        except mssql_python.Error as error:
            if "Packet size change not supported" not in str(error):
                raise _explained(error, target) from error
            # A refused login whose first record is about the packet's size: ask
            # again without one, to hear the reason.
            string = string.replace(f"PacketSize={target.packet};", "")
            raw = connect(string)
        opened.append(raw)
        raw.timeout = max(1, int(call_seconds))

    def close() -> None:
        for raw in opened:
            with contextlib.suppress(mssql_python.Error):
                raw.close()

    try:
        thread.call(work, 2 * login_seconds, close)
        conn = DriverConnection(opened[0], thread, call_seconds, sockets[-1])
        _prepare(conn)
    except BaseException:
        if not thread.hung:
            close()
            thread.end()
        raise
    return conn


def _prepare(conn: DriverConnection) -> None:
    cursor = conn.cursor()
    cursor.execute(_FIRST.format(lock_ms=int(conn.call_seconds * 1000)))
    schema, conn.version, conn.user = cursor.fetchone()
    cursor.close()
    if schema != "dbo":
        raise SchemaError(
            "The database user's default schema is not dbo.",
            code="default_schema",
            remedy="Have a DBA run: ALTER USER [name] WITH DEFAULT_SCHEMA = dbo;",
        )


def _host(target: MssqlTarget) -> tuple[str, int]:
    return target.server.partition("\\")[0], target.port or DEFAULT_PORT


def _resolve(target: MssqlTarget) -> None:
    """Fail at once where the name means nothing: the driver would wait its time-out out."""
    try:
        socket.getaddrinfo(*_host(target), type=socket.SOCK_STREAM)
    except OSError:
        raise mssql_python.OperationalError(
            "Client unable to establish connection", "No such host is known. (0x2AF9)"
        ) from None


def _explained(error: Any, target: MssqlTarget) -> Any:
    """A port that is closed says so itself; the driver only says that it could not connect."""
    if "TCP Provider" in str(error) and target.port is not None:
        try:
            socket.create_connection(_host(target), timeout=2).close()
        except ConnectionRefusedError:
            return mssql_python.OperationalError(
                "Client unable to establish connection", "Connection refused: the port is closed."
            )
        except OSError:
            return error
    return error
