"""Days of runs: how each went and what it changed, for a year of nights at one look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.monitor.answers import Answers

__all__ = ["Night", "list_nights"]

_MOST_RUNS: Final = 20_000
"""Of a fleet with more in that time, the oldest days are left out."""


@dataclass
class Night:
    """The syncs that began on one day (UTC) of one source, or of all that were asked for."""

    day: date
    completed: int = 0
    failed: int = 0
    interrupted: int = 0
    running: int = 0
    new: int = 0
    changed: int = 0
    """Records that got other values."""
    vanished: int = 0
    records_processed: int = 0
    seconds: float = 0.0


def list_nights(
    store: Answers, now: datetime, *, days: int = 371, sources: Sequence[str] = ()
) -> list[Night]:
    """Days with at least one sync, the newest first."""
    sessions, runs = store.tables.sessions, store.tables.runs
    query = (
        sa.select(
            sessions.c.start_time,
            sessions.c.end_time,
            sessions.c.status,
            sessions.c.total_records_processed,
            sessions.c.total_sql_inserts,
            runs.c.records_changed,
            runs.c.records_vanished,
        )
        .join_from(sessions, runs, runs.c.session_id == sessions.c.session_id, isouter=True)
        .where(
            sessions.c.start_time >= now - timedelta(days=days),
            sa.or_(sessions.c.command.is_(None), sessions.c.command == "sync"),
        )
        .order_by(sessions.c.start_time.desc())
        .limit(_MOST_RUNS)
    )
    if sources:
        query = query.where(sessions.c.source_ip.in_(sources))
    found: dict[date, Night] = {}
    for row in store.read(lambda conn: conn.execute(query).all()):
        _add(found.setdefault(row.start_time.date(), Night(row.start_time.date())), row)
    return list(found.values())


def _add(night: Night, row: Any) -> None:
    if row.status == "COMPLETED":
        night.completed += 1
    elif row.status == "FAILED":
        night.failed += 1
    elif row.status == "INTERRUPTED":
        night.interrupted += 1
    else:
        night.running += 1
    night.new += row.total_sql_inserts or 0
    night.changed += row.records_changed or 0
    night.vanished += row.records_vanished or 0
    night.records_processed += row.total_records_processed or 0
    if row.end_time is not None:
        night.seconds += max(0.0, (row.end_time - row.start_time).total_seconds())
