"""The first schema: from nothing, or from the guide's bare tables in place.

Revision ID: 0001
"""

from __future__ import annotations

from alembic import op

from rubix_token_sync.targets.migrations.guide_tables import adopt_bare_tables
from rubix_token_sync.targets.sql.tables import build_tables, can_cover, keep_row_locks

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    conn = op.get_bind()
    tables = build_tables(conn.dialect.name, covering=can_cover(conn.dialect))
    adopt_bare_tables(conn, tables)
    tables.metadata.create_all(conn)
    if conn.dialect.name == "mssql":
        for statement in keep_row_locks():
            op.execute(statement)


def downgrade() -> None:
    raise RuntimeError("Restore a backup instead: a downgrade would drop every record.")
