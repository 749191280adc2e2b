"""What failed, by category and reason, with an example of each.

Contents and validation are counted over the records as they are now (those that
still exist at the source); events are what runs wrote into SyncErrors.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.monitor.answers import Answers
from rubix_token_sync.monitor.codes import code_of
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.records.validate import Code

__all__ = ["Example", "FailureReport", "NodeRow", "Reason", "failure_report", "validation_code"]

_OTHER: Final = "other"
"""Validation errors that are none of this program's, as those of the earlier script."""

_IDS: Final = 500


@dataclass(frozen=True)
class Example:
    """One record or event of many."""

    source_ip: str
    node_name: str
    db_path: str
    token_id: str | None
    message: str


@dataclass(frozen=True)
class Reason:
    """Everything that failed for one reason.  ``category`` is the guide's."""

    category: str
    code: str
    count: int
    last_at: datetime | None
    example: Example | None


@dataclass(frozen=True)
class NodeRow:
    """One node's records, as the guide's error summary has them."""

    source_ip: str
    node_name: str
    total_records: int
    ipfs_success: int
    ipfs_failures: int
    validation_errors: int


@dataclass(frozen=True)
class FailureReport:
    """The answer of `failure_report`: each list the most frequent first."""

    nodes: list[NodeRow]
    content: list[Reason]
    validation: list[Reason]
    events: list[Reason]


def failure_report(store: Answers, filters: Filters, now: datetime) -> FailureReport:
    """The guide's error queries; ``filters.limit`` holds for each list.

    ``filters.since`` looks at records by ``synced_at`` and at events by when they
    happened.  ``filters.category`` leaves the lists of other categories empty.
    """
    wanted = filters.category
    return FailureReport(
        nodes=_by_node(store, filters, now) if wanted in (None, "ipfs", "validation") else [],
        content=_content(store, filters, now) if wanted in (None, "ipfs") else [],
        validation=_validation(store, filters, now) if wanted in (None, "validation") else [],
        events=_events(store, filters, now),
    )


