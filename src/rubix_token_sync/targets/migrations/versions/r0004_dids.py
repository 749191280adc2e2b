"""The nodes' own DIDs with their public keys, and what a finding's evidence says of a DID.

Which DIDs are a node's own is not known before its database was read again, so the next sync
reads each database once.

Revision ID: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from rubix_token_sync.records.companions import DIDS
from rubix_token_sync.targets.migrations.guide_tables import add_missing_columns
from rubix_token_sync.targets.sql.tables import Tables

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    conn, tables = op.get_bind(), context.config.attributes["tables"]
    assert isinstance(tables, Tables)
    stored = tables.stored[DIDS.name]
    lacked = DIDS.counted_as not in {
        c["name"] for c in sa.inspect(conn).get_columns(tables.databases.name)
    }
    for table in (stored.table, stored.staging):
        if table is not None:
            table.create(conn, checkfirst=True)
    add_missing_columns(conn, tables.databases)
    for table in tables.audit.all():
        add_missing_columns(conn, table)
    for statement in tables.spelling.after:
        op.execute(statement)
    if lacked:
        conn.execute(sa.update(tables.databases).values(fingerprint=None))


def downgrade() -> None:
    raise RuntimeError("Restore a backup instead: earlier editions refuse a newer schema.")
