"""Connections of Microsoft's driver, bounded by our own clock.

Three things the driver (mssql-python 1.16) lacks are added around it:

* Every call runs in the connection's own thread and is waited for no longer
  than ``call_seconds``.  The driver's own time-out can hang while the server
  does not acknowledge the cancel.  A connection with a call that did not come
  back is never used again; its thread closes it should the call ever return.
* The server's error number is kept with each exception (``diagnostics``),
  read from the statement handle before the driver lets go of it.
* A panic of the bulk copy's native client becomes an ordinary error.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import mssql_python
import pyarrow as pa
from mssql_python import ddbc_bindings
from mssql_python.constants import ConstantsDDBC

from rubix_token_sync.errors import SchemaError
from rubix_token_sync.targets.mssql.address import DEFAULT_PORT, MssqlTarget
from rubix_token_sync.targets.mssql.calls import CallThread, Hung, as_driver_errors
from rubix_token_sync.targets.mssql.errors import read_driver_error, rule_for
from rubix_token_sync.targets.mssql.socket import DriverSocket, watch_for_socket

__all__ = ["DriverConnection", "DriverCursor", "connection_is_over", "open_connection"]

_INLINE_UNITS: Final = 4_000
"""A text of more UTF-16 units is an NVARCHAR(MAX)."""

_FIRST: Final = (
    "SET XACT_ABORT ON; SET LOCK_TIMEOUT {lock_ms}; SET TEXTSIZE 2147483647; SELECT SCHEMA_NAME()"
)
"""The first statements of every connection."""

T = TypeVar("T")

# The driver's own pool would hand out again what we have given up.
mssql_python.pooling(enabled=False)

_read_diagnostics: Callable[[Any], Sequence[Any]] = vars(ddbc_bindings)["DDBCSQLGetAllDiagRecords"]


class DriverConnection:
    """A connection of the driver, as SQLAlchemy uses it."""

    def __init__(
        self, raw: Any, thread: CallThread, call_seconds: float, sock: DriverSocket
    ) -> None:
        self._raw = raw
        self._socket = sock
        self._thread = thread
        self.call_seconds = call_seconds
        self.failed = False
        """A statement failed since this was last set to False."""

    def bounded(self, work: Callable[[], T]) -> T:
        """Run ``work`` in this connection's thread, within ``call_seconds``."""
        try:
            return self._thread.call(work, self.call_seconds, self._drop)
        except Hung:
            self._socket.hang_up()  # the server then ends the session, and frees its locks
            raise

    @property
    def hung(self) -> bool:
        """A call did not come back: the connection is never used again."""
        return self._thread.hung

    @property
    def autocommit(self) -> bool:
        return bool(self._raw.autocommit)

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self.bounded(lambda: self._raw.setautocommit(value))

    @contextlib.contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """Give calls up to ``seconds`` each, for the time being."""
        before, before_driver = self.call_seconds, self._raw.timeout
        self.call_seconds = max(before, seconds)
        self._raw.timeout = int(self.call_seconds)
        try:
            yield
        finally:
            self.call_seconds, self._raw.timeout = before, before_driver

    def cursor(self) -> DriverCursor:
        return DriverCursor(self, self.bounded(self._raw.cursor))

    def commit(self) -> None:
        self.bounded(self._raw.commit)

    def rollback(self) -> None:
        try:
            self.bounded(self._raw.rollback)
        except mssql_python.Error as error:
            # The server has ended the transaction with the statement that failed: there is
            # nothing to roll back, and what failed must not be hidden by saying so.
            if "Invalid transaction state" not in str(error):
                raise

    def close(self) -> None:
        if self._thread.hung:
            return  # its thread closes it, should the call ever return
        # The driver rolls back first; a connection that is gone has nothing to roll back.
        with contextlib.suppress(mssql_python.Error):
            self.bounded(self._raw.close)
        self._thread.end()

    def _drop(self) -> None:
        with contextlib.suppress(mssql_python.Error):
            self._raw.close()


