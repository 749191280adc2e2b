"""The secondary indexes of TokenRecords: left out of a first load, built at its end."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from rubix_token_sync import faults

__all__ = ["build_index", "drop_late_indexes", "may_alter", "missing_indexes"]

_RIGHT: Final = "SELECT HAS_PERMS_BY_NAME('dbo.TokenRecords', 'OBJECT', 'ALTER')"
_NAMES: Final = "SELECT name FROM sys.indexes WHERE object_id = OBJECT_ID('dbo.TokenRecords')"
_EDITION: Final = "SELECT CAST(SERVERPROPERTY('EngineEdition') AS INT)"
_AZURE_EDITIONS: Final = frozenset({5, 8})
"""Azure SQL Database and Managed Instance: they build indexes while others go on writing."""


def may_alter(conn: sa.Connection) -> bool:
    """Whether this user may drop and build indexes; an application user need not."""
    return bool(conn.exec_driver_sql(_RIGHT).scalar())


def missing_indexes(conn: sa.Connection, records: sa.Table) -> list[sa.Index]:
    """The secondary indexes that are not there; those of the widest columns first."""
    there = {str(row[0]).lower() for row in conn.exec_driver_sql(_NAMES) if row[0]}
    table = records.name.lower()

    def found(name: str) -> bool:
        # Babelfish may list an index with its table's name and a digest behind its own.
        return name in there or any(other.startswith(name + table) for other in there)

    late = [i for i in records.indexes if not i.unique and not found(str(i.name).lower())]
    return sorted(late, key=lambda i: (-_width(i), str(i.name)))


def _width(index: sa.Index) -> int:
    return sum(getattr(column.type, "length", None) or 0 for column in index.columns)


def drop_late_indexes(conn: sa.Connection, records: sa.Table) -> None:
    """Drop the secondary indexes of an empty table."""
    for index in sorted(records.indexes, key=lambda i: str(i.name)):
        if not index.unique:
            faults.point("store.indexes.drop")
            conn.exec_driver_sql(f"DROP INDEX IF EXISTS {index.name} ON {records.name}")


def build_index(conn: sa.Connection, index: sa.Index) -> None:
    """Build one, without keeping others from writing where the server can do that."""
    faults.point("store.indexes.build")
    sql = str(sa.schema.CreateIndex(index).compile(dialect=conn.dialect))
    if conn.exec_driver_sql(_EDITION).scalar() in _AZURE_EDITIONS:
        sql += " WITH (ONLINE = ON)"
    conn.exec_driver_sql(sql)
