"""The Azure SQL and SQL Server target (2016 or newer)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Final

import mssql_python
import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.errors import SyncError, TargetOverloaded
from rubix_token_sync.records.companions import COMPANIONS
from rubix_token_sync.records.schema import RECORDS, RecordTable
from rubix_token_sync.targets.base import Chunk, Lease, Published, TargetOptions
from rubix_token_sync.targets.mssql import reader
from rubix_token_sync.targets.mssql.address import MssqlTarget, parse_connection_string
from rubix_token_sync.targets.mssql.bulk import BulkCopy
from rubix_token_sync.targets.mssql.connection import driver, make_engine, together
from rubix_token_sync.targets.mssql.driver import DriverConnection
from rubix_token_sync.targets.mssql.errors import translate_error
from rubix_token_sync.targets.mssql.indexes import (
    finish_load,
    prepare_load,
    schema_lock,
    unfinished_load,
)
from rubix_token_sync.targets.mssql.login import open_connection
from rubix_token_sync.targets.mssql.pace import Pace
from rubix_token_sync.targets.mssql.statements import NOW
from rubix_token_sync.targets.mssql.writer import Writer
from rubix_token_sync.targets.sql.backend import Backend, Load
from rubix_token_sync.targets.sql.database import Database
from rubix_token_sync.targets.sql.tables import Spelling

__all__ = ["SPELLING", "open_backend"]

_LOG: Final = logging.getLogger(__name__)
_LARGEST_TRANSACTION: Final = 50_000

SPELLING: Final = Spelling(
    now="GETUTCDATE()",
    new_uuid="NEWID()",
    filtered=False,  # no index may ask an NVARCHAR(MAX) column
    not_indexed=frozenset({"did"}),  # a key has 1,700 bytes at most; a did may have 2,000
    staging=True,
    # The server would trade the locks of some 5,000 rows for one of the whole table, and
    # every other machine would wait for the end of the transaction.
    after=tuple(
        f"ALTER TABLE {table} SET (LOCK_ESCALATION = DISABLE)"
        for columns in (RECORDS, *COMPANIONS)
        for table in (
            columns.name,
            columns.staging,
            *((columns.history,) if columns.versioned else ()),
        )
    ),
)
_SCHEMA_VERSION: Final = (
    "IF OBJECT_ID('dbo.alembic_version', 'U') IS NULL SELECT CAST(NULL AS VARCHAR(32))"
    " ELSE SELECT version_num FROM dbo.alembic_version"
)
_ENCRYPTION: Final = {
    "no": "no TLS",
    "yes": "TLS",
    "strict": "TLS from the first byte (TDS 8)",
}


def open_backend(
    address: str, options: TargetOptions, records: RecordTable = RECORDS
) -> MssqlBackend:
    """The entry of this folder; see `rubix_token_sync.targets.registry`."""
    return MssqlBackend(parse_connection_string(address), options, records)


class MssqlBackend(Backend):
    """See `rubix_token_sync.targets.sql.backend.Backend`."""

    kind = "mssql"
    now = NOW
    driver_errors = (mssql_python.Error, OSError, UnicodeError, OverflowError)
    prepare_load = staticmethod(prepare_load)
    finish_load = staticmethod(finish_load)
    unfinished_load = staticmethod(unfinished_load)
    schema_lock = staticmethod(schema_lock)
    known_rows = staticmethod(reader.known_rows)
    scan = staticmethod(reader.scan)
    one_writer = False
    bulk_differs = True
    waits: Mapping[str, float] = {
        "throttled": 10.0,  # what 40501 asks for
        "reconfiguring": 5.0,
        "not_available_yet": 20.0,
        "no_such_database": 5.0,
        "connection_lost": 1.0,
        "commit_unknown": 1.0,
        "deadlock": 0.2,
        "raced": 0.05,
    }

    def __init__(self, address: MssqlTarget, options: TargetOptions, records: RecordTable) -> None:
        self.address = address
        self.place = address.label
        self.warnings: tuple[str, ...] = ()
        if not options.read_only:  # readers need not say it again
            for sentence in address.warnings:
                self._warn(sentence)
        self._call_seconds = float(address.command_timeout_s or options.call_seconds)
        # One of the connections is the bulk copy's.
        bulk = not options.read_only and options.pool_size > 1
        pooled = options.pool_size - int(bulk)
        self.engine = make_engine(self._open, pooled, 2 * self._call_seconds)
        self.bulk = BulkCopy(self.engine, bulk, self._call_seconds, self.translate)
        self.pace = Pace(_LARGEST_TRANSACTION)
        self.writers = {
            table.name: Writer(self.bulk, table, options.batch_size, self._warn, self.pace)
            for table in (records, *COMPANIONS)
        }

    def _warn(self, sentence: str) -> None:
        self.warnings = (*self.warnings, sentence)
        _LOG.warning("%s: %s", self.place, sentence)

    def _open(self) -> DriverConnection:
        failpoints.point("store.open")
        return open_connection(self.address, self._call_seconds)

    def spelling(self) -> Spelling:
        return SPELLING

    def later(self, seconds: float) -> str:
        return f"DATEADD(MILLISECOND, {int(seconds * 1000)}, {NOW})"

    def translate(self, error: BaseException, *, committing: bool = False) -> SyncError:
        found = translate_error(error, self.address, committing=committing)
        if isinstance(found, TargetOverloaded):
            self.pace.slow_down()
        return found

    def schema_version(self, conn: sa.Connection) -> str | None:
        version: str | None = conn.exec_driver_sql(_SCHEMA_VERSION).scalar()
        return version

    def describe(self, conn: sa.Connection) -> str:
        version = ".".join(map(str, conn.dialect.server_version_info or ()))
        # What the connection string demands, and the driver logs in with or not at all.
        tls = _ENCRYPTION[self.address.encrypt]
        if self.address.encrypt != "no":
            trusted = self.address.trust_server_certificate
            tls += ", any certificate" if trusted else ", certificate checked"
        return f"SQL Server {version}, {tls}, user {driver(conn).user}"

    def identity(self, conn: sa.Connection) -> str:
        query = "SELECT @@SERVERNAME + ' ' + DB_NAME()"
        return str(conn.exec_driver_sql(query).scalar())

    def schema_notes(self, tables: list[sa.Table]) -> str:
        rights, user = "SELECT, INSERT, UPDATE, DELETE", "[application_user]"
        grants = (
            f"--   GRANT {rights} ON [dbo].[{table.name}] TO {user}"
            for table in tables
            if table.name != "TokenRecordDuplicates"
        )
        lines = (
            "-- The user that syncs needs these rights and no others, once the tables are there:",
            *grants,
            f"--   GRANT SELECT ON [dbo].[alembic_version] TO {user}",
            "-- Its default schema must be dbo, and QUOTED_IDENTIFIER on (the default) here.",
        )
        return "\n".join(lines)

    def together(self, conn: sa.Connection, statements: Sequence[sa.Executable]) -> list[int]:
        return together(conn, statements)

    def load(
        self, database: Database, lease: Lease, chunk: Chunk
    ) -> contextlib.AbstractContextManager[Load]:
        return self.writers[chunk.table].load(database, lease, chunk)

    def stage(self, conn: sa.Connection, lease: Lease, chunk: Chunk) -> None:
        self.writers[chunk.table].stage(conn, lease, chunk)

    def write_rows(self, conn: sa.Connection, chunk: Chunk, run: int) -> Published:
        return self.writers[chunk.table].write(conn, chunk, run)

    def keep_versions(self, conn: sa.Connection, chunk: Chunk, run: int) -> None:
        self.writers[chunk.table].keep(conn, chunk, run)

    def freeze(self, conn: sa.Connection) -> tuple[sa.Connection, bool]:
        """Azure SQL allows snapshots by default; another server's owner may not."""
        query = "SELECT snapshot_isolation_state FROM sys.databases WHERE name = DB_NAME()"
        allowed = conn.exec_driver_sql(query).scalar() == 1
        conn.rollback()  # the level of a transaction that has begun cannot be changed
        if allowed:
            conn = conn.execution_options(isolation_level="SNAPSHOT")
        return conn, allowed

    def close(self) -> None:
        self.bulk.close()
