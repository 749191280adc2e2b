"""Alembic's entry: uses the connection it is given, never opens one."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes["tables"].metadata,
    transactional_ddl=False,  # the caller's transaction is the only one
)
context.run_migrations()
