"""Leases say when they end; a source says which machine it belongs to.

Revision ID: 0002
"""

from __future__ import annotations

from alembic import context, op

from rubix_token_sync.targets.migrations.guide_tables import add_missing_columns
from rubix_token_sync.targets.sql.tables import Tables

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    conn, tables = op.get_bind(), context.config.attributes["tables"]
    assert isinstance(tables, Tables)
    add_missing_columns(conn, tables.leases)
    tables.sources.create(conn, checkfirst=True)


def downgrade() -> None:
    raise RuntimeError("Restore a backup instead: the first edition refuses a newer schema.")
