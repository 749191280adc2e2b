"""The embedded target: one SQLite file."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from rubix_token_sync.errors import SyncError
from rubix_token_sync.nodes.keep_out import keep_out
from rubix_token_sync.records.companions import COMPANIONS
from rubix_token_sync.records.schema import RECORDS, RecordTable
from rubix_token_sync.targets.base import Chunk, Published, TargetOptions
from rubix_token_sync.targets.sql.backend import Backend
from rubix_token_sync.targets.sql.tables import Spelling
from rubix_token_sync.targets.sqlite import reader
from rubix_token_sync.targets.sqlite.address import path_of
from rubix_token_sync.targets.sqlite.connection import driver, make_engine
from rubix_token_sync.targets.sqlite.errors import DRIVER_ERRORS, translate_error
from rubix_token_sync.targets.sqlite.indexes import finish_load, prepare_load, unfinished_load
from rubix_token_sync.targets.sqlite.writer import NOW, Writer

__all__ = ["SPELLING", "open_backend"]

SPELLING: Final = Spelling(now=f"({NOW})", include=False)


def open_backend(
    address: str, options: TargetOptions, records: RecordTable = RECORDS
) -> SqliteBackend:
    """The entry of this folder; see `rubix_token_sync.targets.registry`."""
    path = path_of(address)
    if not options.read_only:
        keep_out(path, "The target")
    return SqliteBackend(Path(path).absolute(), options, records)


class SqliteBackend(Backend):
    """See `rubix_token_sync.targets.sql.backend.Backend`."""

    kind = "sqlite"
    now = NOW
    driver_errors = DRIVER_ERRORS
    prepare_load = staticmethod(prepare_load)
    finish_load = staticmethod(finish_load)
    unfinished_load = staticmethod(unfinished_load)
    known_rows = staticmethod(reader.known_rows)
    scan = staticmethod(reader.scan)
    one_writer = True

    def __init__(self, path: Path, options: TargetOptions, records: RecordTable) -> None:
        self.path = path
        self.place = f"sqlite:///{path}"
        self.engine = make_engine(path, options)
        self._read_only = options.read_only
        tables = (records, *COMPANIONS)
        self._writers = {table.name: Writer(table, options.batch_size) for table in tables}

    def spelling(self) -> Spelling:
        return SPELLING

    def later(self, seconds: float) -> str:
        return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', '{seconds:+f} seconds')"

    def translate(
        self,
        error: BaseException,
        *,
        committing: bool = False,  # noqa: ARG002 - a local commit is never in doubt
    ) -> SyncError:
        return translate_error(error, self.path, read_only=self._read_only)

    def describe(self, conn: sa.Connection) -> str:
        return f"SQLite {conn.exec_driver_sql('SELECT sqlite_version()').scalar_one()}"

    def identity(self, conn: sa.Connection) -> str:  # noqa: ARG002 - the path says it
        return f"sqlite:///{self.path.resolve()}"

    def schema_lock(self, conn: sa.Connection) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002
        return contextlib.nullcontext()  # BEGIN IMMEDIATE already keeps everybody else out

    def copy_into(self, conn: sa.Connection, path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as copy:
            driver(conn).backup(copy)
            # Its readers need neither a -wal nor a right to write beside it.
            copy.execute("PRAGMA journal_mode=DELETE")

    def write_rows(self, conn: sa.Connection, chunk: Chunk, run: int) -> Published:
        return self._writers[chunk.table].write(conn, chunk, run)

    def keep_versions(self, conn: sa.Connection, chunk: Chunk, run: int) -> None:
        self._writers[chunk.table].keep(conn, chunk, run)
