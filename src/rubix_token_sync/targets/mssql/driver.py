"""Connections of Microsoft's driver, bounded by our own clock.

Things that the driver (mssql-python 1.16) lacks are added around it:

* Every call runs in the connection's own thread and is waited for no longer
  than ``call_seconds``.  The driver's own time-out can hang while the server
  does not acknowledge the cancel.  A connection with a call that did not come
  back is never used again; its thread closes it should the call ever return.
* The server's error number is kept with each exception (``diagnostics``),
  read from the statement handle before the driver lets go of it.
* A panic of the bulk copy's native client becomes an ordinary error.
* The server, which may be 60 ms away, is not told each time that a statement is done with:
  the next one of its kind takes the place of its handle in the same message.
* Statements that need no answer of each other can be gathered, to travel as one batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import mssql_python
import pyarrow as pa
from mssql_python import ddbc_bindings
from mssql_python.constants import ConstantsDDBC

from rubix_token_sync.targets.mssql.calls import CallThread, Hung, as_driver_errors
from rubix_token_sync.targets.mssql.errors import read_driver_error, rule_for
from rubix_token_sync.targets.mssql.socket import DriverSocket

__all__ = ["DriverConnection", "DriverCursor", "connection_is_over"]

_INLINE_UNITS: Final = 4_000
"""A text of more UTF-16 units is an NVARCHAR(MAX)."""

T = TypeVar("T")

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
        self.version, self.user = "", ""
        """The server's version in its own words, and who it says we are."""
        self.gathering: list[tuple[str, Sequence[Any]]] | None = None
        """Statements that wait for those behind them, and what their parameters are."""
        self._begun = False
        """A transaction that may have to be taken back."""
        self._spare: dict[bool, Any] = {}
        """The driver's cursors without work: of statements with parameters, and of others."""
        self._autocommit = True

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
        """Each message is a transaction of its own, which needs neither BEGIN nor its end."""
        return self._autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        if value == self._autocommit:
            return
        if self._begun:
            self.rollback()  # else the driver would commit it
        self._begun = not value
        self.bounded(lambda: self._raw.setautocommit(value))
        self._autocommit = value

    def executes(self) -> None:
        """A statement is about to be executed."""
        self._begun = not self._autocommit

    @contextlib.contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """Give calls up to ``seconds`` each, for the time being."""
        before, before_driver = self.call_seconds, self._raw.timeout
        self.call_seconds = max(before, seconds)
        self._raw.timeout = int(self.call_seconds)
        self._close_spare()  # each has the time that was given when it was made
        try:
            yield
        finally:
            self._close_spare()
            self.call_seconds, self._raw.timeout = before, before_driver

    def cursor(self) -> DriverCursor:
        return DriverCursor(self)

    def take(self, parameters: bool) -> Any:
        """A cursor of the driver, for a statement with or without ``parameters``."""
        return self._spare.pop(parameters, None) or self.bounded(self._raw.cursor)

    def give_back(self, raw: Any, parameters: bool) -> None:
        """What `take` gave; its results are of no use any more."""
        reset = getattr(raw, "_soft_reset_cursor", None)
        if reset is None or self.failed or parameters in self._spare:
            self.bounded(raw.close)
            return
        self.bounded(reset)
        # Else it would be executed under its old handle, with whatever types that had.
        raw.last_executed_stmt = ""
        self._spare[parameters] = raw

    def _close_spare(self) -> None:
        with contextlib.suppress(mssql_python.Error):  # they are of no use any more
            while self._spare and not self.hung:
                self.bounded(self._spare.popitem()[1].close)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[list[tuple[str, Sequence[Any]]]]:
        """What is executed meanwhile is not sent, but put into this list with its parameters."""
        self.gathering = gathered = list[tuple[str, Sequence[Any]]]()
        try:
            yield gathered
        finally:
            self.gathering = None

    def commit(self) -> None:
        self.bounded(self._raw.commit)
        self._begun = False

    def rollback(self) -> None:
        try:
            self.bounded(self._raw.rollback)
        except mssql_python.Error as error:
            # The server has ended the transaction with the statement that failed: there is
            # nothing to roll back, and what failed must not be hidden by saying so.
            if "Invalid transaction state" not in str(error):
                raise
        self._begun = False

    def close(self) -> None:
        if self._thread.hung:
            return  # its thread closes it, should the call ever return
        # The driver rolls back first; a connection that is gone has nothing to roll back.
        with contextlib.suppress(mssql_python.Error):
            if not self._begun:  # else the driver begins one, in which it ends its statements
                self.autocommit = True
        with contextlib.suppress(mssql_python.Error):
            if not self.hung:
                self.bounded(self._raw.close)
        self._spare.clear()
        self._thread.end()

    def _drop(self) -> None:
        with contextlib.suppress(mssql_python.Error):
            self._raw.close()


