"""The secondary indexes of TokenRecords: left out of a first load, built at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.errors import TargetUnavailable
from rubix_token_sync.targets.mssql.pool import patient
from rubix_token_sync.targets.sql.publishing import SqlStore

__all__ = ["LateIndexes"]

_RIGHT: Final = "SELECT HAS_PERMS_BY_NAME('dbo.TokenRecords', 'OBJECT', 'ALTER')"
_NUMBER: Final = "INDEXPROPERTY(OBJECT_ID('dbo.TokenRecords'), '{name}', 'IndexID')"
"""NULL where there is no index of that name."""
_EDITION: Final = "SELECT CAST(SERVERPROPERTY('EngineEdition') AS INT)"
_AZURE_EDITIONS: Final = frozenset({5, 8})
"""Azure SQL Database and Managed Instance: they build indexes while others go on writing."""
_LOCK_WAIT_SECONDS: Final = 3_600.0


class LateIndexes(SqlStore):
    """The part of a SQL Server target that changes its schema while others use it."""

    @contextlib.contextmanager
    def _schema_lock(self, conn: sa.Connection) -> Iterator[None]:
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

    def finish_load(self) -> None:
        """Build missing secondary indexes, where this user may.

        One after the other: the server builds each on several processors, where its edition can.
        """

        def find(conn: sa.Connection) -> list[sa.Index]:
            missing = _missing(conn, _late_indexes(self.tables.records))
            return missing if missing and _may_alter(conn) else []

        for index in self.read(find):
            self._build(index)

    def _build(self, index: sa.Index) -> None:
        def work(conn: sa.Connection) -> None:
            with self._schema_lock(conn):
                if _missing(conn, [index]):  # nobody else has built it meanwhile
                    _build_index(conn, index)

        self.transact(work)

    def _leave_out_indexes(self) -> bool:
        records = self.tables.records

        def work(conn: sa.Connection) -> bool:
            empty = conn.execute(sa.select(records.c.id).limit(1)).first() is None
            if empty and _may_alter(conn):
                with self._schema_lock(conn):
                    _drop_late_indexes(conn, records)
                return True
            return False

        return self.transact(work)


def _may_alter(conn: sa.Connection) -> bool:
    """Whether this user may drop and build indexes; an application user need not."""
    return bool(conn.exec_driver_sql(_RIGHT).scalar())


def _late_indexes(records: sa.Table) -> list[sa.Index]:
    return sorted((i for i in records.indexes if not i.unique), key=lambda i: str(i.name))


def _missing(conn: sa.Connection, indexes: Sequence[sa.Index]) -> list[sa.Index]:
    asked = ", ".join(_NUMBER.format(name=index.name) for index in indexes)
    numbers = conn.exec_driver_sql(f"SELECT {asked}").one()
    return [index for index, number in zip(indexes, numbers, strict=True) if number is None]


def _drop_late_indexes(conn: sa.Connection, records: sa.Table) -> None:
    """Drop the secondary indexes of an empty table."""
    for index in _late_indexes(records):
        failpoints.point("store.indexes.drop")
        conn.exec_driver_sql(f"DROP INDEX IF EXISTS {index.name} ON {records.name}")


def _build_index(conn: sa.Connection, index: sa.Index) -> None:
    """Build one, without keeping others from writing where the server can do that."""
    failpoints.point("store.indexes.build")
    sql = str(sa.schema.CreateIndex(index).compile(dialect=conn.dialect))
    if conn.exec_driver_sql(_EDITION).scalar() in _AZURE_EDITIONS:
        sql += " WITH (ONLINE = ON)"
    conn.exec_driver_sql(sql)
