"""What the last sync of each source changed, beside what the ones before did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.history.change_counts import ChangeCounts, replaced_by
from rubix_token_sync.monitor.answers import Answers

__all__ = ["LastChanges", "last_changes"]

_BEFORE: Final = 7
_FEWEST_BEFORE: Final = 3
"""Syncs without which nothing can be called usual."""
_COUNTED: Final = {
    "new": "inserted",
    "changed": "records_changed",
    "transfers": "owners_changed",
    "statuses": "statuses_changed",
    "vanished": "records_vanished",
    "returned": "records_returned",
}
"""What is said of a run, and the column that has it."""


@dataclass(frozen=True)
class LastChanges:
    """What the newest completed sync of a source changed, in records."""

    run: int
    session_id: str
    ended_at: datetime | None
    new: int
    changed: int
    transfers: int
    """Records with another owner than before."""
    statuses: int
    """Records with another status than before."""
    vanished: int
    returned: int
    before: int
    """How many syncs before it are compared with, seven at most."""
    usual: dict[str, float]
    """The median of those, of each of these counts; empty where they are fewer than three."""
    nodes: list[ChangeCounts] = field(default_factory=list)
    """By node, without what is new."""


def last_changes(store: Answers, sources: Sequence[str] = ()) -> dict[str, LastChanges]:
    """Of each source; none where it has not completed a sync since history began."""
    runs, sessions = store.tables.runs, store.tables.sessions
    place = sa.func.row_number().over(partition_by=runs.c.source_ip, order_by=runs.c.number.desc())
    wanted = [sessions.c.status == "COMPLETED", sessions.c.command == "sync"]
    if sources:
        wanted.append(runs.c.source_ip.in_(sources))
    ranked = (
        sa.select(runs, sessions.c.total_sql_inserts.label("inserted"), place.label("place"))
        .join_from(runs, sessions, sessions.c.session_id == runs.c.session_id)
        .where(*wanted)
        .subquery()
    )
    query = sa.select(ranked).where(ranked.c.place <= 1 + _BEFORE).order_by(ranked.c.place)
    found: defaultdict[str, list[sa.Row[Any]]] = defaultdict(list)
    for row in store.read(lambda conn: conn.execute(query).all()):
        found[row.source_ip].append(row)
    return {source: _last(store, rows) for source, rows in found.items()}


def _last(store: Answers, rows: Sequence[sa.Row[Any]]) -> LastChanges:
    newest, *before = ({name: row._mapping[c] or 0 for name, c in _COUNTED.items()} for row in rows)
    usual = {}
    if len(before) >= _FEWEST_BEFORE:
        usual = {name: median(counts[name] for counts in before) for name in _COUNTED}
    row = rows[0]
    nodes = []
    if any(number for name, number in newest.items() if name != "new"):
        nodes = store.read(lambda conn: replaced_by(conn, store.tables, row.number))
    return LastChanges(
        row.number,
        str(row.session_id),
        row.ended_at,
        **newest,
        before=len(before),
        usual=usual,
        nodes=nodes,
    )
