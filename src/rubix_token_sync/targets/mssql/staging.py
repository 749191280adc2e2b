"""Rows staged on a SQL Server: sent there outside of any lock, published in one statement."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import pyarrow as pa
import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.errors import TargetError, TargetUnavailable
from rubix_token_sync.targets.base import Chunk
from rubix_token_sync.targets.mssql import statements as statements
from rubix_token_sync.targets.mssql.bulk import BulkCopy
from rubix_token_sync.targets.mssql.pool import driver_cursor

__all__ = ["Staging"]

Rows: TypeAlias = Sequence[Sequence[Any]]

_SMALLEST_BULK: Final = 50
"""Rows below which a bulk copy's own login costs more than it saves."""


class _Loads(threading.local):
    """What one thread has staged: the rows of a load (by identity) and the load's id."""

    def __init__(self) -> None:
        self.of_rows: dict[int, tuple[pa.RecordBatch, int]] = {}
        self.by_bulk = 0


class Staging:
    """Stages chunks, by bulk copy or by parameterised inserts; each thread has its own loads."""

    def __init__(
        self,
        bulk: BulkCopy,
        batch_size: int,
        read: Callable[[Callable[[sa.Connection], Rows]], Rows],
        remove: Callable[[int], None],
        warn: Callable[[str], None],
    ) -> None:
        """``read`` runs work on a connection; ``remove`` deletes the rows of a load.

        Both raise TargetError.
        """
        self.source: str | None = None
        """Whose lease is held: the next run for it removes what this one leaves behind."""
        self._bulk = bulk
        self._batch_size = batch_size
        self._read = read
        self._remove = remove
        self._warn = warn
        self._mine = _Loads()
        self._probe = threading.Lock()

    @property
    def bulk_loads(self) -> int:
        """How many bulk loads this thread did since its `loads` began."""
        return self._mine.by_bulk

    def count_bulk_load(self) -> None:
        """One more of them."""
        self._mine.by_bulk += 1

    @contextlib.contextmanager
    def loads(self) -> Iterator[None]:
        """Remove at the end what this thread has staged: it is published, or never will be."""
        self._mine.of_rows, self._mine.by_bulk = {}, 0
        try:
            yield
        finally:
            staged, self._mine.of_rows = self._mine.of_rows, {}
            for _rows, load_id in staged.values():
                try:
                    self._remove(load_id)
                except TargetError as error:
                    # They harm nobody: the next run removes them, and says so if it cannot.
                    self._warn(f"Staged rows were left behind. {error.message}")

    def load_of(self, rows: pa.RecordBatch) -> int:
        """The id under which `stage` has staged ``rows``."""
        return self._mine.of_rows[id(rows)][1]

    def stage(self, conn: sa.Connection, chunk: Chunk) -> None:
        """Have the chunk's rows staged, all of them, unless an earlier attempt got this far."""
        rows, mine = chunk.rows, self._mine.of_rows
        staged = mine.pop(id(rows), None)
        if staged is not None and self._count(conn, staged[1]) == rows.num_rows:
            mine[id(rows)] = staged
            return
        if staged is not None:
            mine[-staged[1]] = staged  # of no use: to be removed with the others
        load_id = self._new_load(rows)
        failpoints.point("store.stage")
        if self.is_for_bulk(chunk) and self.bulk_works(conn):
            self._bulk.stage(rows, load_id, conn)
            self.count_bulk_load()
        else:
            with driver_cursor(conn) as cursor:
                blocks = statements.Parameters(rows, load_id).blocks(self._batch_size)
                for types, values in blocks:
                    cursor.setinputsizes(types)
                    cursor.executemany(statements.STAGE_ROW, values)
        count = self._count(conn, load_id)
        if count != rows.num_rows:
            raise TargetUnavailable(
                f"{rows.num_rows} rows were sent to be staged, the server holds {count}.",
                code="stage_count",
                remedy="Run again; if it stays, report it with the log of a --verbose run.",
            )

    def is_for_bulk(self, chunk: Chunk) -> bool:
        """Whether it is large enough."""
        return chunk.bulk and int(chunk.rows.num_rows) >= _SMALLEST_BULK

    def bulk_works(self, conn: sa.Connection | None = None) -> bool:
        """Whether bulk copy works here: found out once, with a few made-up rows.

        ``conn`` is one that the caller has in hand, if any.
        """
        with self._probe:
            if self._bulk.works is None:
                rows = statements.sample(self.source or "")
                load_id = self._new_load(rows)

                def read(conn: sa.Connection) -> Rows:
                    return conn.exec_driver_sql(statements.STAGED, (load_id,)).all()

                def stored() -> Rows:
                    return read(conn) if conn is not None else self._read(read)

                if not self._bulk.try_out(rows, load_id, stored, conn):
                    self._warn(
                        "The server does not take the driver's bulk copy; rows go in by "
                        f"parameterised batches, which is slower. {self._bulk.refusal}".strip()
                    )
            return bool(self._bulk.works)

    def _new_load(self, rows: pa.RecordBatch) -> int:
        load_id = secrets.randbits(63)
        self._mine.of_rows[id(rows)] = (rows, load_id)  # holds the rows: their id stays theirs
        return load_id

    def _count(self, conn: sa.Connection, load_id: int) -> int:
        return int(conn.exec_driver_sql(statements.COUNT_STAGED, (load_id,)).scalar_one())