def validation_code(code: Code, column: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """The condition that a record has this finding.

    Quotes inside of values are escaped in JSON, so no value can look like a code.
    """
    return column.contains(f'"code":"{code.value}"', autoescape=True)


def _live(store: Answers, filters: Filters, now: datetime) -> list[sa.ColumnElement[bool]]:
    records = store.tables.records
    return [
        records.c.source_deleted_at.is_(None),
        *filters.by(records, now, time="synced_at"),
    ]


def _by_node(store: Answers, filters: Filters, now: datetime) -> list[NodeRow]:
    if filters.since is None:
        return _by_node_of_marks(store, filters, now)
    records = store.tables.records
    invalid = sa.case((records.c.validation_errors.is_not(None), 1), else_=0)
    fetched = sa.case((records.c.ipfs_fetched == sa.true(), 1), else_=0)
    total = sa.func.count().label("total")
    query = (
        sa.select(
            records.c.source_ip,
            records.c.node_name,
            total,
            sa.func.sum(fetched).label("success"),
            sa.func.sum(invalid).label("invalid"),
        )
        .where(*_live(store, filters, now))
        .group_by(records.c.source_ip, records.c.node_name)
    )
    return _node_rows(store, query, filters)


def _sum(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """SQL Server sums integers as integers, which overflow."""
    return sa.func.sum(sa.cast(column, sa.BigInteger()))


def _by_node_of_marks(store: Answers, filters: Filters, now: datetime) -> list[NodeRow]:
    """The same numbers without a look at every record: the server counted them at the mark."""
    databases = store.tables.databases
    query = (
        sa.select(
            databases.c.source_ip,
            databases.c.node_name,
            _sum(databases.c.record_count).label("total"),
            _sum(databases.c.ipfs_success_count).label("success"),
            _sum(databases.c.validation_error_count).label("invalid"),
        )
        .where(*filters.by(databases, now))
        .group_by(databases.c.source_ip, databases.c.node_name)
    )
    return _node_rows(store, query, filters)


def _node_rows(store: Answers, query: sa.Select[Any], filters: Filters) -> list[NodeRow]:
    counted = query.subquery()
    ordered = (
        sa.select(counted)
        .order_by(counted.c.total.desc(), counted.c.source_ip, counted.c.node_name)
        .limit(filters.limit)
    )
    return [
        NodeRow(
            source_ip=row.source_ip,
            node_name=row.node_name or "",
            total_records=int(row.total or 0),
            ipfs_success=int(row.success or 0),
            ipfs_failures=int(row.total or 0) - int(row.success or 0),
            validation_errors=int(row.invalid or 0),
        )
        for row in store.read(lambda conn: conn.execute(ordered).all())
    ]


def _content(store: Answers, filters: Filters, now: datetime) -> list[Reason]:
    records = store.tables.records
    inner = (
        sa.select(
            records.c.id,
            records.c.synced_at,
            code_of(records.c.ipfs_error).label("code"),
        )
        .where(
            records.c.ipfs_fetched == sa.false(),
            records.c.ipfs_error.is_not(None),
            *_live(store, filters, now),
        )
        .subquery()
    )
    count = sa.func.count().label("records")
    query = (
        sa.select(
            inner.c.code,
            count,
            sa.func.max(inner.c.synced_at).label("last"),
            sa.func.max(inner.c.id).label("example"),
        )
        .group_by(inner.c.code)
        .order_by(count.desc(), inner.c.code)
        .limit(filters.limit)
    )
    rows = store.read(lambda conn: conn.execute(query).all())
    examples = _examples(store, [row.example for row in rows], "ipfs_error")
    return [
        Reason("ipfs", row.code, row.records, row.last, examples.get(row.example)) for row in rows
    ]


def _validation(store: Answers, filters: Filters, now: datetime) -> list[Reason]:
    """One pass over the invalid records counts every code that this program knows."""
    records = store.tables.records
    text = records.c.validation_errors
    conditions = {code.value: validation_code(code, text) for code in Code}
    conditions[_OTHER] = sa.not_(sa.or_(*conditions.values()))
    columns: list[sa.ColumnElement[Any]] = []
    for name, condition in conditions.items():
        columns += [
            sa.func.sum(sa.case((condition, 1), else_=0)).label(f"n_{name}"),
            sa.func.max(sa.case((condition, records.c.id))).label(f"id_{name}"),
            sa.func.max(sa.case((condition, records.c.synced_at))).label(f"at_{name}"),
        ]
    query = sa.select(*columns).where(text.is_not(None), *_live(store, filters, now))
    row = store.read(lambda conn: conn.execute(query).one())._mapping
    found = [(name, int(row[f"n_{name}"] or 0)) for name in conditions]
    found = sorted((f for f in found if f[1]), key=lambda f: (-f[1], f[0]))[: filters.limit]
    examples = _examples(store, [row[f"id_{name}"] for name, _ in found], "validation_errors")
    return [
        Reason("validation", name, count, row[f"at_{name}"], examples.get(row[f"id_{name}"]))
        for name, count in found
    ]


def _examples(store: Answers, ids: list[int], message: str) -> dict[int, Example]:
    records = store.tables.records
    columns = ("id", "source_ip", "node_name", "db_path", "token_id", message)
    found: dict[int, Example] = {}
    for start in range(0, len(ids), _IDS):
        query = sa.select(*(records.c[name] for name in columns)).where(
            records.c.id.in_(ids[start : start + _IDS])
        )
        for row in store.read(lambda conn, q=query: conn.execute(q).all()):  # type: ignore[misc]
            found[row.id] = Example(
                row.source_ip, row.node_name, row.db_path, row.token_id, getattr(row, message)
            )
    return found


def _events(store: Answers, filters: Filters, now: datetime) -> list[Reason]:
    errors = store.tables.errors
    conditions = filters.by(errors, now, time="occurred_at")
    if filters.category:
        conditions.append(errors.c.category == filters.category)
    count = _sum(errors.c.occurrences).label("events")
    query = (
        sa.select(
            errors.c.category,
            errors.c.code,
            count,
            sa.func.max(errors.c.occurred_at).label("last"),
            sa.func.max(errors.c.id).label("example"),
        )
        .where(*conditions)
        .group_by(errors.c.category, errors.c.code)
        .order_by(count.desc(), errors.c.category, errors.c.code)
        .limit(filters.limit)
    )
    rows = store.read(lambda conn: conn.execute(query).all())
    ids = [row.example for row in rows]
    chosen = sa.select(errors).where(errors.c.id.in_(ids))
    examples = {
        row.id: Example(
            row.source_ip, row.node_name or "", row.db_path or "", row.token_id, row.message
        )
        for row in (store.read(lambda conn: conn.execute(chosen).all()) if ids else [])
    }
    return [
        Reason(row.category, row.code, int(row.events), row.last, examples.get(row.example))
        for row in rows
    ]
