"""What a target is asked can be asked of every other database, too."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from rubix_token_sync.targets.mssql import dialect as mssql
from rubix_token_sync.targets.postgresql import dialect as postgresql


def spell_everywhere(engine: sa.Engine) -> None:
    """Let each statement fail that SQL Server's or PostgreSQL's dialect cannot spell."""
    server: Any = mssql.Dialect()
    server.server_version_info = (12, 0, 2000, 8)
    server._setup_version_attributes()
    others = server, postgresql.Dialect()

    def spell(_conn: Any, statement: Any, *_more: Any) -> None:
        if isinstance(statement, sa.Select | sa.CompoundSelect):
            for dialect in others:
                statement.compile(dialect=dialect)

    sa.event.listen(engine, "before_execute", spell)
