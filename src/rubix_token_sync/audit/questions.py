"""What audits found: findings with their evidence, one token with its holders, the audits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.findings import OPEN
from rubix_token_sync.audit.holders import chain_of
from rubix_token_sync.audit.rule import SEVERITIES, Rule
from rubix_token_sync.records.companions import CHAINS
from rubix_token_sync.targets.sql.audit_tables import CHAIN_EVIDENCE
from rubix_token_sync.targets.sql.tables import Tables

__all__ = [
    "SUPPRESSED",
    "AuditRow",
    "Evidence",
    "Finding",
    "FindingFilters",
    "Holder",
    "OpenFindings",
    "TokenView",
    "fingerprint",
    "list_audits",
    "list_findings",
    "not_suppressed",
    "open_findings",
    "read_token",
]

SUPPRESSED: Final = "suppressed"
_MOST_EVIDENCE: Final = 1_000
_IN_LIST: Final = 200


@dataclass(frozen=True)
class Evidence:
    """One record that a finding is seen in, as it was when the audit saw it."""

    role: str
    """``holder``, ``parent``, ``part`` or ``twin``; ``chain``: not a record, but the token's
    chain on a node that has no row of it."""
    token_id: str | None
    """The record's own: of a part it is not the finding's."""
    source_ip: str
    node_name: str
    db_path: str
    did: str | None
    token_status: str | None
    token_state_hash: str | None
    transaction_id: str | None
    token_value: str | None
    parent_token_id: str | None
    ipfs_fetched: bool
    ipfs_error: str | None
    verdict: str | None
    verdict_source: str | None
    token_level: int | None
    token_number: int | None
    latest_block_number: int | None
    latest_block_type: str | None
    """Of the token's chain on the same node, where chains were read."""
    latest_block_owner: str | None
    did_of: str | None
    """Whose DID it is: ``this_node``, ``another_node`` or ``no_node``; None: not known."""
    synced_at: datetime | None
    """When the record changed last in the target."""
    read_at: datetime | None
    """When its database was read last before the audit, or found unchanged."""


@dataclass(frozen=True)
class Finding:
    """Something that a rule found about a token.  Times are the target's, UTC."""

    fingerprint: str
    """The same for the same rule and token, for ever."""
    rule: str
    severity: str
    state: str
    """``suspected``, ``confirmed``, ``acknowledged``, ``reopened``, ``suppressed`` or
    ``resolved``."""
    token_id: str | None
    token_kind: str
    says: str
    """The rule's sentence; empty for a rule that this program does not have."""
    cure: str
    weight: int
    """How bad it is, by the rule's own measure; it matters whether it grows."""
    first_seen_run: int
    first_seen_at: datetime
    last_seen_run: int
    last_seen_at: datetime
    confirmed_at: datetime | None
    resolved_at: datetime | None
    resolution: str | None
    """``gone``, ``rule_off`` or ``rule_removed``."""
    reopened: int
    """How often it came back after it was resolved."""
    change: str
    """What the audit ``changed_run`` did to it: ``new``, ``confirmed``, ``worse``, ``reopened``
    or ``resolved``."""
    changed_run: int | None
    changed_at: datetime
    acknowledged_by: str | None
    acknowledged_at: datetime | None
    note: str | None
    suppressed_by: str | None
    suppressed_at: datetime | None
    suppressed_until: datetime | None
    suppressed_reason: str | None
    evidence: list[Evidence] = field(default_factory=list)
    """At most a thousand records."""


@dataclass(frozen=True)
class FindingFilters:
    """Empty means: everything."""

    severities: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    since: timedelta | None = None
    """Changed within this time, by the target's clock."""
    token_id: str | None = None
    token_key: tuple[bytes, bytes] | None = None
    """Smallest and largest."""
    limit: int | None = None


@dataclass(frozen=True)
class Holder:
    """One record of a token, as the target has it now."""

    source_ip: str
    node_name: str
    db_path: str
    token_kind: str
    network: str | None
    did: str | None
    token_status: str | None
    token_value: str | None
    parent_token_id: str | None
    token_state_hash: str | None
    transaction_id: str | None
    attributes: Any
    """What only this kind of token has."""
    ipfs_fetched: bool
    ipfs_error: str | None
    verdict: str | None
    verdict_source: str | None
    token_level: int | None
    token_number: int | None
    validation_errors: str | None
    created_at: datetime | None
    updated_at: datetime | None
    synced_at: datetime | None
    source_deleted_at: datetime | None
    """When it was found to be gone from its node."""
    latest_block_number: int | None
    """Of the token's chain on the same node, where chains were read."""
    latest_block_type: str | None
    latest_block_owner: str | None
    chain_error: str | None
    """What is wrong with that chain; None: nothing, or there is none."""
    read_at: datetime | None


@dataclass(frozen=True)
class TokenView:
    """Everything that the target knows of one token."""

    token_id: str
    holders: list[Holder]
    content: str | None
    """Proven content, in the form of the column ``ipfs_data``."""
    findings: list[Finding]
    """Of every state."""


