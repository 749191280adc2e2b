"""What runs wrote into SyncErrors: the single events behind the counts of `failures`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from rubix_token_sync.monitor.answers import Answers
from rubix_token_sync.monitor.runs import is_session

__all__ = ["EventFilters", "EventPage", "EventRow", "list_events"]


@dataclass(frozen=True)
class EventFilters:
    """Empty means: everything."""

    session_id: str | None = None
    categories: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EventRow:
    """One error of one run, which may stand for several that were alike."""

    id: int
    session_id: str
    occurred_at: datetime
    category: str
    code: str
    message: str
    occurrences: int
    source_ip: str
    node_name: str | None
    db_path: str | None
    token_id: str | None


@dataclass(frozen=True)
class EventPage:
    """Some of them, the newest first."""

    events: list[EventRow]
    next: int | None
    """The id before which the next page begins; None: this was the last one."""


def list_events(
    store: Answers, filters: EventFilters, *, before: int | None = None, limit: int = 50
) -> EventPage:
    """One page of events, the newest first; ``before`` is the ``next`` of the page before."""
    errors = store.tables.errors
    if filters.session_id is not None and not is_session(filters.session_id):
        return EventPage([], None)
    query = sa.select(*(errors.c[name] for name in EventRow.__dataclass_fields__))
    for column, wanted in (
        ("session_id", (filters.session_id.lower(),) if filters.session_id else ()),
        ("category", filters.categories),
        ("code", filters.codes),
        ("source_ip", filters.sources),
        ("node_name", filters.nodes),
    ):
        if wanted:
            query = query.where(errors.c[column].in_(wanted))
    if before is not None:
        query = query.where(errors.c.id < before)
    query = query.order_by(errors.c.id.desc()).limit(limit + 1)
    rows = store.read(lambda conn: conn.execute(query).all())
    found = [
        EventRow(**{**dict(row._mapping), "session_id": str(row.session_id)})
        for row in rows[:limit]
    ]
    return EventPage(found, found[-1].id if len(rows) > limit else None)
