"""Databases of nodes: what the target holds of each, how old that is, what is missing."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from rubix_token_sync.monitor.answers import Answers
from rubix_token_sync.monitor.codes import code_of
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.monitor.problems import PENDING
from rubix_token_sync.records.schema import database_key
from rubix_token_sync.targets.sql.functions import cased, rarely
from rubix_token_sync.targets.sql.open_errors import UNREAD, about_databases, settled
from rubix_token_sync.targets.sql.questions import key_range

__all__ = [
    "PENDING",
    "DatabaseFailure",
    "DatabaseRow",
    "UnreadDirectory",
    "failed_databases",
    "list_databases",
    "unread_directories",
]

_IN_LIST: Final = 500
_AT_ONCE: Final = 100
"""Databases whose records one statement counts."""


@dataclass(frozen=True)
class DatabaseFailure:
    """Why a database is not what its node has: it failed, or a run did not reach it."""

    source_ip: str
    node_name: str
    db_path: str
    session_id: str
    code: str
    message: str
    occurred_at: datetime


@dataclass(frozen=True)
class DatabaseRow:
    """One database.

    ``state``: ``current``; ``failed``: it could not be processed since its last success;
    ``pending``: the last run ended before it; ``overdue``.
    """

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
    kinds: dict[str, int] = field(default_factory=dict)
    """Records by kind of token; empty where an earlier edition read it last."""
    transaction_count: int = 0
    pledge_count: int = 0
    did_count: int = 0
    """The node's own DIDs; 0 where its database does not say."""
    chain_count: int = 0
    chains_read_at: datetime | None = None
    """The last sync that read token chains; None: none did."""
    chains_error: str | None = None
    """Why some of them could not be read then."""
    content_failures: dict[str, int] = field(default_factory=dict)
    """Records without content by reason."""
    error: DatabaseFailure | None = None


@dataclass(frozen=True)
class UnreadDirectory:
    """A directory that could not be looked into; ``reason`` is a code of `nodes.skipped`."""

    source_ip: str
    session_id: str
    path: str
    reason: str
    message: str


def list_databases(
    store: Answers,
    filters: Filters,
    now: datetime,
    *,
    max_age: timedelta | None = None,
) -> list[DatabaseRow]:
    """Every database that is known, failed or pending, by source, node and path.

    ``filters.since`` keeps those whose last success is not older.
    """
    databases = store.tables.databases
    query = sa.select(databases).where(*filters.by(databases, now))
    known = store.read(lambda conn: conn.execute(query).all())
    marks = {(row.source_ip, row.db_path): row.last_seen_at or row.last_processed for row in known}
    failed = {
        (failure.source_ip, failure.db_path): failure
        for failure in failed_databases(store, filters, now, marks)
    }
    missing = any(row.ipfs_fail_count for row in known)
    why = _content_failures(store, filters, now) if missing or failed else {}
    rows = []
    for row in known:
        place = (row.source_ip, row.db_path)
        rows.append(_known(row, why.get(place, {}), failed.pop(place, None), now, max_age))
    rows += [_unknown(failure) for failure in failed.values()]
    keys = {(row.source_ip, row.db_path): bytes(row.database_key) for row in known}
    rows = _counted_again(store, rows, why, keys)
    if filters.since is not None:
        oldest = filters.since.total_seconds()
        rows = [r for r in rows if r.age_seconds is not None and r.age_seconds <= oldest]
    return sorted(rows, key=lambda r: (r.source_ip, r.node_name, r.db_path))


def _counted_again(
    store: Answers,
    rows: Sequence[DatabaseRow],
    why: dict[tuple[str, str], dict[str, int]],
    keys: Mapping[tuple[str, str], bytes],
) -> list[DatabaseRow]:
    """The same, with what the target holds of databases whose mark is older than their records.

    ``keys`` are those of marks; of a database without one, its name gives it.
    """
    unsure = {
        place: keys.get(place) or database_key(*place)
        for row in rows
        if row.error is not None
        for place in ((row.source_ip, row.db_path),)
    }
    held = _held(store, list(unsure.values()))
    counted = []
    for row in rows:
        place = (row.source_ip, row.db_path)
        found = held.get(unsure.get(place, b""))
        if found is not None and found.records:
            row = replace(
                row,
                record_count=found.records,
                ipfs_success_count=found.content,
                ipfs_fail_count=found.records - found.content,
                ipfs_success_rate=round(found.content * 100 / found.records, 2),
                validation_error_count=found.invalid,
                content_failures=why.get(place, {}),
            )
        counted.append(row)
    return counted


class _Held(NamedTuple):
    """Live records of one database, counted."""

    records: int
    content: int
    invalid: int


