"""Old versions of records, the runs by whose numbers they are told apart, and the nodes' DIDs.

What a target of revision 0003 holds is known in full, so its first change is kept (run 0: before
history began).  What an earlier one holds is not: its history begins with its first run.

Which DIDs are a node's own, with which keys, is not known before its database was read again,
so the next sync reads each database once.

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
    if sa.inspect(conn).has_table(tables.runs.name):
        return  # the first revision has just made everything
    counted = DIDS.counted_as in _columns(conn, tables.databases)
    for stored in tables.stored.values():
        if stored.history is not None:
            _number(conn, stored.table)
        for table in stored.all():
            table.create(conn, checkfirst=True)
            add_missing_columns(conn, table)
    tables.runs.create(conn, checkfirst=True)
    for table in (tables.leases, tables.databases, *tables.audit.all()):
        add_missing_columns(conn, table)
    for statement in tables.spelling.after:
        op.execute(statement)
    if not counted:
        conn.execute(sa.update(tables.databases).values(fingerprint=None))


def _columns(conn: sa.Connection, table: sa.Table) -> set[str]:
    return {column["name"] for column in sa.inspect(conn).get_columns(table.name)}


def _number(conn: sa.Connection, records: sa.Table) -> None:
    """Where the column is there already, this or an earlier revision has just made it."""
    if "since_run" not in _columns(conn, records):
        kind, zero = records.c.since_run.type, sa.text("0")
        fresh = sa.Column("since_run", kind, nullable=False, server_default=zero)
        op.add_column(records.name, fresh)


def downgrade() -> None:
    raise RuntimeError("Restore a backup instead: earlier editions refuse a newer schema.")
