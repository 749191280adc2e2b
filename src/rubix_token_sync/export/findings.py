"""Every finding with its evidence, in blocks: there may be more than memory holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.questions import Finding, FindingFilters, list_findings
from rubix_token_sync.audit.rule import Rule
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["all_findings", "plain"]

_BLOCK: Final = 500


def all_findings(
    conn: sa.Connection,
    tables: Tables,
    rules: Sequence[Rule],
    filters: FindingFilters,
    now: datetime,
) -> Iterator[list[Finding]]:
    """Findings by rule and token, with `filters`, in blocks of at most 500.

    ``filters`` has no rules, no token and no limit of its own.
    """
    table = tables.audit.findings
    names = sa.select(table.c.rule).distinct().order_by(table.c.rule)
    for rule in [row[0] for row in conn.execute(names)]:
        last = b""
        while keys := _keys(conn, table, rule, last):
            last = keys[-1]
            chosen = FindingFilters(
                rules=(rule,),
                token_key=(keys[0], last),
                severities=filters.severities,
                nodes=filters.nodes,
                states=filters.states,
                since=filters.since,
            )
            found = list_findings(conn, tables, rules, chosen, now)
            if found:
                yield sorted(found, key=lambda one: one.fingerprint)


def _keys(conn: sa.Connection, table: sa.Table, rule: str, after: bytes) -> list[bytes]:
    """The next tokens' keys."""
    query = sa.select(table.c.token_key).where(table.c.rule == rule)
    if after:
        query = query.where(table.c.token_key > after)
    query = query.order_by(table.c.token_key).limit(_BLOCK)
    return [bytes(row[0]) for row in conn.execute(query)]


def plain(finding: Finding) -> dict[str, Any]:
    """A finding as JSON has it: times are RFC 3339 in UTC with microseconds."""
    found: dict[str, Any] = _plain(asdict(finding))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds") + "Z"
    return value
