"""Databases of nodes: what the target holds of each, how old that is, what is missing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from rubix_token_sync.monitor.codes import code_of
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.monitor.runs import last_runs
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = [
    "DatabaseFailure",
    "DatabaseRow",
    "content_failures_of_run",
    "failed_databases",
    "list_databases",
]


@dataclass(frozen=True)
class DatabaseFailure:
    """Why a database could not be processed in the last sync of its source."""

    source_ip: str
    node_name: str
    db_path: str
    session_id: str
    code: str
    message: str
    occurred_at: datetime


@dataclass(frozen=True)
class DatabaseRow:
    """One database.  ``state`` is ``current``, ``failed`` (in the last sync) or ``overdue``."""

    source_ip: str
    node_name: str
    db_path: str
    ipfs_path: str | None
    state: str
    last_modified: datetime | None
    last_processed: datetime | None
    last_success_at: datetime | None
    """The end of the last sync that read it or found it unchanged."""
    age_seconds: float | None
    """Since ``last_success_at``; None: it was never processed."""
    record_count: int
    ipfs_success_count: int
    ipfs_fail_count: int
    ipfs_success_rate: float | None
    validation_error_count: int
    rejected_count: int
    processing_duration_seconds: float
    content_failures: dict[str, int] = field(default_factory=dict)
    """Records without content by reason."""
    error: DatabaseFailure | None = None


def list_databases(
    store: SqlTarget,
    filters: Filters,
    now: datetime,
    *,
    max_age: timedelta | None = None,
    reasons: bool = True,
) -> list[DatabaseRow]:
    """Every database that is known or failed, by source, node and path.

    ``filters.since`` keeps those whose last success is not older.  ``reasons`` False
    leaves ``content_failures`` empty, which spares a look at TokenRecords.
    """
    databases = store.tables.databases
    query = sa.select(databases).where(*filters.by(databases, now))
    known = store.read(lambda conn: conn.execute(query).all())
    failed = {(f.source_ip, f.db_path): f for f in failed_databases(store, filters, now)}
    why = _content_failures(store, filters, now) if reasons else {}
    rows = []
    for row in known:
        place = (row.source_ip, row.db_path)
        rows.append(_known(row, why.get(place, {}), failed.pop(place, None), now, max_age))
    rows += [_unknown(failure) for failure in failed.values()]
    if filters.since is not None:
        oldest = filters.since.total_seconds()
        rows = [r for r in rows if r.age_seconds is not None and r.age_seconds <= oldest]
    return sorted(rows, key=lambda r: (r.source_ip, r.node_name, r.db_path))


def _known(
    row: sa.Row[Any],
    reasons: dict[str, int],
    failure: DatabaseFailure | None,
    now: datetime,
    max_age: timedelta | None,
) -> DatabaseRow:
    seen = row.last_seen_at or row.last_processed
    age = max(0.0, (now - seen).total_seconds())
    records = row.record_count or 0
    state = "current"
    if failure is not None:
        state = "failed"
    elif max_age is not None and age > max_age.total_seconds():
        state = "overdue"
    return DatabaseRow(
        source_ip=row.source_ip,
        node_name=row.node_name or "",
        db_path=row.db_path,
        ipfs_path=row.ipfs_path,
        state=state,
        last_modified=row.last_modified,
        last_processed=row.last_processed,
        last_success_at=seen,
        age_seconds=round(age, 3),
        record_count=records,
        ipfs_success_count=row.ipfs_success_count or 0,
        ipfs_fail_count=row.ipfs_fail_count or 0,
        ipfs_success_rate=round((row.ipfs_success_count or 0) * 100 / records, 2)
        if records
        else None,
        validation_error_count=row.validation_error_count or 0,
        rejected_count=row.rejected_count or 0,
        processing_duration_seconds=row.processing_duration_seconds or 0.0,
        content_failures=reasons,
        error=failure,
    )


def _unknown(failure: DatabaseFailure) -> DatabaseRow:
    """A database of which nothing is held, because it has never been processed."""
    return DatabaseRow(
        source_ip=failure.source_ip,
        node_name=failure.node_name,
        db_path=failure.db_path,
        ipfs_path=None,
        state="failed",
        last_modified=None,
        last_processed=None,
        last_success_at=None,
        age_seconds=None,
        record_count=0,
        ipfs_success_count=0,
        ipfs_fail_count=0,
        ipfs_success_rate=None,
        validation_error_count=0,
        rejected_count=0,
        processing_duration_seconds=0.0,
        error=failure,
    )


def failed_databases(store: SqlTarget, filters: Filters, now: datetime) -> list[DatabaseFailure]:
    """Databases that the newest finished sync of each source could not process."""
    newest = [run.session_id for run in last_runs(store, now, sources=filters.sources).values()]
    errors = store.tables.errors
    found: list[DatabaseFailure] = []
    for start in range(0, len(newest), 500):
        query = (
            sa.select(errors)
            .where(
                errors.c.session_id.in_(newest[start : start + 500]),
                *filters.by(errors, now),
                # The others are about records of a database that was processed.
                errors.c.category.in_(("database", "system")),
                errors.c.token_id.is_(None),
                errors.c.db_path.is_not(None),
                errors.c.code != "record_refused",
            )
            .order_by(errors.c.id)
        )
        found += [
            DatabaseFailure(
                row.source_ip,
                row.node_name or "",
                row.db_path,
                str(row.session_id),
                row.code,
                row.message,
                row.occurred_at,
            )
            for row in store.read(lambda conn, q=query: conn.execute(q).all())  # type: ignore[misc]
        ]
    return found


def _content_failures(
    store: SqlTarget, filters: Filters, now: datetime
) -> dict[tuple[str, str], dict[str, int]]:
    records = store.tables.records
    inner = (
        sa.select(
            records.c.source_ip,
            records.c.db_path,
            code_of(records.c.ipfs_error).label("code"),
        )
        .where(
            records.c.ipfs_fetched == sa.false(),
            records.c.source_deleted_at.is_(None),
            *filters.by(records, now),
        )
        .subquery()
    )
    query = sa.select(inner, sa.func.count().label("records")).group_by(*inner.c)
    counts: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for row in store.read(lambda conn: conn.execute(query).all()):
        counts[row.source_ip, row.db_path][row.code or "unknown"] = row.records
    return {place: dict(sorted(codes.items())) for place, codes in counts.items()}


def content_failures_of_run(store: SqlTarget, session_id: str) -> list[tuple[str, str, str, int]]:
    """Node, path, code and count of the contents that one run could not get."""
    errors = store.tables.errors
    query = (
        sa.select(errors.c.node_name, errors.c.db_path, errors.c.code, errors.c.occurrences)
        .where(errors.c.session_id == session_id, errors.c.category == "ipfs")
        .order_by(errors.c.id)
    )
    rows = store.read(lambda conn: conn.execute(query).all())
    return [(row[0] or "", row[1] or "", row[2], row[3]) for row in rows]