@dataclass(frozen=True)
class AuditRow:
    """One audit with its scope."""

    number: int
    run_id: str
    started_at: datetime
    ended_at: datetime | None
    status: str
    """``COMPLETED``, or ``INCOMPLETE``: a rule failed."""
    host: str | None
    program_version: str | None
    databases: int
    databases_unread: int
    """Of them, not read since the audit before: nothing of theirs was resolved."""
    rules_run: list[str]
    rules_off: list[str]
    rules_failed: dict[str, str]
    """Rule → code of its error."""
    not_looked_at: dict[str, int]
    """Rule → how much it could not look at, in the rule's own measure."""
    findings_new: int
    findings_confirmed: int
    findings_worse: int
    findings_reopened: int
    findings_resolved: int
    open_errors: int
    open_warnings: int
    open_infos: int


@dataclass(frozen=True)
class OpenFindings:
    """How the target stands by its last audit."""

    last_audit_at: datetime
    last_audit_number: int
    complete: bool
    """Every rule ran."""
    errors: int
    warnings: int
    infos: int


def fingerprint(rule: str, token_key: bytes) -> str:
    """The name of a finding: its rule and its token's key."""
    return f"{rule}:{bytes(token_key).hex()}"


def not_suppressed(findings: sa.FromClause, now: datetime) -> sa.ColumnElement[bool]:
    """No suppression is in force."""
    until = findings.c.suppressed_until
    return sa.or_(until.is_(None), until <= now)


def list_findings(
    conn: sa.Connection,
    tables: Tables,
    rules: Sequence[Rule],
    filters: FindingFilters,
    now: datetime,
    *,
    with_evidence: bool = True,
) -> list[Finding]:
    """Findings, the worst first."""
    findings = tables.audit.findings
    query = sa.select(findings).where(*_conditions(tables, filters, now))
    order = sa.case(
        {name: place for place, name in enumerate(SEVERITIES)}, value=findings.c.severity
    )
    query = query.order_by(
        order.desc(),
        sa.case((findings.c.state == "suspected", 1), else_=0),
        findings.c.changed_at.desc(),
        findings.c.rule,
        findings.c.token_key,
    )
    if filters.limit is not None:
        query = query.limit(filters.limit)
    rows = conn.execute(query).all()
    if filters.token_id is not None:  # a collation may ignore case; token ids do not
        rows = [row for row in rows if row.token_id == filters.token_id[:500]]
    known = {rule.code: rule for rule in rules}
    found = [_finding(row, known.get(row.rule), now) for row in rows]
    if not with_evidence:
        return found
    seen = _evidence(conn, tables, [bytes(row.token_key) for row in rows])
    return [
        replace(one, evidence=seen.get((one.fingerprint, one.last_seen_run), [])) for one in found
    ]


def _conditions(
    tables: Tables, filters: FindingFilters, now: datetime
) -> list[sa.ColumnElement[bool]]:
    findings, evidence = tables.audit.findings, tables.audit.evidence
    found: list[sa.ColumnElement[bool]] = []
    if filters.severities:
        found.append(findings.c.severity.in_(filters.severities))
    if filters.rules:
        found.append(findings.c.rule.in_(filters.rules))
    if filters.token_id is not None:
        found.append(findings.c.token_id == filters.token_id[:500])
    if filters.token_key is not None:
        found.append(findings.c.token_key.between(*filters.token_key))
    if filters.since is not None:
        found.append(findings.c.changed_at >= now - filters.since)
    if filters.nodes:
        found.append(
            sa.exists().where(
                evidence.c.rule == findings.c.rule,
                evidence.c.token_key == findings.c.token_key,
                evidence.c.run_number == findings.c.last_seen_run,
                evidence.c.node_name.in_(filters.nodes),
            )
        )
    if filters.states:
        plain = sa.and_(
            findings.c.state.in_([s for s in filters.states if s != SUPPRESSED]),
            sa.or_(not_suppressed(findings, now), findings.c.state == "resolved"),
        )
        hidden = sa.and_(findings.c.state.in_(OPEN), sa.not_(not_suppressed(findings, now)))
        found.append(sa.or_(plain, hidden) if SUPPRESSED in filters.states else plain)
    return found


def _finding(row: sa.Row[Any], rule: Rule | None, now: datetime) -> Finding:
    held = {
        name: row._mapping[name]
        for name in Finding.__dataclass_fields__
        if name not in ("fingerprint", "state", "says", "cure", "evidence")
    }
    hidden = row.suppressed_until is not None and row.suppressed_until > now
    return Finding(
        fingerprint=fingerprint(row.rule, row.token_key),
        state=SUPPRESSED if hidden and row.state in OPEN else row.state,
        says=rule.says if rule is not None else "",
        cure=rule.cure if rule is not None else "",
        **held,
    )


