"""What a question is limited to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

__all__ = ["Filters", "parse_age"]

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", re.IGNORECASE)


def parse_age(text: str) -> timedelta:
    """``90s``, ``30m``, ``24h``, ``7d``, ``2w``.

    Raises:
        ValueError: it is none of these, or longer than a hundred years.
    """
    match = _AGE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an age: write 90s, 30m, 24h, 7d or 2w")
    number = float(match[1])
    unit = _UNITS[match[2].lower()]
    try:
        age = timedelta(**{unit: number})
    except OverflowError:
        age = timedelta.max
    if age > timedelta(days=36_525):
        raise ValueError(f"{text!r} is more than a hundred years")
    return age


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
