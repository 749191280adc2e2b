"""What failed, counted by node and reason: every record and event that did, once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.monitor.answers import Answers
from rubix_token_sync.monitor.codes import code_of
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.records.validate import Code
from rubix_token_sync.targets.sql.functions import cased, rarely, unindexed

__all__ = [
    "Failed",
    "FailureCounts",
    "NodeRow",
    "count_failures",
    "more_stored_since",
    "validation_code",
]

_FEW: Final = 10_000
"""Records that are looked at by their time: less work than all that ever failed."""
_OTHER: Final = "other"
"""Validation errors that are none of this program's, as those of the earlier script."""


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
class Failed:
    """What failed on one node for one reason."""

    source_ip: str
    node_name: str
    category: str
    code: str
    count: int
    last_at: datetime | None
    example: int
    """The ``id`` of the newest record, or event."""


@dataclass(frozen=True)
class FailureCounts:
    """Everything that failed, counted: `report_of` makes answers of it, whatever is asked for."""

    at: datetime
    """By the target's clock."""
    nodes: list[NodeRow]
    content: list[Failed]
    validation: list[Failed]
    events: list[Failed]


def count_failures(
    store: Answers, filters: Filters, now: datetime, *, by_node: bool = True
) -> FailureCounts:
    """Looks at every record without content, or with validation errors, that ``filters`` leave.

    Or at every record of a time in which few were stored.
    """
    wanted = filters.category
    by_node = by_node and wanted in (None, "ipfs", "validation")
    few = filters.since is not None and not more_stored_since(store, filters.since, now, _FEW)
    return FailureCounts(
        now,
        nodes=_by_node(store, filters, now) if by_node else [],
        content=_content(store, filters, now, few=few) if wanted in (None, "ipfs") else [],
        validation=_validation(store, filters, now, few=few)
        if wanted in (None, "validation")
        else [],
        events=_events(store, filters, now),
    )


def more_stored_since(store: Answers, since: timedelta, now: datetime, most: int) -> bool:
    """More than ``most`` records were stored since then, by the index of that time alone."""
    stored = store.tables.records.c.synced_at
    query = sa.select(stored).where(stored >= now - since).order_by(stored.desc())
    return store.read(lambda conn: conn.execute(query.offset(most).limit(1)).first()) is not None


def validation_code(code: Code, column: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """The condition that a record has this finding.

    Quotes inside of values are escaped in JSON, so no value can look like a code.
    """
    return column.contains(f'"code":"{code.value}"', autoescape=True)


def _live(
    store: Answers, filters: Filters, now: datetime, *, few: bool
) -> list[sa.ColumnElement[bool]]:
    """Of what lacks content or is invalid, which are few; its time leads to many, or to ``few``."""
    records = store.tables.records
    conditions = [records.c.source_deleted_at.is_(None), *filters.by(records, now)]
    if filters.since is not None:
        stored = records.c.synced_at if few else unindexed(records.c.synced_at)
        conditions.append(stored >= now - filters.since)
    return conditions


def _by_node(store: Answers, filters: Filters, now: datetime) -> list[NodeRow]:
    if filters.since is None:
        return _by_node_of_marks(store, filters, now)
    records = store.tables.records
    invalid = sa.case((records.c.validation_errors.is_not(None), 1), else_=0)
    fetched = sa.case((records.c.ipfs_fetched == sa.true(), 1), else_=0)
    total = sa.func.count().label("total")
    node = _exact_node(records)
    query = (
        sa.select(
            node[0].label("source_ip"),
            node[1].label("node_name"),
            total,
            sa.func.sum(fetched).label("success"),
            sa.func.sum(invalid).label("invalid"),
        )
        .where(records.c.source_deleted_at.is_(None), *filters.by(records, now, time="synced_at"))
        .group_by(*node)
    )
    return _node_rows(store, query)


def _exact_node(table: sa.FromClause) -> tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]:
    """Names that differ by case alone are two nodes; what is asked for chooses the index."""
    return unindexed(cased(table.c.source_ip)), unindexed(cased(table.c.node_name))


