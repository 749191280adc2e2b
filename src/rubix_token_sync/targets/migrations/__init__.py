"""The schema's history, applied by Alembic.

`upgrade` runs inside the caller's transaction and under its lock, so ten
machines that start at the same second upgrade once.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from rubix_token_sync.targets.sql.history_view import drop_view, view_statement
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["upgrade"]


def upgrade(conn: sa.Connection, tables: Tables) -> None:
    """Bring the target behind ``conn`` to the newest revision; does nothing when it is.

    ``tables`` are what the newest revision has, as this database spells them.
    """
    drop_view(conn, tables)  # it holds on to columns
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = conn
    config.attributes["tables"] = tables
    command.upgrade(config, "head")
    conn.exec_driver_sql(view_statement(conn.dialect, tables))
