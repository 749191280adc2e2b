"""Every kind of token, its network, what is judged of it; transactions, pledges; the audit.

What the first edition stored is of the kind rbt.  The rest of it is not known before the
node's database was read again, so the next sync reads each database once.

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from rubix_token_sync.targets.migrations.guide_tables import add_missing_columns
from rubix_token_sync.targets.sql.tables import Tables

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    conn, tables = op.get_bind(), context.config.attributes["tables"]
    assert isinstance(tables, Tables)
    lacked = "token_kind" not in {
        c["name"] for c in sa.inspect(conn).get_columns(tables.records.name)
    }
    for stored in tables.stored.values():
        for table in stored.all():
            table.create(conn, checkfirst=True)
            add_missing_columns(conn, table)
    for table in (tables.duplicates, tables.databases):
        add_missing_columns(conn, table)
    for table in tables.audit.all():
        table.create(conn, checkfirst=True)
    for statement in tables.spelling.after:
        op.execute(statement)
    if lacked:
        conn.execute(sa.update(tables.databases).values(fingerprint=None))


def downgrade() -> None:
    raise RuntimeError("Restore a backup instead: earlier editions refuse a newer schema.")
