"""The secondary indexes of TokenRecords: left out of a first load, built at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.errors import TargetUnavailable
from rubix_token_sync.targets.mssql.connection import patient
from rubix_token_sync.targets.mssql.staging import clean
from rubix_token_sync.targets.mssql.statements import Statements
from rubix_token_sync.targets.sql.database import Database

__all__ = ["finish_load", "prepare_load", "schema_lock", "unfinished_load"]

_RIGHT: Final = "SELECT HAS_PERMS_BY_NAME('dbo.TokenRecords', 'OBJECT', 'ALTER')"
_NUMBER: Final = "INDEXPROPERTY(OBJECT_ID('dbo.TokenRecords'), '{name}', 'IndexID')"
"""NULL where there is no index of that name."""
_EDITION: Final = "SELECT CAST(SERVERPROPERTY('EngineEdition') AS INT)"
_AZURE_EDITIONS: Final = frozenset({5, 8})
"""Azure SQL Database and Managed Instance: they build indexes while others go on writing."""
_LOCK_WAIT_SECONDS: Final = 3_600.0


@contextlib.contextmanager
def schema_lock(conn: sa.Connection) -> Iterator[None]:
    """See `Backend`."""
    with patient(conn, _LOCK_WAIT_SECONDS):
        taken = conn.exec_driver_sql(
            "DECLARE @taken INT; EXEC @taken = sp_getapplock"
            " @Resource = 'rubix_token_sync.schema', @LockMode = 'Exclusive',"
            f" @LockOwner = 'Transaction', @LockTimeout = {int(_LOCK_WAIT_SECONDS * 500)};"
            " SELECT @taken"
        ).scalar_one()
        if taken < 0:
            raise TargetUnavailable(
                "Another run has been changing the schema for too long.",
                code="schema_locked",
                remedy="Wait for it to end, then run again.",
            )
        yield


def prepare_load(database: Database) -> None:
    """A first load builds the secondary indexes at its end, any other has them.

    A first load that died goes on as one, and leaves its staged rows to this call of the next
    run; what else lacks an index gets it now.
    """
    tables = database.tables

    def work(conn: sa.Connection) -> bool:
        empty = conn.execute(sa.select(tables.records.c.id).limit(1)).first() is None
        if empty and _may_alter(conn):
            with schema_lock(conn):
                for index in tables.late_indexes():
                    failpoints.point("store.indexes.drop")
                    conn.exec_driver_sql(f"DROP INDEX IF EXISTS {index.name} ON TokenRecords")
            return True
        return not empty and unfinished_load(conn, database)

    if not database.transact(work):
        finish_load(database)
    for stored in tables.stored.values():
        of_table = Statements(stored.columns)
        clean(database, of_table.clean(of_table.left_behind))


def unfinished_load(conn: sa.Connection, database: Database) -> bool:
    """See `Backend`."""
    late = database.tables.late_indexes()
    return len(_missing(conn, late)) == len(late) and _may_alter(conn)


def finish_load(database: Database) -> None:
    """Build missing secondary indexes, where this user may.

    One after the other: the server builds each on several processors, where its edition can.
    """

    def find(conn: sa.Connection) -> list[sa.Index]:
        missing = _missing(conn, database.tables.late_indexes())
        return missing if missing and _may_alter(conn) else []

    for index in database.read(find):
        database.transact(partial(_build, index=index))


def _build(conn: sa.Connection, index: sa.Index) -> None:
    with schema_lock(conn):
        if _missing(conn, [index]):  # nobody else has built it meanwhile
            _build_index(conn, index)


def _may_alter(conn: sa.Connection) -> bool:
    """Whether this user may drop and build indexes; an application user need not."""
    return bool(conn.exec_driver_sql(_RIGHT).scalar())


def _missing(conn: sa.Connection, indexes: Sequence[sa.Index]) -> list[sa.Index]:
    asked = ", ".join(_NUMBER.format(name=index.name) for index in indexes)
    numbers = conn.exec_driver_sql(f"SELECT {asked}").one()
    return [index for index, number in zip(indexes, numbers, strict=True) if number is None]


def _build_index(conn: sa.Connection, index: sa.Index) -> None:
    """Build one, without keeping others from writing where the server can do that."""
    failpoints.point("store.indexes.build")
    sql = str(sa.schema.CreateIndex(index).compile(dialect=conn.dialect))
    if conn.exec_driver_sql(_EDITION).scalar() in _AZURE_EDITIONS:
        sql += " WITH (ONLINE = ON)"
    conn.exec_driver_sql(sql)