def _sum(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """SQL Server sums integers as integers, which overflow."""
    return sa.func.sum(sa.cast(column, sa.BigInteger()))


def _by_node_of_marks(store: Answers, filters: Filters, now: datetime) -> list[NodeRow]:
    """The same numbers without a look at every record: the server counted them at the mark."""
    databases = store.tables.databases
    node = _exact_node(databases)
    query = (
        sa.select(
            node[0].label("source_ip"),
            node[1].label("node_name"),
            _sum(databases.c.record_count).label("total"),
            _sum(databases.c.ipfs_success_count).label("success"),
            _sum(databases.c.validation_error_count).label("invalid"),
        )
        .where(*filters.by(databases, now))
        .group_by(*node)
    )
    return _node_rows(store, query)


def _node_rows(store: Answers, query: sa.Select[Any]) -> list[NodeRow]:
    """Those with the most records first."""
    rows = [
        NodeRow(
            source_ip=row.source_ip,
            node_name=row.node_name or "",
            total_records=int(row.total or 0),
            ipfs_success=int(row.success or 0),
            ipfs_failures=int(row.total or 0) - int(row.success or 0),
            validation_errors=int(row.invalid or 0),
        )
        for row in store.read(lambda conn: conn.execute(query).all())
    ]
    return sorted(rows, key=lambda one: (-one.total_records, one.source_ip, one.node_name))


def _content(store: Answers, filters: Filters, now: datetime, *, few: bool) -> list[Failed]:
    records = store.tables.records
    node = _exact_node(records)
    fetched = records.c.ipfs_fetched
    without = unindexed(fetched) == sa.false() if few else rarely(fetched == sa.false())
    inner = (
        sa.select(
            node[0].label("source_ip"),
            node[1].label("node_name"),
            records.c.id,
            records.c.synced_at,
            code_of(records.c.ipfs_error).label("code"),
        )
        .where(
            without,
            records.c.ipfs_error.is_not(None),
            *_live(store, filters, now, few=few),
        )
        .subquery()
    )
    query = sa.select(
        inner.c.source_ip,
        inner.c.node_name,
        inner.c.code,
        sa.func.count().label("records"),
        sa.func.max(inner.c.synced_at).label("last"),
        sa.func.max(inner.c.id).label("example"),
    ).group_by(inner.c.source_ip, inner.c.node_name, inner.c.code)
    return [
        Failed(row.source_ip, row.node_name, "ipfs", row.code, row.records, row.last, row.example)
        for row in store.read(lambda conn: conn.execute(query).all())
    ]


def _validation(store: Answers, filters: Filters, now: datetime, *, few: bool) -> list[Failed]:
    """One pass over the invalid records counts every code that this program knows.

    Codes are looked for once in each text of a node: most of its records have the same.
    """
    records = store.tables.records
    text, node = records.c.validation_errors, _exact_node(records)
    invalid = unindexed(text) if few else text
    alike = (
        sa.select(
            node[0].label("source_ip"),
            node[1].label("node_name"),
            cased(text).label("said"),
            sa.func.count().label("records"),
            sa.func.max(records.c.synced_at).label("last"),
            sa.func.max(records.c.id).label("example"),
        )
        .where(invalid.is_not(None), *_live(store, filters, now, few=few))
        .group_by(*node, cased(text))
        .subquery()
        .c
    )
    conditions = {code.value: validation_code(code, alike.said) for code in Code}
    conditions[_OTHER] = sa.not_(sa.or_(*conditions.values()))
    columns: list[sa.ColumnElement[Any]] = []
    for name, condition in conditions.items():
        columns += [
            _sum(sa.case((condition, alike.records), else_=0)).label(f"n_{name}"),
            sa.func.max(sa.case((condition, alike.example))).label(f"id_{name}"),
            sa.func.max(sa.case((condition, alike.last))).label(f"at_{name}"),
        ]
    groups = alike.source_ip, alike.node_name
    query = sa.select(*groups, *columns).group_by(*groups)
    rows = [row._mapping for row in store.read(lambda conn: conn.execute(query).all())]
    return [
        Failed(
            row["source_ip"], row["node_name"], "validation", name,
            int(row[f"n_{name}"]), row[f"at_{name}"], row[f"id_{name}"],
        )
        for row in rows
        for name in conditions
        if row[f"n_{name}"]
    ]  # fmt: skip


def _events(store: Answers, filters: Filters, now: datetime) -> list[Failed]:
    errors = store.tables.errors
    conditions = filters.by(errors, now, time="occurred_at")
    if filters.category:
        conditions.append(errors.c.category == filters.category)
    groups = [*_exact_node(errors), errors.c.category, errors.c.code]
    query = (
        sa.select(
            groups[0].label("source_ip"),
            groups[1].label("node_name"),
            errors.c.category,
            errors.c.code,
            _sum(errors.c.occurrences).label("events"),
            sa.func.max(errors.c.occurred_at).label("last"),
            sa.func.max(errors.c.id).label("example"),
        )
        .where(*conditions)
        .group_by(*groups)
    )
    return [
        Failed(
            row.source_ip, row.node_name or "", row.category, row.code,
            int(row.events), row.last, row.example,
        )
        for row in store.read(lambda conn: conn.execute(query).all())
    ]  # fmt: skip
