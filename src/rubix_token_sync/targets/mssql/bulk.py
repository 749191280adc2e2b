"""The driver's bulk copy, over connections of its own that are kept.

`mssql_python.Cursor.bulkcopy_arrow` logs in for every call, and a login costs
as much as tens of thousands of rows.  This does what that method does (mssql-python
1.16), except that the connection stays open for the next call.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

import mssql_py_core
import mssql_python
import pyarrow as pa
import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.errors import CommitAmbiguous, SyncError, TargetUnavailable
from rubix_token_sync.targets.base import Lease
from rubix_token_sync.targets.mssql import statements
from rubix_token_sync.targets.mssql.calls import CallThread, as_driver_errors
from rubix_token_sync.targets.mssql.connection import driver_cursor
from rubix_token_sync.targets.sql.sessions import lost

__all__ = ["BulkConnection", "BulkCopy"]

T = TypeVar("T")

_IDLE_SECONDS: Final = 60.0
"""After so long without use a firewall may have forgotten the connection."""


class BulkConnection:
    """One login of the bulk copy's native client, with a thread for its calls."""

    def __init__(self, seconds: float) -> None:
        """``seconds`` is how long a login, and what is done with it, may take at most each."""
        self._seconds = seconds
        self._thread = CallThread()
        self._raw: Any = None
        self._used = 0.0

    @property
    def is_open(self) -> bool:
        """Logged in, and used a short while ago."""
        return self._raw is not None and time.monotonic() - self._used < _IDLE_SECONDS

    @property
    def hung(self) -> bool:
        """A call did not come back: of no use any more."""
        return self._thread.hung

    def open(self, login: dict[str, Any]) -> None:
        """Log in.

        Args:
            login: what `DriverCursor.login` says; emptied, for it holds the password.

        Raises:
            mssql_python.Error: the server refuses, or there is none.
        """

        def work() -> None:
            self._close()
            try:
                self._raw = mssql_py_core.PyCoreConnection(login)
            finally:
                login.clear()
            self._used = time.monotonic()

        self.call(work)

    def call(self, work: Callable[[], T]) -> T:
        """Run ``work``, which uses this connection, within its time.

        Raises:
            mssql_python.Error: what the driver raised in it; the connection is closed then.
        """

        def guarded() -> T:
            try:
                return work()
            except BaseException:
                self._close()  # which takes an open transaction back
                raise

        return self._thread.call(
            lambda: as_driver_errors(guarded), 2 * self._seconds, late=self._close
        )

    def ask(self, sql: str) -> Any:
        """In a `call`: the first row of a statement's result, or None.

        Takes no parameters: ``sql`` is a constant, or built of one and a UUID.
        """
        cursor = self._raw.cursor()
        cursor.execute(sql)
        rows = cursor.fetchall()  # to its end, or the connection is not free
        return rows[0] if rows else None

    def load(self, table: str, rows: pa.RecordBatch, columns: Sequence[str]) -> int:
        """In a `call`: bulk-copy ``rows`` in the transaction that is open, else in one of its own.

        Returns:
            The driver's count.
        """
        result = self._raw.cursor().bulkcopy_arrow(
            table,
            rows,
            batch_size=0,
            timeout=max(1, int(self._seconds)),
            column_mappings=list(columns),
            keep_identity=False,
            check_constraints=True,  # to skip them takes the right to ALTER the table
            table_lock=False,
            keep_nulls=False,
            fire_triggers=False,
            use_internal_transaction=False,
            python_logger=None,
        )
        self._used = time.monotonic()
        return int(result["rows_copied"])

    def close(self) -> None:
        """Log out; of no use afterwards."""
        # One that hangs is closed by its thread, should the call ever return.
        with contextlib.suppress(mssql_python.Error):
            self._thread.call(self._close, self._seconds)
        self._thread.end()

    def _close(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            with contextlib.suppress(RuntimeError, OSError):  # it may be gone already
                raw.close()


class BulkCopy:
    """Bulk loads over one connection; one at a time.

    A second one would pay on no server that was tried: one keeps a session of the server
    busy, and others have the processors to read and to make records meanwhile.

    Servers that only resemble SQL Server, proxies and old drivers fail at this in
    many ways, so it is tried out before it is used.
    """

    def __init__(
        self,
        engine: sa.Engine,
        available: bool,
        seconds: float,
        translate: Callable[[BaseException], SyncError],
    ) -> None:
        """Each call may take ``seconds``; ``available``: the pool leaves a connection for it."""
        self._engine = engine
        self._seconds = seconds
        self._translate = translate
        self._over = BulkConnection(seconds)
        self._stamps: dict[str, bool] = {}
        self.works: bool | None = None if available else False
        """None until it was tried out."""
        self.refusal = "" if available else "CONNECTION_POOL_SIZE leaves no connection for it."

    def close(self) -> None:
        """Log out; of no use afterwards."""
        self._over.close()

    def try_out(
        self,
        staging: str,
        rows: pa.RecordBatch,
        load_id: int,
        stored: Callable[[], Iterable[Sequence[Any]]],
        conn: sa.Connection | None = None,
    ) -> bool:
        """Stage ``rows`` and look whether they are there unchanged; sets `works`.

        ``staging`` and ``conn`` as in `stage`; ``stored`` reads what is staged.

        Raises:
            mssql_python.Error: what may go well another time.
        """
        try:
            self.stage(staging, rows, load_id, conn)
        except mssql_python.Error as error:
            found = self._translate(error)
            if found.kind != "permanent":
                raise
            self.works, self.refusal = False, found.message
            return False
        wanted = sorted(zip(*(c.to_pylist() for c in rows.columns), strict=True))
        self.works = [tuple(row) for row in stored()] == wanted
        if not self.works:
            self.refusal = "What it stored differs from what was sent."
        return self.works

    def stage(
        self,
        staging: str,
        rows: pa.RecordBatch,
        load_id: int,
        conn: sa.Connection | None = None,
    ) -> None:
        """Load ``rows`` into the table ``staging``, committed.

        ``conn`` is a connection of the engine that the caller has in hand, if any.
        """
        loaded = statements.with_load(rows, load_id)
        with self._connection(conn) as over:
            over.call(lambda: over.load(staging, loaded, loaded.schema.names))

    def stamps(self, table: statements.Statements) -> bool:
        """Whether the table gives the time to records that are loaded straight into it.

        Raises:
            mssql_python.Error: what may go well another time.
        """
        if table.table not in self._stamps:
            with self._connection() as over:
                self._stamps[table.table] = over.call(lambda: over.ask(table.stamps))[0] == 1
        return self._stamps[table.table]

    def insert(self, lease: Lease, table: statements.Statements, rows: pa.RecordBatch) -> None:
        """Load new records straight into their table, committed, while nobody can take the lease.

        Raises:
            LeaseLost: it is another run's; nothing was written.
            CommitAmbiguous: it is not known whether they were committed.
        """
        hold = statements.HOLD_LEASE.format(session=UUID(lease.session_id))
        # A column without any value need not travel; the table has NULL for it.
        names = [n for n in rows.schema.names if rows.column(n).null_count < rows.num_rows]
        in_order = rows.select(names).sort_by("record_key")  # neighbours in the unique index
        committing = given_up = False

        def work(over: BulkConnection) -> None:
            nonlocal committing
            held = over.ask(hold)
            if held is None:
                raise lost(lease)
            failpoints.point("store.insert")
            loaded = statements.with_run(in_order, held[0]) if table.versioned else in_order
            over.load(table.table, loaded, loaded.schema.names)
            failpoints.point("store.commit.before")
            if given_up:  # nobody waits for this call any more
                raise TimeoutError
            committing = True
            over.ask("COMMIT TRANSACTION")
            failpoints.point("store.commit.after")

        try:
            with self._connection() as over:
                over.call(partial(work, over))
        except Exception as error:
            given_up = True
            if not committing:
                raise
            raise CommitAmbiguous(
                "The acknowledgement of a commit was lost.", code="commit_unknown"
            ) from error

    @contextlib.contextmanager
    def _connection(self, conn: sa.Connection | None = None) -> Iterator[BulkConnection]:
        over = self._over
        kept = over.is_open
        try:
            if not kept:
                over.open(self._login(conn))
            yield over
        except mssql_python.OperationalError as error:
            found = self._translate(error)
            if kept and found.kind == "permanent":
                # Perhaps of that connection only: the next attempt has a new one.
                raise TargetUnavailable(found.message, code="connection_lost") from error
            raise
        finally:
            if over.hung:
                self._over = BulkConnection(self._seconds)

    def _login(self, conn: sa.Connection | None) -> dict[str, Any]:
        with contextlib.ExitStack() as stack:
            conn = conn or stack.enter_context(self._engine.connect())
            return stack.enter_context(driver_cursor(conn)).login()