def _held(store: Answers, keys: Sequence[bytes]) -> dict[bytes, _Held]:
    """By key, from indexes alone: a night that failed early leaves most of the records unsure."""
    records = store.tables.records.c
    fetched = sa.func.sum(sa.case((records.ipfs_fetched == sa.true(), 1), else_=0))
    held: dict[bytes, _Held] = {}

    def counts(some: Sequence[bytes], what: Any, *where: sa.ColumnElement[bool]) -> Any:
        each = [
            sa.select(sa.literal_column(str(place), sa.Integer()), *what).where(
                records.record_key.between(*key_range(key)),
                records.source_deleted_at.is_(None),
                *where,
            )
            for place, key in enumerate(some)
        ]
        query = sa.union_all(*each)
        return store.read(lambda conn: conn.execute(query).all())

    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        wrong = records.validation_errors.is_not(None)
        invalid = {row[0]: row[1] for row in counts(some, [sa.func.count()], wrong)}
        for place, number, content in counts(some, [sa.func.count(), fetched]):
            held[some[place]] = _Held(number, int(content or 0), invalid[place])
    return held


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
        state = "pending" if failure.code == PENDING else "failed"
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
        kinds=json.loads(row.kind_counts or "{}"),
        transaction_count=row.transaction_count or 0,
        pledge_count=row.pledge_count or 0,
        did_count=row.did_count or 0,
        chain_count=row.chain_count or 0,
        chains_read_at=row.chains_read_at,
        chains_error=row.chains_error,
        content_failures=reasons,
        error=failure,
    )


def _unknown(failure: DatabaseFailure) -> DatabaseRow:
    """A database that has never been processed to its end."""
    return DatabaseRow(
        source_ip=failure.source_ip,
        node_name=failure.node_name,
        db_path=failure.db_path,
        ipfs_path=None,
        state="pending" if failure.code == PENDING else "failed",
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


def failed_databases(
    store: Answers,
    filters: Filters,
    now: datetime,
    marks: dict[tuple[str, str], datetime],
) -> list[DatabaseFailure]:
    """Databases whose newest event is a failure (or `PENDING`) that no success has followed.

    ``marks`` is when each known database was last found as its node has it.  Of a database
    that was never stored there is no mark: its failure is over when a later completed sync
    has not reported it again.
    """
    errors = store.tables.errors
    newest = sa.func.row_number().over(
        partition_by=(cased(errors.c.source_ip), cased(errors.c.db_path)),
        order_by=errors.c.id.desc(),
    )
    ranked = (
        sa.select(errors, newest.label("place"))
        .where(*about_databases(errors), *filters.by(errors, now))
        .subquery()
    )
    query = sa.select(ranked).where(ranked.c.place == 1).order_by(ranked.c.id)
    found = [
        DatabaseFailure(
            row.source_ip,
            row.node_name or "",
            row.db_path,
            str(row.session_id),
            row.code,
            row.message,
            row.occurred_at,
        )
        for row in store.read(lambda conn: conn.execute(query).all())
    ]
    open_ones, unmarked = [], []
    for failure in found:
        mark = marks.get((failure.source_ip, failure.db_path))
        if mark is None:
            unmarked.append(failure)
        elif failure.occurred_at > mark:
            open_ones.append(failure)
    return open_ones + _still_there(store, unmarked)


def _still_there(store: Answers, failures: Sequence[DatabaseFailure]) -> list[DatabaseFailure]:
    """Those that no later completed sync has settled."""
    sessions = store.tables.sessions
    wanted = sorted({failure.session_id for failure in failures})
    over: set[str] = set()
    for start in range(0, len(wanted), _IN_LIST):
        query = sa.select(sessions.c.session_id).where(
            sessions.c.session_id.in_(wanted[start : start + _IN_LIST]), settled(sessions)
        )
        found = store.read(lambda conn, q=query: conn.execute(q).all())  # type: ignore[misc]
        over |= {str(row.session_id) for row in found}
    return [failure for failure in failures if failure.session_id not in over]


def unread_directories(store: Answers, filters: Filters, now: datetime) -> list[UnreadDirectory]:
    """What syncs could not look into and no later completed sync has settled; each once."""
    errors, sessions = store.tables.errors, store.tables.sessions
    query = (
        sa.select(errors)
        .join(sessions, sessions.c.session_id == errors.c.session_id)
        .where(errors.c.code == UNREAD, ~settled(sessions), *filters.by(errors, now))
        .order_by(errors.c.id)
    )
    found: dict[tuple[str, str], UnreadDirectory] = {}
    for row in store.read(lambda conn: conn.execute(query).all()):
        context: dict[str, Any] = json.loads(row.context or "{}")
        path = str(context.get("path", ""))
        found[row.source_ip, path] = UnreadDirectory(
            row.source_ip, str(row.session_id), path, str(context.get("reason", "")), row.message
        )
    return list(found.values())


def _content_failures(
    store: Answers, filters: Filters, now: datetime
) -> dict[tuple[str, str], dict[str, int]]:
    records = store.tables.records
    inner = (
        sa.select(
            cased(records.c.source_ip).label("source_ip"),
            cased(records.c.db_path).label("db_path"),
            code_of(records.c.ipfs_error).label("code"),
        )
        .where(
            rarely(records.c.ipfs_fetched == sa.false()),
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
