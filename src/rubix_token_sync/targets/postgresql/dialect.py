"""SQLAlchemy's dialect for psycopg, without questions to which the driver has the answers."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine.interfaces import IsolationLevel
from sqlalchemy.ext.compiler import compiles

from rubix_token_sync.targets.sql.functions import before_colon, number_of

__all__ = ["DIALECT", "Dialect"]

DIALECT: Final = "postgresql+rubixsync"


class Dialect(PGDialect_psycopg):
    """Opens without a question: a server is 1 to 60 ms away."""

    supports_statement_cache = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, use_native_hstore=False)  # type: ignore[no-untyped-call]

    def _get_server_version_info(self, connection: sa.Connection) -> tuple[int, ...]:
        # What the server, or a pooler, said when the session began: 160004, before 10 90603.
        number: int = connection.connection.dbapi_connection.info.server_version  # type: ignore[union-attr]
        major, rest = divmod(number, 10_000)
        return (major, rest) if major >= 10 else (major, *divmod(rest, 100))

    def _get_default_schema_name(self, connection: sa.Connection) -> str:
        del connection
        raise NotImplementedError  # SQLAlchemy takes this for: not known, and does not ask

    def get_default_isolation_level(self, dbapi_conn: Any) -> IsolationLevel:
        del dbapi_conn
        return "READ COMMITTED"  # what to go back to; transactions say which one they want

    def _set_backslash_escapes(self, connection: sa.Connection) -> None:
        info = connection.connection.dbapi_connection.info  # type: ignore[union-attr]
        self._backslash_escapes = info.parameter_status("standard_conforming_strings") == "off"


registry.register("postgresql.rubixsync", __name__, "Dialect")


@compiles(before_colon, "postgresql")
def _before_colon(element: before_colon, compiler: Any, **options: Any) -> str:
    return f"split_part({compiler.process(element.clauses, **options)}, ':', 1)"


@compiles(number_of, "postgresql")
def _number_of(element: number_of, compiler: Any, **options: Any) -> str:
    text = compiler.process(element.clauses, **options)
    return (
        f"CASE WHEN length({text}) <= 25 AND {text} ~ '^[0-9]+([.][0-9]*)?$'"
        f" THEN CAST({text} AS double precision) END"
    )
