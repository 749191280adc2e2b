"""The PostgreSQL target (10 or newer).

The lease is fenced by a shared row lock: the writers of one run do not wait
for each other, nor for the heartbeat (which changes no key), and whoever takes
the lease over (``FOR UPDATE``) waits until the last of them has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from pydantic import SecretStr

from rubix_token_sync.errors import SyncError
from rubix_token_sync.records.companions import COMPANIONS
from rubix_token_sync.records.schema import RECORDS, RecordTable
from rubix_token_sync.targets.base import Chunk, Published, TargetOptions
from rubix_token_sync.targets.postgresql import reader
from rubix_token_sync.targets.postgresql.address import PostgresAddress
from rubix_token_sync.targets.postgresql.connection import NOW, driver, make_engine
from rubix_token_sync.targets.postgresql.errors import DRIVER_ERRORS, translate_error
from rubix_token_sync.targets.postgresql.indexes import (
    finish_load,
    prepare_load,
    schema_lock,
    unfinished_load,
)
from rubix_token_sync.targets.sql.backend import Backend
from rubix_token_sync.targets.sql.tables import Spelling

if TYPE_CHECKING:
    from rubix_token_sync.targets.postgresql.writer import Writer

__all__ = ["IDENTITY", "SPELLING", "open_backend"]

SPELLING: Final = Spelling(
    now="timezone('utc', now())",
    false="false",
    new_uuid="(md5(random()::text || clock_timestamp()::text))::uuid",  # before 13, too
    lower_case=True,
)
IDENTITY: Final = "SELECT current_database() || ' ' || pg_postmaster_start_time()::text"
_FIRST_WITH_INCLUDE: Final = (11,)


def open_backend(
    address: str, options: TargetOptions, records: RecordTable = RECORDS
) -> PostgresBackend:
    """The entry of this folder; see `rubix_token_sync.targets.registry`."""
    return PostgresBackend(PostgresAddress.parse(SecretStr(address)), options, records)


class PostgresBackend(Backend):
    """See `rubix_token_sync.targets.sql.backend.Backend`."""

    kind = "postgresql"
    now = NOW
    driver_errors = DRIVER_ERRORS
    prepare_load = staticmethod(prepare_load)
    finish_load = staticmethod(finish_load)
    unfinished_load = staticmethod(unfinished_load)
    schema_lock = staticmethod(schema_lock)
    known_rows = staticmethod(reader.known_rows)
    scan = staticmethod(reader.scan)
    one_writer = False

    def __init__(
        self, address: PostgresAddress, options: TargetOptions, records: RecordTable
    ) -> None:
        self.address = address
        self.place = address.place
        self.engine = make_engine(address, options)
        self._tables = (records, *COMPANIONS)

    @cached_property
    def _writers(self) -> dict[str, Writer]:
        from rubix_token_sync.targets.postgresql.writer import Writer

        return {table.name: Writer(table) for table in self._tables}

    def spelling(self) -> Spelling:
        version = self.engine.dialect.server_version_info or _FIRST_WITH_INCLUDE
        return SPELLING if version >= _FIRST_WITH_INCLUDE else replace(SPELLING, include=False)

    def later(self, seconds: float) -> str:
        return f"{NOW} + interval '{seconds:f} seconds'"

    def translate(self, error: BaseException, *, committing: bool = False) -> SyncError:
        original = getattr(error, "orig", None) or error
        found = translate_error(original, self.place, committing=committing)
        found.message = self.address.redact(found.message)
        return found

    def describe(self, conn: sa.Connection) -> str:
        query = "SELECT current_setting('server_version'), current_user"
        version, user = conn.exec_driver_sql(query).one()
        tls = "TLS" if driver(conn).pgconn.ssl_in_use else "no TLS"
        return f"PostgreSQL {version}, {tls}, user {user}"

    def identity(self, conn: sa.Connection) -> str:
        return str(conn.exec_driver_sql(IDENTITY).scalar_one())

    def together(self, conn: sa.Connection, statements: Sequence[sa.Executable]) -> list[int]:
        with driver(conn).together():
            results = [conn.execute(statement) for statement in statements]
        # -1: SQLAlchemy asked a cursor before it had an answer, or has closed one that was asked.
        return [max(result.rowcount, result.context.cursor.rowcount) for result in results]

    def write_rows(self, conn: sa.Connection, chunk: Chunk, run: int) -> Published:
        return self._writers[chunk.table].write(conn, chunk, run)

    def keep_versions(self, conn: sa.Connection, chunk: Chunk, run: int) -> None:
        self._writers[chunk.table].keep(conn, chunk, run)
