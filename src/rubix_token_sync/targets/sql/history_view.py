"""The view TokenRecordVersions, for people's own SQL: every version of every record."""

from __future__ import annotations

import sqlalchemy as sa

from rubix_token_sync.targets.sql.history_tables import all_versions
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["VIEW", "drop_view", "view_statement"]

VIEW = "TokenRecordVersions"


def _name(tables: Tables) -> str:
    return VIEW.lower() if tables.spelling.lower_case else VIEW


def drop_view(conn: sa.Connection, tables: Tables) -> None:
    """Where it is there."""
    conn.exec_driver_sql(f"DROP VIEW IF EXISTS {_name(tables)}")


def view_statement(dialect: sa.Dialect, tables: Tables) -> str:
    """The DDL that makes it."""
    stored = next(stored for stored in tables.stored.values() if stored.history is not None)
    assert stored.history is not None
    query = all_versions(stored.columns, stored.table, stored.history)
    text = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    statement = f"CREATE VIEW {_name(tables)} AS {text}"
    if dialect.name != "mssql":
        return statement
    # There it must stand alone, which a script of several statements does not let it.
    return f"EXEC('{statement.replace(chr(39), chr(39) * 2)}')"
