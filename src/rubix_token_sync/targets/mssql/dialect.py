"""SQLAlchemy's dialect for Microsoft's driver."""

from __future__ import annotations

import re
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.mssql.mssqlpython import MSDialect_mssqlpython
from sqlalchemy.engine.interfaces import IsolationLevel
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import quoted_name

from rubix_token_sync.targets.mssql.driver import connection_is_over
from rubix_token_sync.targets.sql.functions import before_colon, beginning, cased, number_of

__all__ = ["DIALECT", "Dialect"]

DIALECT: Final = "mssql+rubixsync"


class Dialect(MSDialect_mssqlpython):
    """For servers that only resemble SQL Server, too."""

    supports_statement_cache = True

    def _get_server_version_info(self, connection: sa.Connection) -> tuple[int, ...]:
        raw: Any = connection.connection.dbapi_connection  # it has asked already
        found = re.match(r"Microsoft .*? - (\d+)\.(\d+)\.(\d+)\.(\d+)", raw.version)
        # Else what Azure SQL Database itself has always said.
        return tuple(map(int, found.groups())) if found else (12, 0, 2000, 8)

    # Tables are looked for by the server's own function; to ask its catalog costs much more.

    def has_table(
        self, connection: Any, table_name: str, schema: str | None = None, **_options: Any
    ) -> bool:
        return dict(self.has_multi_table(connection, [table_name], schema))[schema, table_name]

    def has_multi_table(
        self, connection: Any, table_names: Any, schema: str | None = None, **_options: Any
    ) -> list[tuple[tuple[str | None, str], bool]]:
        names = list(table_names)
        asked = {f"n{n}": f"[{schema or 'dbo'}].[{name}]" for n, name in enumerate(names)}
        ids = ", ".join(f"OBJECT_ID(:{mark}, 'U')" for mark in asked)
        found = connection.execute(sa.text(f"SELECT {ids}"), asked).one()
        return [((schema, name), one is not None) for name, one in zip(names, found, strict=True)]

    # Questions to which the answer is known, and one that not every server can answer.

    def _get_default_schema_name(self, connection: Any) -> str:
        del connection
        return quoted_name("dbo", quote=True)  # the target accepts no other

    def get_default_isolation_level(self, dbapi_conn: Any) -> IsolationLevel:
        del dbapi_conn
        return "READ COMMITTED"

    def _setup_supports_nvarchar_max(self, connection: Any) -> None:
        del connection
        self._supports_nvarchar_max = True

    def _setup_supports_comments(self, connection: Any) -> None:
        del connection
        self.supports_comments = False  # none are written

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        return super().is_disconnect(e, connection, cursor) or connection_is_over(e)


registry.register("mssql.rubixsync", __name__, "Dialect")


@compiles(before_colon, "mssql")
def _before_colon(element: before_colon, compiler: Any, **options: Any) -> str:
    text = compiler.process(element.clauses, **options)
    # No CASE, whose branches the server may evaluate out of order.
    return f"coalesce(left({text}, nullif(charindex(':', {text}), 0) - 1), {text})"


@compiles(beginning, "mssql")
def _beginning(element: beginning, compiler: Any, **options: Any) -> str:
    text, length = (compiler.process(part, **options) for part in element.clauses)
    return f"left({text}, {length})"


@compiles(number_of, "mssql")
def _number_of(element: number_of, compiler: Any, **options: Any) -> str:
    text = compiler.process(element.clauses, **options)
    return (
        f"CASE WHEN {text} LIKE '[0-9]%' AND {text} NOT LIKE '%[^0-9.]%'"
        f" AND {text} NOT LIKE '%.%.%' AND len({text}) <= 25 THEN TRY_CAST({text} AS FLOAT) END"
    )


@compiles(cased, "mssql")
def _cased(element: cased, compiler: Any, **options: Any) -> str:
    return f"{compiler.process(element.clauses, **options)} COLLATE Latin1_General_BIN2"
