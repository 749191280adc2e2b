"""Findings a page at a time, and how many there are of each sort."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.findings import OPEN
from rubix_token_sync.audit.questions import (
    SUPPRESSED,
    Finding,
    FindingFilters,
    conditions,
    evidence_of,
    finding_of,
    not_suppressed,
)
from rubix_token_sync.audit.rule import SEVERITIES, Rule
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.targets.sql.audit_tables import TOKEN_KEY_BYTES
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["FindingCount", "FindingPage", "count_findings", "find_findings"]

_NAME: Final = re.compile(rf"([a-z_]{{1,50}}):([0-9a-f]{{{2 * TOKEN_KEY_BYTES}}})")


@dataclass(frozen=True)
class FindingPage:
    """Some findings, the worst first."""

    findings: list[Finding]
    next: str | None
    """The name of the finding after which the next page begins; None: this was the last one."""


@dataclass(frozen=True)
class FindingCount:
    """How many findings of one rule are in one state."""

    rule: str
    severity: str
    state: str
    count: int


def find_findings(
    conn: sa.Connection,
    tables: Tables,
    rules: Sequence[Rule],
    filters: FindingFilters,
    now: datetime,
    *,
    after: str | None = None,
) -> FindingPage:
    """One page in the order of `list_findings`; ``filters.limit`` is its length.

    Raises:
        SettingsError: ``after`` names no finding.
    """
    findings = tables.audit.findings
    limit = filters.limit or 50
    # Ascending by all of these, a page goes on behind the last row of the one before.
    order: list[sa.ColumnElement[Any]] = [
        sa.case({s: -place for place, s in enumerate(SEVERITIES)}, value=findings.c.severity),
        sa.case((findings.c.state == "suspected", 1), else_=0),
        sa.func.coalesce(findings.c.changed_run, 0) * -1,
        findings.c.rule,
        findings.c.token_key,
    ]
    places = [column.label(f"place{n}") for n, column in enumerate(order)]
    query = sa.select(findings, *places).where(*conditions(tables, filters, now))
    if after is not None:
        query = query.where(_behind(order, _place(conn, findings, places, after)))
    rows = conn.execute(query.order_by(*places).limit(limit + 1)).all()
    shown = rows[:limit]
    known = {rule.code: rule for rule in rules}
    found = [finding_of(row, known.get(row.rule), now) for row in shown]
    keys = [bytes(row.token_key) for row in shown]
    seen = evidence_of(conn, tables, {row.rule for row in shown}, keys)
    found = [
        replace(one, evidence=seen.get((one.fingerprint, one.last_seen_run), [])) for one in found
    ]
    return FindingPage(found, found[-1].fingerprint if len(rows) > limit else None)


def _place(
    conn: sa.Connection, findings: sa.Table, places: Sequence[sa.Label[Any]], after: str
) -> sa.Row[Any]:
    name = _NAME.fullmatch(after)
    row = None
    if name is not None:
        key = bytes.fromhex(name[2])
        query = sa.select(*places).where(findings.c.rule == name[1], findings.c.token_key == key)
        row = conn.execute(query).first()
    if row is None:
        raise SettingsError(
            "This is not a cursor of a list of findings.",
            code="bad_cursor",
            remedy="Take `next` of the page before as it is, or begin without one.",
        )
    return row


def _behind(order: Sequence[sa.ColumnElement[Any]], row: sa.Row[Any]) -> sa.ColumnElement[bool]:
    """The rows after this one: no database but PostgreSQL compares whole tuples."""
    either = []
    for place, column in enumerate(order):
        same = [order[before] == row[before] for before in range(place)]
        either.append(sa.and_(*same, column > row[place]))
    return sa.or_(*either)


def count_findings(
    conn: sa.Connection, tables: Tables, filters: FindingFilters, now: datetime
) -> list[FindingCount]:
    """How many there are of each rule and state, of those that ``filters`` leave."""
    findings = tables.audit.findings
    hidden = sa.and_(findings.c.state.in_(OPEN), sa.not_(not_suppressed(findings, now)))
    state = sa.case((hidden, SUPPRESSED), else_=findings.c.state).label("shown_state")
    inner = (
        sa.select(findings.c.rule, findings.c.severity, state)
        .where(*conditions(tables, filters, now))
        .subquery()
    )
    query = sa.select(inner, sa.func.count().label("number")).group_by(*inner.c)
    found = [FindingCount(row[0], row[1], row[2], row[3]) for row in conn.execute(query)]
    return sorted(found, key=lambda one: (-SEVERITIES.index(one.severity), -one.count, one.rule))
