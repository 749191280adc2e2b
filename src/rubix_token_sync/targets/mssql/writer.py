"""Writing rows into a SQL Server.

A chunk is staged first, outside of any lock: by Microsoft's bulk copy (which
has a connection of its own) or, when it is small, by parameterised inserts.
Staged rows belong to a load by its id.  Then one short transaction checks the
lease, publishes the load set-based, writes the mark and commits.  Whatever a
dead run leaves staged is removed by the next one.

Records that are new to the target spare the server half of that work: the bulk
copy puts them straight into the table, in a transaction that holds the lease.
Whatever goes wrong there, they are staged after all.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Final

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.errors import (
    CommitAmbiguous,
    RecordRefused,
    TargetError,
    TransactionTooLarge,
)
from rubix_token_sync.records.schema import RecordTable
from rubix_token_sync.targets.base import Chunk, Lease, Published
from rubix_token_sync.targets.mssql.bulk import BulkCopy
from rubix_token_sync.targets.mssql.pace import Pace
from rubix_token_sync.targets.mssql.staging import Staging
from rubix_token_sync.targets.mssql.statements import Statements
from rubix_token_sync.targets.sql.backend import Load
from rubix_token_sync.targets.sql.database import Database

__all__ = ["Writer"]

_LOG: Final = logging.getLogger(__name__)


class Writer:
    """The way into one table; one publishes at a time, other processes have their own."""

    def __init__(
        self,
        bulk: BulkCopy,
        columns: RecordTable,
        batch_size: int,
        warn: Callable[[str], None],
        pace: Pace,
    ) -> None:
        """``bulk`` and ``pace`` are the server's, shared by all tables."""
        self.pace = pace
        self._bulk = bulk
        self._staging = Staging(bulk, columns, batch_size, warn)
        self._statements = Statements(columns)
        self._turn = threading.Lock()
        self._inserts = True  # new records, straight into the table: until that fails

    @contextlib.contextmanager
    def load(self, database: Database, lease: Lease, chunk: Chunk) -> Iterator[Load]:
        """See `Backend`: new records straight into the table where that works."""
        load = Load()
        with self._turn:
            try:
                fits = self._staging.is_for_bulk(chunk) and chunk.rows.num_rows <= self.pace.rows
                if chunk.new and fits and self._inserts:
                    self._insert(database, lease, chunk, load)
                yield load
                load.bulk_loads += self._staging.bulk_loads
            finally:
                self._staging.forget(database)
            self.pace.went_well()

    def _insert(self, database: Database, lease: Lease, chunk: Chunk, load: Load) -> None:
        try:
            with database.translated():
                failpoints.point("store.connect")
                with database.engine.connect() as conn:
                    works = self._staging.bulk_works(lease.source, conn)
                if works and self._bulk.stamps(self._statements):
                    self._bulk.insert(lease, self._statements, chunk.rows)
                    load.inserted, load.bulk_loads = chunk.rows.num_rows, 1
        except TargetError as error:
            _LOG.debug("New records are staged after all: %s", error.message)
            load.unsure = isinstance(error, CommitAmbiguous)
            of_all = error.kind == "permanent" and not isinstance(error, RecordRefused)
            self._inserts = not of_all

    def stage(self, conn: sa.Connection, lease: Lease, chunk: Chunk) -> None:
        """See `Backend`.  Whoever stages holds up nobody."""
        if chunk.rows.num_rows > self.pace.rows:
            raise TransactionTooLarge(
                "The transaction is larger than the server's pace allows now.", code="paced"
            )
        self._staging.stage(conn, lease.source, chunk)

    def keep(self, conn: sa.Connection, chunk: Chunk, run: int) -> None:
        """See `Backend`: what `stage` has sent is to replace them."""
        if self._statements.versioned:
            load_id = self._staging.load_of(chunk.rows)
            conn.exec_driver_sql(self._statements.keep, (run, run, load_id))

    def write(self, conn: sa.Connection, chunk: Chunk, run: int) -> Published:
        """See `Backend`: what `stage` has sent."""
        load_id = self._staging.load_of(chunk.rows)
        parameters = self._statements.publish_parameters(load_id, chunk.rows.num_rows, run)
        updated, inserted = conn.exec_driver_sql(self._statements.publish, parameters).one()
        return Published(inserted=int(inserted), updated=int(updated), batches=1)
