"""Rows staged on a SQL Server: sent there outside of any lock, published in one statement."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.errors import TargetError, TargetUnavailable
from rubix_token_sync.records.schema import RecordTable
from rubix_token_sync.targets.base import Chunk
from rubix_token_sync.targets.mssql import statements
from rubix_token_sync.targets.mssql.bulk import BulkCopy
from rubix_token_sync.targets.mssql.connection import driver_cursor
from rubix_token_sync.targets.sql.database import Database
from rubix_token_sync.targets.sql.questions import parts

__all__ = ["Staging", "clean"]

_SMALLEST_BULK: Final = 50
"""Rows below which a bulk copy's own login costs more than it saves."""


def clean(database: Database, sql: str, *parameters: int) -> None:
    """Remove staged rows, a bounded number at a time; ``sql`` is `Statements.clean`."""

    def work(conn: sa.Connection) -> int:
        failpoints.point("store.clean")
        return int(conn.exec_driver_sql(sql, parameters).scalar_one())

    while database.transact(work, alone=True) >= statements.CLEANED_AT_ONCE:
        pass


class Staging:
    """Stages the chunks of one call of `publish` at a time, by bulk copy or by parameters."""

    def __init__(
        self, bulk: BulkCopy, columns: RecordTable, batch_size: int, warn: Callable[[str], None]
    ) -> None:
        self._bulk = bulk
        self._columns = columns
        self._statements = statements.Statements(columns)
        self._batch_size = batch_size
        self._warn = warn
        self._loads: dict[int, tuple[pa.RecordBatch, int]] = {}
        """By the rows' identity: they are held, so that it stays theirs."""
        self.bulk_loads = 0
        """Since `forget` was called last."""
        self._probe = threading.Lock()

    def forget(self, database: Database) -> None:
        """Remove what is staged: it is published, or never will be."""
        staged, self._loads, self.bulk_loads = self._loads, {}, 0
        loads = [load_id for _rows, load_id in staged.values()]
        for part in parts(loads):
            marks = ", ".join("?" for _ in part)
            try:
                clean(database, self._statements.clean(f"load_id IN ({marks})"), *part)
            except TargetError as error:
                # They harm nobody: the next run removes them, and says so if it cannot.
                self._warn(f"Staged rows were left behind. {error.message}")

    def load_of(self, rows: pa.RecordBatch) -> int:
        """The id under which `stage` has staged ``rows``."""
        return self._loads[id(rows)][1]

    def stage(self, conn: sa.Connection, source: str, chunk: Chunk) -> None:
        """Have the chunk's rows staged, all of them, unless an earlier attempt got this far."""
        rows = chunk.rows
        staged = self._loads.pop(id(rows), None)
        if staged is not None and self._count(conn, staged[1]) == rows.num_rows:
            self._loads[id(rows)] = staged
            return
        if staged is not None:
            self._loads[-staged[1]] = staged  # of no use: to be removed with the others
        load_id = self._new_load(rows)
        failpoints.point("store.stage")
        if self.is_for_bulk(chunk) and self.bulk_works(source, conn):
            self._bulk.stage(self._statements.staging, rows, load_id, conn)
            self.bulk_loads += 1
        else:
            with driver_cursor(conn) as cursor:
                blocks = statements.Parameters(rows, load_id).blocks(self._batch_size)
                for types, values in blocks:
                    cursor.setinputsizes(types)
                    cursor.executemany(self._statements.stage_row, values)
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

    def bulk_works(self, source: str, conn: sa.Connection) -> bool:
        """Whether bulk copy works here: found out once, with a few made-up rows."""
        with self._probe:
            if self._bulk.works is None:
                rows = statements.sample(source, self._columns)
                load_id = self._new_load(rows)

                def stored() -> Sequence[Sequence[Any]]:
                    return conn.exec_driver_sql(self._statements.staged, (load_id,)).all()

                if not self._bulk.try_out(self._statements.staging, rows, load_id, stored, conn):
                    self._warn(
                        "The server does not take the driver's bulk copy; rows go in by "
                        f"parameterised batches, which is slower. {self._bulk.refusal}".strip()
                    )
            return bool(self._bulk.works)

    def _new_load(self, rows: pa.RecordBatch) -> int:
        load_id = secrets.randbits(63)
        self._loads[id(rows)] = (rows, load_id)
        return load_id

    def _count(self, conn: sa.Connection, load_id: int) -> int:
        return int(conn.exec_driver_sql(self._statements.count_staged, (load_id,)).scalar_one())
