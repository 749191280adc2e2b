"""Alembic's entry: uses the connection it is given, never opens one."""

from __future__ import annotations

from alembic import context

from rubix_token_sync.targets.sql.tables import build_tables

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=build_tables(connection.dialect.name).metadata,
    transactional_ddl=False,  # the caller's transaction is the only one
)
context.run_migrations()
