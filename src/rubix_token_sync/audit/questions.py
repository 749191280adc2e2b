"""What audits found: findings with their evidence, and the audits."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.audit.findings import OPEN
from rubix_token_sync.audit.rule import SEVERITIES, Rule
from rubix_token_sync.targets.sql.history_tables import RUN_COUNTS
from rubix_token_sync.targets.sql.tables import Tables

__all__ = [
    "SUPPRESSED",
    "AuditRow",
    "Evidence",
    "Finding",
    "FindingFilters",
    "OpenFindings",
    "fingerprint",
    "list_audits",
    "list_findings",
    "not_audited",
    "not_suppressed",
    "open_findings",
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
    unaudited_syncs: int = 0
    """Syncs that changed records and ended after that audit had begun."""


def not_audited(last: AuditRow | None, synced_at: datetime | None = None) -> str | None:
    """A sentence: what "nothing was found" does not say; None: it says that all is well.

    ``last`` is the newest audit, ``synced_at`` the latest time at which the records that are
    asked about were written.
    """
    if last is None:
        return (
            "No audit has run yet: whether tokens are genuine and held once is not known. "
            "Run `rubix-token-sync audit`."
        )
    if last.rules_failed:
        failed = ", ".join(sorted(last.rules_failed))
        return f"These rules failed in the last audit, so nothing is known of them: {failed}."
    if synced_at is not None and synced_at > last.started_at:
        return (
            f"The last audit ({last.started_at:%Y-%m-%d %H:%M} UTC) is older than what was synced "
            "since: run `rubix-token-sync audit`."
        )
    return None


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
    query = sa.select(findings).where(*conditions(tables, filters, now))
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
    found = [finding_of(row, known.get(row.rule), now) for row in rows]
    if not with_evidence:
        return found
    seen = evidence_of(
        conn, tables, {row.rule for row in rows}, [bytes(row.token_key) for row in rows]
    )
    return [
        replace(one, evidence=seen.get((one.fingerprint, one.last_seen_run), [])) for one in found
    ]


def conditions(
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


def finding_of(row: sa.Row[Any], rule: Rule | None, now: datetime) -> Finding:
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


def evidence_of(
    conn: sa.Connection, tables: Tables, rules: Collection[str], keys: Sequence[bytes]
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
            .where(
                evidence.c.rule.in_(sorted(rules)),  # the index begins with it
                evidence.c.token_key.in_(wanted[start : start + _IN_LIST]),
            )
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
    syncs, sessions = tables.runs, tables.sessions
    later = sa.select(sa.func.count()).select_from(syncs.join(
        sessions, sessions.c.session_id == syncs.c.session_id
    )).where(
        syncs.c.ended_at > last.started_at,
        sa.or_(sessions.c.total_sql_inserts > 0, *(syncs.c[name] > 0 for name in RUN_COUNTS)),
    )  # fmt: skip
    return OpenFindings(
        last.started_at,
        last.number,
        last.status == "COMPLETED",
        errors=counted.get("error", 0),
        warnings=counted.get("warning", 0),
        infos=counted.get("info", 0),
        unaudited_syncs=conn.execute(later).scalar_one(),
    )
