"""The first schema: from nothing, or from the guide's bare tables in place.

What is made here is made as the newest revision has it; the later ones find nothing to do.

Revision ID: 0001
"""

from __future__ import annotations

from alembic import context, op

from rubix_token_sync.targets.migrations.guide_tables import adopt_bare_tables
from rubix_token_sync.targets.sql.tables import Tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    conn, tables = op.get_bind(), context.config.attributes["tables"]
    assert isinstance(tables, Tables)
    adopt_bare_tables(conn, tables)
    tables.metadata.create_all(conn)
    for statement in tables.spelling.after:
        op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("Restore a backup instead: a downgrade would drop every record.")
