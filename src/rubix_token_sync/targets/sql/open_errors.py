"""What runs could not read and no later one has settled.

A completed sync settles what its source's runs reported before: it has looked again, or
it has written down again what lay outside of what it was asked for.
"""

from __future__ import annotations

import json

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.targets.base import ErrorEntry
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["UNREAD", "about_databases", "open_errors", "settled"]

UNREAD = "directory_unread"
"""Code of what discovery could not look into although nodes may be there."""


def about_databases(errors: sa.Table) -> list[sa.ColumnElement[bool]]:
    """Conditions on SyncErrors: a whole database failed or was not reached."""
    return [
        errors.c.category.in_(("database", "system")),
        errors.c.token_id.is_(None),
        errors.c.db_path.is_not(None),
        errors.c.code != "record_refused",
    ]


def settled(sessions: sa.Table) -> sa.ColumnElement[bool]:
    """The condition on a session that a completed sync of its source began after it."""
    later = sessions.alias("later")
    return (
        sa.select(later.c.session_id)
        .where(
            later.c.source_ip == sessions.c.source_ip,
            later.c.start_time > sessions.c.start_time,
            later.c.status == "COMPLETED",
            # Of the earlier script's rows no command is known; all of them were syncs.
            sa.or_(later.c.command.is_(None), later.c.command == "sync"),
        )
        .correlate(sessions)
        .exists()
    )


def open_errors(conn: sa.Connection, tables: Tables, source: str) -> list[ErrorEntry]:
    """A source's unread directories and databases that no completed sync has settled."""
    failpoints.point("store.states")
    sessions, errors = tables.sessions, tables.errors
    unsettled = sa.select(sessions.c.session_id).where(
        sessions.c.source_ip == source, ~settled(sessions)
    )
    query = (
        sa.select(errors)
        .where(
            errors.c.session_id.in_(unsettled),
            sa.or_(errors.c.code == UNREAD, sa.and_(*about_databases(errors))),
        )
        .order_by(errors.c.id)
    )
    return [
        ErrorEntry(
            row.category,
            row.code,
            row.message,
            row.node_name,
            row.db_path,
            context=json.loads(row.context or "{}"),
        )
        for row in conn.execute(query)
    ]