class DriverCursor:
    """A cursor of the driver, as SQLAlchemy uses it."""

    def __init__(self, connection: DriverConnection, raw: Any) -> None:
        self.connection = connection
        self._raw = raw
        self._kept: list[Any] = []
        self._sized = False
        release = getattr(raw, "_reset_cursor", None)
        if release is not None:
            # The driver frees the statement's handle, and with it the error's
            # number, before it raises: read it just before.  Without this hook
            # (another version) errors are told by their words.
            def keep_and_release() -> None:
                self._kept = _diagnostics(raw)
                release()

            raw._reset_cursor = keep_and_release

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)  # description, rowcount, arraysize, messages, …

    @property
    def arraysize(self) -> int:
        return int(self._raw.arraysize)

    @arraysize.setter
    def arraysize(self, value: int) -> None:
        self._raw.arraysize = value

    def __iter__(self) -> Iterator[Any]:
        while (row := self.fetchone()) is not None:
            yield row

    def execute(self, sql: str, *parameters: Any) -> DriverCursor:
        values = parameters[0] if len(parameters) == 1 else parameters
        if isinstance(values, (tuple, list)) and None in values:
            # The driver would ask the server for the type of a NULL; where that
            # cannot be told, the question ends the transaction without a word.
            self._raw.setinputsizes([_parameter_type(value) for value in values])
        self._bounded(lambda: self._raw.execute(sql, *parameters))
        return self

    def executemany(self, sql: str, rows: Sequence[Any]) -> None:
        if not self._sized and rows and isinstance(rows[0], (tuple, list)):
            self._raw.setinputsizes([_column_type(column) for column in zip(*rows, strict=True)])
        self._sized = False
        self._bounded(lambda: self._raw.executemany(sql, rows))

    def setinputsizes(self, sizes: Sequence[Any]) -> None:
        """Types of the next statement's parameters: (ODBC type, size, digits) each."""
        self._sized = True
        self._raw.setinputsizes(list(sizes))

    def fetchone(self) -> Any:
        return self._bounded(self._raw.fetchone)

    def fetchmany(self, size: int | None = None) -> Any:
        return self._bounded(lambda: self._raw.fetchmany(size))

    def fetchall(self) -> Any:
        return self._bounded(self._raw.fetchall)

    def nextset(self) -> Any:
        return self._bounded(self._raw.nextset)

    def arrow_batch(self, size: int) -> pa.RecordBatch:
        """The next ``size`` rows at most, as Arrow; no rows at the end."""
        return self._bounded(lambda: self._raw.arrow_batch(size))

    def lost(self, error: BaseException) -> bool:
        """Whether the connection is of no use after ``error``."""
        return self.connection.hung or connection_is_over(error)

    def close(self) -> None:
        if not self.connection.hung:
            self._bounded(self._raw.close)

    def login(self) -> dict[str, Any]:
        """What the driver's bulk copy needs to log in as this connection did; holds secrets."""
        context: dict[str, Any] = self._bounded(self._raw._build_pycore_context)
        return context

    def _bounded(self, work: Callable[[], T]) -> T:
        self._kept = []

        def diagnosed() -> T:
            try:
                return work()
            except mssql_python.Error as error:
                self.connection.failed = True
                # Where `read_driver_error` looks for the server's number.
                error.__dict__["diagnostics"] = self._kept or _diagnostics(self._raw)
                raise

        return self.connection.bounded(lambda: as_driver_errors(diagnosed))


def _parameter_type(value: object) -> tuple[int, int, int]:
    """ODBC type, size and digits; a NULL goes as a text, which becomes whatever it has to."""
    if isinstance(value, bool):
        return ConstantsDDBC.SQL_BIT.value, 0, 0
    if isinstance(value, int):
        return ConstantsDDBC.SQL_BIGINT.value, 0, 0
    if isinstance(value, float):
        return ConstantsDDBC.SQL_DOUBLE.value, 0, 0
    if isinstance(value, datetime):
        return ConstantsDDBC.SQL_TYPE_TIMESTAMP.value, 26, 6
    if isinstance(value, (bytes, bytearray)):
        return ConstantsDDBC.SQL_VARBINARY.value, max(1, len(value)), 0
    if isinstance(value, UUID):
        return ConstantsDDBC.SQL_GUID.value, 0, 0
    units = len(str(value if value is not None else "").encode("utf-16-le")) // 2
    if units > _INLINE_UNITS:
        return ConstantsDDBC.SQL_WLONGVARCHAR.value, units, 0
    return ConstantsDDBC.SQL_WVARCHAR.value, max(1, units), 0


def _column_type(values: Sequence[object]) -> tuple[int, int, int]:
    """`_parameter_type` of the value that needs the most room."""
    return max(
        (_parameter_type(v) for v in values if v is not None),
        default=_parameter_type(None),
        key=lambda kind: kind[1],
    )


def _diagnostics(raw: Any) -> list[Any]:
    handle = getattr(raw, "hstmt", None)
    if handle is None:
        return []
    try:
        return list(_read_diagnostics(handle))
    except RuntimeError:  # the handle is gone: its words must do
        return []


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
            raw = mssql_python.connect(string, timeout=login_seconds)
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
    schema = cursor.fetchone()[0]
    cursor.close()
    conn.commit()
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


def connection_is_over(error: BaseException) -> bool:
    """Whatever reconnecting may help with is not worth the old connection."""
    if not isinstance(error, mssql_python.Error):
        return False
    return rule_for(read_driver_error(error)).error.kind == "transient"
