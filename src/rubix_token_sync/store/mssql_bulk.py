"""The driver's bulk copy, over connections of its own that are kept.

`mssql_python.Cursor.bulkcopy_arrow` logs in for every call, and a login costs
as much as tens of thousands of rows.  This does what that method does (mssql-python
1.16), except that the connection stays open for the next call.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

import mssql_py_core
import mssql_python
import pyarrow as pa
import sqlalchemy as sa

from rubix_token_sync import faults
from rubix_token_sync.errors import CommitAmbiguous, SyncError, TargetUnavailable
from rubix_token_sync.store import mssql_statements as statements
from rubix_token_sync.store.base import Lease
from rubix_token_sync.store.ledger import lost
from rubix_token_sync.store.mssql_pool import driver_cursor

__all__ = ["BulkConnection", "BulkCopy"]

_IDLE_SECONDS: Final = 60.0
"""After so long without use a firewall may have forgotten the connection."""


class BulkConnection:
    """Logs in when it is first used; one call at a time."""

    def __init__(self) -> None:
        self._raw: Any = None
        self._used = 0.0

    @property
    def is_open(self) -> bool:
        """Logged in by an earlier call."""
        return self._raw is not None

    def open(self, cursor: Any) -> None:
        """Log in, unless that was done a short while ago.

        Args:
            cursor: one of the driver, whose address, login and log-in time-out are taken.

        Raises:
            RuntimeError, OSError, ValueError: what the driver's native client raises.
        """
        if self._raw is not None and time.monotonic() - self._used > _IDLE_SECONDS:
            self.close()
        if self._raw is not None:
            return
        context = cursor._build_pycore_context()
        try:
            self._raw = mssql_py_core.PyCoreConnection(context)
        finally:
            context.clear()  # holds the password
        self._used = time.monotonic()

    def ask(self, sql: str) -> Any:
        """The first row of a statement's result, or None; it must be open.

        Takes no parameters: ``sql`` is a constant, or built of one and a UUID.

        Raises:
            RuntimeError, OSError: as `open`; the connection is closed then.
        """
        try:
            cursor = self._raw.cursor()
            cursor.execute(sql)
            rows = cursor.fetchall()  # to its end, or the connection is not free
            return rows[0] if rows else None
        except BaseException:
            self.close()
            raise

    def load(self, table: str, rows: pa.RecordBatch, columns: Sequence[str], seconds: int) -> int:
        """Bulk-copy ``rows`` in the transaction that is open, else in one of its own.

        Args:
            seconds: the longest that the copy may take.

        Returns:
            The driver's count.

        Raises:
            RuntimeError, OSError, ValueError: as `open`; the connection is closed then.
        """
        try:
            result = self._raw.cursor().bulkcopy_arrow(
                table,
                rows,
                batch_size=0,
                timeout=seconds,
                column_mappings=list(columns),
                keep_identity=False,
                check_constraints=True,  # to skip them takes the right to ALTER the table
                table_lock=False,
                keep_nulls=False,
                fire_triggers=False,
                use_internal_transaction=False,
                python_logger=None,
            )
        except BaseException:
            self.close()
            raise
        self._used = time.monotonic()
        return int(result["rows_copied"])

    def close(self) -> None:
        """Log out; the next call logs in again."""
        raw, self._raw = self._raw, None
        if raw is not None:
            with contextlib.suppress(RuntimeError, OSError):  # it may be gone already
                raw.close()


class BulkCopy:
    """Bulk loads over a fixed number of connections; whoever wants one waits for it.

    Servers that only resemble SQL Server, proxies and old drivers fail at this in
    many ways, so it is tried out before it is used.
    """

    def __init__(self, connections: int, translate: Callable[[BaseException], SyncError]) -> None:
        self.connections = connections
        self._translate = translate
        self._free: queue.LifoQueue[BulkConnection] = queue.LifoQueue()
        self._closed = False
        for _ in range(connections):
            self._free.put(BulkConnection())
        self.works: bool | None = None if connections else False
        """None until it was tried out."""
        self.refusal = "" if connections else "CONNECTION_POOL_SIZE leaves no connection for it."

    def close(self) -> None:
        """Log out."""
        self._closed = True
        while not self._free.empty():
            self._free.get().close()

    def log_in(self, conn: sa.Connection) -> None:
        """Have a connection ready."""
        self._over(conn, lambda _over, _seconds: None)

    def try_out(self, conn: sa.Connection, rows: pa.RecordBatch, load_id: int) -> bool:
        """Stage ``rows`` and look whether they are there just so; sets `works`.

        Raises:
            mssql_python.Error: what may go well another time.
        """
        try:
            self.stage(conn, rows, load_id)
        except mssql_python.Error as error:
            found = self._translate(error)
            if found.kind != "permanent":
                raise
            self.works, self.refusal = False, found.message
            return False
        stored = conn.exec_driver_sql(statements.STAGED, (load_id,))
        wanted = sorted(zip(*(c.to_pylist() for c in rows.columns), strict=True))
        self.works = [tuple(row) for row in stored] == wanted
        if not self.works:
            self.refusal = "What it stored differs from what was sent."
        return self.works

    def stage(self, conn: sa.Connection, rows: pa.RecordBatch, load_id: int) -> None:
        """Load ``rows`` into staging, committed."""
        loaded = statements.with_load(rows, load_id)

        def work(over: BulkConnection, seconds: int) -> None:
            over.load(statements.STAGING, loaded, statements.BULK_COLUMNS, seconds)

        self._over(conn, work)

    def insert(self, conn: sa.Connection, lease: Lease, rows: pa.RecordBatch) -> None:
        """Load new records straight into the table, committed, while nobody can take the lease.

        Raises:
            LeaseLost: it is another run's; nothing was written.
            CommitAmbiguous: it is not known whether they were committed.
        """
        hold = statements.HOLD_LEASE.format(session=UUID(lease.session_id))
        committing = given_up = False

        def work(over: BulkConnection, seconds: int) -> None:
            nonlocal committing
            try:
                held = over.ask(hold)
                if held is None:
                    raise lost(lease)
                faults.point("store.insert")
                timed = statements.with_time(rows, held[0])
                over.load(statements.RECORDS, timed, statements.NEW_COLUMNS, seconds)
                faults.point("store.commit.before")
                if given_up:  # nobody waits for this call any more
                    raise TimeoutError
                committing = True
                over.ask("COMMIT TRANSACTION")
                faults.point("store.commit.after")
            except BaseException:
                over.close()  # which takes the transaction back
                raise

        try:
            self._over(conn, work)
        except Exception as error:
            given_up = True
            if not committing:
                raise
            raise CommitAmbiguous(
                "The acknowledgement of a commit was lost.", code="commit_unknown"
            ) from error

    def _over(self, conn: sa.Connection, work: Callable[[BulkConnection, int], None]) -> None:
        """Do ``work`` with one of the connections, logged in the way ``conn`` is."""
        over = self._free.get()
        kept = over.is_open

        def logged_in(own: Any, seconds: int) -> None:
            over.open(own)
            work(over, seconds)

        try:
            with driver_cursor(conn) as cursor:
                cursor.beside(logged_in)
        except mssql_python.OperationalError as error:
            over = BulkConnection()
            found = self._translate(error)
            if kept and found.kind == "permanent":
                # Perhaps of that connection only: the next attempt has a new one.
                raise TargetUnavailable(found.message, code="connection_lost") from error
            raise
        except BaseException:
            over = BulkConnection()  # the call may still be under way
            raise
        finally:
            if self._closed:
                over.close()
            self._free.put(over)