def _evidence(
    conn: sa.Connection, tables: Tables, keys: Sequence[bytes]
) -> dict[tuple[str, int], list[Evidence]]:
    """(Fingerprint, audit) → what was seen, holders by name."""
    evidence = tables.audit.evidence
    place = sa.func.row_number().over(
        partition_by=(evidence.c.rule, evidence.c.token_key, evidence.c.run_number),
        order_by=evidence.c.id,
    )
    names = [name for name in Evidence.__dataclass_fields__ if name != "token_id"]
    columns = [evidence.c[name] for name in ("rule", "token_key", "run_number", *names)]
    found: dict[tuple[str, int], list[Evidence]] = {}
    wanted = sorted(set(keys))
    for start in range(0, len(wanted), _IN_LIST):
        ranked = (
            sa.select(*columns, evidence.c.record_token_id, place.label("place"))
            .where(evidence.c.token_key.in_(wanted[start : start + _IN_LIST]))
            .subquery()
        )
        for row in conn.execute(sa.select(ranked).where(ranked.c.place <= _MOST_EVIDENCE)):
            values = {name: row._mapping[name] for name in names}
            values["ipfs_fetched"] = bool(values["ipfs_fetched"])
            one = Evidence(token_id=row.record_token_id, **values)
            name = fingerprint(row.rule, row.token_key)
            found.setdefault((name, row.run_number), []).append(one)
    for rows in found.values():
        rows.sort(
            key=lambda e: (
                e.role != "parent",
                e.token_id or "",
                e.node_name,
                e.source_ip,
                e.db_path,
            )
        )
    return found


def read_token(
    conn: sa.Connection,
    tables: Tables,
    rules: Sequence[Rule],
    token_id: str,
    now: datetime,
    *,
    records: sa.FromClause | None = None,
) -> TokenView:
    """Every record of the token, live or vanished, its content, and what was found about it.

    ``records`` stands for TokenRecords: as it was earlier.
    """
    databases = tables.databases
    records = tables.records if records is None else records
    chains = tables.stored[CHAINS.name].table
    read = sa.func.coalesce(databases.c.last_seen_at, databases.c.last_processed).label("read_at")
    of_chain = [
        *(chains.c[name] for name in CHAIN_EVIDENCE),
        chains.c.error.label("chain_error"),
    ]
    elsewhere = {*CHAIN_EVIDENCE, "chain_error", "read_at"}
    names = [name for name in Holder.__dataclass_fields__ if name not in elsewhere]
    query: sa.Select[Any] = (
        sa.select(
            *(records.c[name] for name in names),
            records.c.token_id,
            records.c.ipfs_data,
            *of_chain,
            read,
        )
        .join_from(
            records,
            databases,
            sa.and_(
                databases.c.source_ip == records.c.source_ip,
                databases.c.db_path == records.c.db_path,
            ),
            isouter=True,
        )
        .outerjoin(chains, sa.and_(*chain_of(records, chains)))
        .where(records.c.token_id == token_id[:500])
        .order_by(records.c.node_name, records.c.source_ip, records.c.db_path)
    )
    rows = [row for row in conn.execute(query) if row.token_id == token_id[:500]]
    content = next((row.ipfs_data for row in rows if row.ipfs_fetched), None)
    findings = list_findings(conn, tables, rules, FindingFilters(token_id=token_id), now)
    return TokenView(token_id, [_holder(row) for row in rows], content, findings)


def _holder(row: sa.Row[Any]) -> Holder:
    values = {name: row._mapping[name] for name in Holder.__dataclass_fields__}
    values["ipfs_fetched"] = bool(values["ipfs_fetched"])
    values["attributes"] = json.loads(row.attributes) if row.attributes else None
    return Holder(**values)


def list_audits(conn: sa.Connection, tables: Tables, limit: int) -> list[AuditRow]:
    """Audits, the newest first."""
    runs = tables.audit.runs
    query = sa.select(runs).order_by(runs.c.number.desc()).limit(limit)
    return [_audit(row) for row in conn.execute(query)]


def _audit(row: sa.Row[Any]) -> AuditRow:
    values = {name: row._mapping[name] for name in AuditRow.__dataclass_fields__}
    values["run_id"] = str(row.run_id)
    for name, empty in (
        ("rules_run", "[]"),
        ("rules_off", "[]"),
        ("rules_failed", "{}"),
        ("not_looked_at", "{}"),
    ):
        values[name] = json.loads(values[name] or empty)
    return AuditRow(**values)


def open_findings(conn: sa.Connection, tables: Tables, now: datetime) -> OpenFindings | None:
    """Open findings by severity, without suppressed ones; None: there was no audit yet."""
    runs, findings = tables.audit.runs, tables.audit.findings
    last = conn.execute(sa.select(runs).order_by(runs.c.number.desc()).limit(1)).first()
    if last is None:
        return None
    query = (
        sa.select(findings.c.severity, sa.func.count())
        .where(findings.c.state.in_(OPEN), not_suppressed(findings, now))
        .group_by(findings.c.severity)
    )
    counted: dict[str, int] = {row[0]: row[1] for row in conn.execute(query)}
    return OpenFindings(
        last.started_at,
        last.number,
        last.status == "COMPLETED",
        *(counted.get(severity, 0) for severity in ("error", "warning", "info")),
    )
