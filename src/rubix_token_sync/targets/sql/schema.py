"""The target's schema: which one is there, making it, printing it."""

from __future__ import annotations

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.errors import SchemaError
from rubix_token_sync.targets.base import SCHEMA_VERSION
from rubix_token_sync.targets.sql.database import Database
from rubix_token_sync.targets.sql.tables import build_tables

__all__ = ["Schema"]


class Schema:
    """See the methods of the same names in `rubix_token_sync.targets.base.Target`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def version(self) -> str | None:
        return self._database.read(self._database.backend.schema_version)

    def ensure(self) -> bool:
        database = self._database
        version = self.version()
        if version == SCHEMA_VERSION:
            return False
        if version is not None and version > SCHEMA_VERSION:
            raise SchemaError(
                f"The target's schema is of version {version}, "
                f"newer than this program's {SCHEMA_VERSION}.",
                code="schema_newer",
                remedy="Install the newer rubix-token-sync that made it.",
            )
        if database.options.read_only:
            raise SchemaError(
                "The target holds no tables of this program's version.",
                code="schema_missing",
                remedy="Run `rubix-token-sync schema upgrade` or a first `sync`.",
            )
        from rubix_token_sync.targets import migrations

        def work(conn: sa.Connection) -> None:
            failpoints.point("store.upgrade")
            with database.backend.schema_lock(conn):
                spelling = database.backend.spelling()
                migrations.upgrade(conn, build_tables(spelling, database.tables.columns))

        database.transact(work)
        return True

    def script(self) -> str:
        from sqlalchemy.schema import CreateIndex, CreateTable

        from rubix_token_sync.targets.sql.history_view import view_statement

        backend, dialect = self._database.backend, self._database.engine.dialect
        spelling = backend.spelling()
        tables = build_tables(spelling, self._database.tables.columns)
        notes = backend.schema_notes(tables.all())
        parts = [notes] if notes else []
        for table in tables.all():
            parts.append(str(CreateTable(table).compile(dialect=dialect)).strip() + ";")
            parts += [
                str(CreateIndex(index).compile(dialect=dialect)).strip() + ";"
                for index in sorted(table.indexes, key=lambda i: str(i.name))
            ]
        parts.append("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);")
        parts.append(
            f"INSERT INTO alembic_version (version_num) VALUES ('{SCHEMA_VERSION}');"  # noqa: S608
        )
        parts += [f"{statement};" for statement in spelling.after]
        parts.append(f"{view_statement(dialect, tables)};")
        return "\n\n".join(parts) + "\n"
