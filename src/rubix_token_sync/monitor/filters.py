"""What a question is limited to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

__all__ = ["Filters"]


@dataclass(frozen=True)
class Filters:
    """Empty means: everything.  ``since`` is an age, counted back from the server's now."""

    since: timedelta | None = None
    nodes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    category: str | None = None
    statuses: tuple[str, ...] = ()
    limit: int = 20

    def by(
        self, table: sa.FromClause, now: datetime, *, time: str | None = None
    ) -> list[sa.ColumnElement[bool]]:
        """Conditions on the source, node and time (column ``time``) of a table."""
        conditions: list[Any] = []
        if self.sources:
            conditions.append(table.c.source_ip.in_(self.sources))
        if self.nodes and "node_name" in table.c:
            conditions.append(table.c.node_name.in_(self.nodes))
        if self.since is not None and time is not None:
            conditions.append(table.c[time] >= now - self.since)
        return conditions
