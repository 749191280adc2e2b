"""What a target cannot speak for: what the last syncs did not read, and names it does not know."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.monitor.answers import Answers
from rubix_token_sync.monitor.databases import failed_databases, unread_directories
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.monitor.problems import Problem, judge_unread
from rubix_token_sync.text import storable

__all__ = ["list_unread", "require_known", "unread_note"]

_MOST_NAMES: Final = 3


def list_unread(store: Answers, filters: Filters, now: datetime) -> list[Problem]:
    """Databases that failed or were not reached, and directories that were not looked into.

    Looks at marks and errors only, so that any question can ask it first.
    """
    databases = store.tables.databases
    query = sa.select(
        databases.c.source_ip, databases.c.db_path, databases.c.last_seen_at,
        databases.c.last_processed,
    ).where(*filters.by(databases, now))  # fmt: skip
    marks = {
        (row.source_ip, row.db_path): row.last_seen_at or row.last_processed
        for row in store.read(lambda conn: conn.execute(query).all())
    }
    failures = failed_databases(store, filters, now, marks)
    # Of what could not be looked into it is not known whose it is.
    directories = [] if filters.nodes else unread_directories(store, filters, now)
    return judge_unread(failures, directories)


def unread_note(unread: Sequence[Problem]) -> str | None:
    """A sentence about what an answer cannot speak for; None: nothing is unread."""
    if not unread:
        return None
    names = list(dict.fromkeys(one.node_name or "a directory" for one in unread))
    shown = ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")
    return (
        f"Not read by the last sync ({shown}): what is said of "
        f"{'it' if len(unread) == 1 else 'them'} may be old. `rubix-token-sync status` says why. "
        f"[{unread[0].code}]"
    )


def require_known(store: Answers, *, sources: Sequence[str], nodes: Sequence[str]) -> None:
    """Refuse a name that nothing in the target has: an empty answer would look like a good one.

    Raises:
        SettingsError: ``no_such_source`` or ``no_such_node``.
    """
    tables = store.tables
    for column, asked, code, what in (
        ("source_ip", sources, "no_such_source", "machine (source)"),
        ("node_name", nodes, "no_such_node", "node"),
    ):
        for name in dict.fromkeys(asked):
            places = [tables.databases, tables.errors, tables.records]
            if column == "source_ip":
                places.insert(0, tables.sessions)
            if not any(_holds(store, table.c[column], name) for table in places):
                raise SettingsError(
                    f"The target knows no {what} named {name}.",
                    code=code,
                    remedy="`rubix-token-sync databases` lists the names.",
                )


def _holds(store: Answers, column: sa.ColumnElement[str], name: str) -> bool:
    if not storable(name):
        return False
    query = sa.select(column).where(column == name).limit(1)
    return store.read(lambda conn: conn.execute(query).first()) is not None