class DriverCursor:
    """A cursor of the driver, as SQLAlchemy uses it; of the driver's own it has one when needed."""

    def __init__(self, connection: DriverConnection) -> None:
        self.connection = connection
        self._driver: Any = None
        self._parameters = False
        self._rowcount = -1
        self._kept: list[Any] = []
        self._sizes: list[Any] | None = None

    @property
    def _raw(self) -> Any:
        if self._driver is None:
            self._take(parameters=False)
        return self._driver

    def _take(self, *, parameters: bool) -> None:
        if self._driver is not None and self._parameters != parameters:
            self.close()
        if self._driver is not None:
            return
        self._driver, self._parameters = self.connection.take(parameters), parameters
        raw = self._driver
        release = getattr(type(raw), "_reset_cursor", None)
        if release is not None:
            # The driver frees the statement's handle, and with it the error's
            # number, before it raises: read it just before.  Without this hook
            # (another version) errors are told by their words.
            def keep_and_release() -> None:
                self._kept = _diagnostics(raw)
                release(raw)

            raw._reset_cursor = keep_and_release

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)  # messages, …

    @property
    def description(self) -> Any:
        return None if self._driver is None else self._driver.description

    @property
    def rowcount(self) -> int:
        return self._rowcount if self._driver is None else int(self._driver.rowcount)

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
        sizes, self._sizes = self._sizes, None
        if self.connection.gathering is not None:
            self.connection.gathering.append((sql, values))
            return self
        if isinstance(values, (tuple, list)) and None in values:
            # The driver would ask the server for the type of a NULL; where that
            # cannot be told, the question ends the transaction without a word.
            sizes = [_parameter_type(value) for value in values]
        self._take(parameters=bool(values))
        if sizes is not None:
            self._raw.setinputsizes(sizes)
        self.connection.executes()
        self._bounded(lambda: self._raw.execute(sql, *parameters))
        return self

    def executemany(self, sql: str, rows: Sequence[Any]) -> None:
        sizes, self._sizes = self._sizes, None
        if sizes is None and rows and isinstance(rows[0], (tuple, list)):
            sizes = [_column_type(column) for column in zip(*rows, strict=True)]
        self._take(parameters=True)
        if sizes is not None:
            self._raw.setinputsizes(sizes)
        self.connection.executes()
        self._bounded(lambda: self._raw.executemany(sql, rows))

    def setinputsizes(self, sizes: Sequence[Any]) -> None:
        """Types of the next statement's parameters: (ODBC type, size, digits) each."""
        self._sizes = list(sizes)

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
        if self._driver is not None and not self.connection.hung:
            self._rowcount = int(self._driver.rowcount)
            self._bounded(lambda: self.connection.give_back(self._driver, self._parameters))
        self._driver = None

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
                error.__dict__["diagnostics"] = self._kept or _diagnostics(self._driver)
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


def connection_is_over(error: BaseException) -> bool:
    """Whatever reconnecting may help with is not worth the old connection."""
    if not isinstance(error, mssql_python.Error):
        return False
    return rule_for(read_driver_error(error)).error.kind == "transient"
