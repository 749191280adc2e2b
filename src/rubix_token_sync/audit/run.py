"""One audit: lease, rules, findings, all in one transaction."""

from __future__ import annotations

import json
import logging
import socket
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.audit.findings import CHANGES, OPEN, Moment, bring_up_to_date
from rubix_token_sync.audit.judging import JudgeOptions
from rubix_token_sync.audit.questions import OpenFindings, not_suppressed
from rubix_token_sync.audit.rule import SEVERITIES, Rule, Severity
from rubix_token_sync.errors import SettingsError, SyncError
from rubix_token_sync.log import log_event
from rubix_token_sync.process_identity import own_holder
from rubix_token_sync.targets.base import LEASE_SECONDS, Lease
from rubix_token_sync.targets.sql.tables import Tables
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["LEASE", "AuditOptions", "AuditOutcome", "RuleOutcome", "UnreadDatabase", "run_audit"]

_LOG = logging.getLogger(__name__)

LEASE: Final = "audit"
"""Audits of one target take turns by a lease of this name; syncs go on meanwhile."""

_MOST_UNREAD: Final = 1_000
FINDINGS_OPEN: Final = 6
LEFT_UNDONE: Final = 1


@dataclass(frozen=True)
class AuditOptions:
    """What an audit is to look for."""

    rules: Sequence[Rule]
    """Every rule of this program."""
    off: frozenset[str] = frozenset()
    """Codes of rules that do not run; their findings are closed."""
    severities: Mapping[str, Severity] = field(default_factory=dict)
    """Code → severity, where it is not the rule's own."""
    fail_on: Severity = "error"
    """Open findings of this severity or a worse one make the exit code 6."""
    lease_seconds: float = LEASE_SECONDS
    judge: JudgeOptions | None = None
    """None: stored records keep the verdicts that they have."""

    def severity(self, rule: Rule) -> Severity:
        """The one in force."""
        return self.severities.get(rule.code, rule.severity)

    def check(self) -> None:
        """
        Raises:
            SettingsError: a rule that does not exist is named.
        """
        known = {rule.code for rule in self.rules}
        unknown = sorted((self.off | self.severities.keys()) - known)
        if unknown:
            raise SettingsError(
                f"No rule is named {', '.join(unknown)}.",
                code="unknown_rule",
                remedy="`rubix-token-sync rules` lists them.",
                context={"rules": unknown},
            )


@dataclass(frozen=True)
class RuleOutcome:
    """What one rule did in an audit."""

    rule: str
    severity: Severity
    state: str
    """``ran``, ``off`` or ``failed``."""
    findings: int = 0
    """Tokens that it found."""
    seconds: float = 0.0
    code: str | None = None
    """Of the error, where it failed."""
    message: str | None = None
    not_looked_at: int = 0
    """What it ought to look at and could not: nothing is known of that."""
    blind_to: str = ""
    """What those are, in the plural; empty where there are none."""


@dataclass(frozen=True)
class UnreadDatabase:
    """A database that was not read since the previous audit."""

    source_ip: str
    node_name: str | None
    db_path: str
    last_read_at: datetime | None


@dataclass(frozen=True)
class AuditOutcome:
    """How an audit ended.  Times are the target's, UTC without a zone."""

    number: int
    run_id: str
    place: str
    started_at: datetime
    seconds: float
    databases: int
    unread: list[UnreadDatabase]
    """At most a thousand of them."""
    unread_databases: int
    rules: list[RuleOutcome]
    changes: dict[str, int]
    """``new``, ``confirmed``, ``worse``, ``reopened``, ``resolved``: findings of this audit."""
    open: dict[str, int]
    """Open findings by severity; suppressed ones do not count."""
    fail_on: Severity

    @property
    def failed(self) -> list[RuleOutcome]:
        """Rules that could not run: of what they look for, nothing is known."""
        return [rule for rule in self.rules if rule.state == "failed"]

    @property
    def blind(self) -> list[RuleOutcome]:
        """Rules that ran, but not over all that they ought to look at."""
        return [rule for rule in self.rules if rule.not_looked_at]

    @property
    def failing(self) -> int:
        """Open findings that make the exit code 6."""
        worst = SEVERITIES[SEVERITIES.index(self.fail_on) :]
        return sum(self.open.get(severity, 0) for severity in worst)

    @property
    def left_open(self) -> OpenFindings:
        """What it left open, as `status` has it."""
        return OpenFindings(
            self.started_at,
            self.number,
            not self.failed,
            self.open.get("error", 0),
            self.open.get("warning", 0),
            self.open.get("info", 0),
        )

    @property
    def exit_code(self) -> int:
        """1 where a rule failed, else 6 where findings are open, else 0."""
        if self.failed:
            return LEFT_UNDONE
        return FINDINGS_OPEN if self.failing else 0

    @property
    def ok(self) -> bool:
        """Every rule ran, and nothing is open that matters."""
        return self.exit_code == 0


def run_audit(store: SqlTarget, options: AuditOptions) -> AuditOutcome:
    """Run the rules over the target and bring its findings up to date, in one transaction.

    Before that, records without a verdict get one, and all of them where limits changed.

    A rule whose statement the target refuses is left out, and the rest begins anew: what it
    would have found is unknown, and its findings stay as they are.

    Raises:
        SettingsError: the options name an unknown rule.
        LeaseHeld: another audit is under way.
        SyncError: the target cannot be used; nothing was changed.
    """
    from rubix_token_sync.audit.stored import judge_stored  # loads Arrow: not every sync audits

    options.check()
    lease = Lease(LEASE, str(uuid.uuid4()), options.lease_seconds)
    store.acquire_lease(lease, own_holder())
    try:
        version = judge_stored(store, lease, options.judge)
        audit = _Audit(store, options, lease, version)
        audit.prepare()
        return _until_all_run(audit)
    finally:
        try:
            store.release_lease(lease)
        except SyncError as error:  # the audit's own end counts; the lease ends by itself
            log_event(
                _LOG, logging.WARNING, "audit_lease_kept",
                f"The audit's lease could not be given back: {error}", code=error.code,
            )  # fmt: skip


def _until_all_run(audit: _Audit) -> AuditOutcome:
    while True:
        try:
            return audit.store.transact(audit.work)
        except Exception as error:
            rule = audit.at_work
            if rule is None or (isinstance(error, SyncError) and error.kind != "permanent"):
                raise
            audit.leave_out(rule, error)


class _Audit:
    """The work of one audit; `work` may run several times."""

    def __init__(
        self, store: SqlTarget, options: AuditOptions, lease: Lease, limits_version: str | None
    ) -> None:
        self.store = store
        self.at_work: Rule | None = None
        """The rule whose statement is under way."""
        self._options = options
        self._lease = lease
        self._limits_version = limits_version
        self._tables = store.tables
        self._failed: dict[str, RuleOutcome] = {}
        self._blind: dict[str, int] = {}
        self._notes: dict[str, str] = {}
        self._began = time.monotonic()
        self._committed: AuditOutcome | None = None

    def prepare(self) -> None:
        """What rules do before the transaction; one that cannot is left out of it.

        Raises:
            SyncError: the target cannot be used, or another audit has taken over.
        """
        runs = self._tables.audit.runs
        latest = sa.select(runs.c.rule_notes).order_by(runs.c.number.desc()).limit(1)
        before = json.loads(self.store.read(lambda conn: conn.execute(latest).scalar()) or "{}")
        for rule in self._options.rules:
            if rule.code in self._options.off:
                continue
            try:
                note = rule.prepare(self.store, self._lease, before.get(rule.code))
                if note is not None:
                    self._notes[rule.code] = note
            except Exception as error:
                if isinstance(error, SyncError) and error.kind != "permanent":
                    raise
                self.leave_out(rule, error)

    def leave_out(self, rule: Rule, error: Exception) -> None:
        """The rule failed: it does not run in this audit."""
        code = error.code if isinstance(error, SyncError) else "rule_crashed"
        said = str(error) if isinstance(error, SyncError) else f"{type(error).__name__}: {error}"
        log_event(
            _LOG, logging.ERROR, "rule_failed", f"The rule {rule.code} failed: {said}",
            rule=rule.code, code=code,
        )  # fmt: skip
        self._failed[rule.code] = RuleOutcome(
            rule.code, self._options.severity(rule), "failed", code=code, message=said
        )
        self.at_work = None

    def work(self, conn: sa.Connection) -> AuditOutcome:
        """The transaction."""
        self.at_work = None
        options, tables = self._options, self._tables
        self.store.sessions.fence(conn, self._lease)
        done = self._done_before(conn)
        if done is not None:
            return done
        moment = self._begin(conn)
        ran: list[tuple[Rule, float]] = []
        self._blind = {}
        for rule in options.rules:
            if rule.code in options.off or rule.code in self._failed:
                continue
            began = time.monotonic()
            self.at_work = rule
            failpoints.point("audit.rule")
            rule.gather(conn, tables, moment.number)
            self._blind[rule.code] = rule.blind_spots(conn, tables)
            self.at_work = None
            ran.append((rule, time.monotonic() - began))
        bring_up_to_date(
            conn,
            tables,
            moment,
            ran=[rule for rule, _ in ran],
            off=options.off,
            known=[rule.code for rule in options.rules],
            severities={rule.code: options.severity(rule) for rule in options.rules},
        )
        return self._end(conn, moment, ran)

    def _begin(self, conn: sa.Connection) -> Moment:
        from rubix_token_sync import __version__

        now = self.store.database.time(conn)
        key = conn.execute(
            sa.insert(self._tables.audit.runs).values(
                run_id=self._lease.session_id,
                started_at=now,
                status="RUNNING",
                host=socket.gethostname()[:255],
                program_version=__version__,
                limits_version=self._limits_version,
            )
        ).inserted_primary_key
        assert key is not None
        return Moment(int(key[0]), now)

    def _outcomes(
        self, conn: sa.Connection, moment: Moment, ran: Sequence[tuple[Rule, float]]
    ) -> list[RuleOutcome]:
        evidence = self._tables.audit.evidence
        query = (
            sa.select(evidence.c.rule, evidence.c.token_key)
            .where(evidence.c.run_number == moment.number)
            .distinct()
            .subquery()
        )
        grouped = sa.select(query.c.rule, sa.func.count()).group_by(query.c.rule)
        counts: dict[str, int] = {row[0]: row[1] for row in conn.execute(grouped)}
        seconds = {rule.code: taken for rule, taken in ran}
        options = self._options
        found = []
        for rule in options.rules:
            if rule.code in self._failed:
                found.append(self._failed[rule.code])
                continue
            state = "off" if rule.code in options.off else "ran"
            blind = self._blind.get(rule.code, 0)
            found.append(
                RuleOutcome(
                    rule.code,
                    options.severity(rule),
                    state,
                    counts.get(rule.code, 0),
                    round(seconds.get(rule.code, 0.0), 3),
                    not_looked_at=blind,
                    blind_to=rule.blind_to if blind else "",
                )
            )
        return found

    def _end(
        self, conn: sa.Connection, moment: Moment, ran: Sequence[tuple[Rule, float]]
    ) -> AuditOutcome:
        runs = self._tables.audit.runs
        rules = self._outcomes(conn, moment, ran)
        databases, unread = _scope(conn, self._tables, moment)
        outcome = AuditOutcome(
            number=moment.number,
            run_id=self._lease.session_id,
            place=self.store.place,
            started_at=moment.at,
            seconds=round(time.monotonic() - self._began, 3),
            databases=databases,
            unread=unread[:_MOST_UNREAD],
            unread_databases=len(unread),
            rules=rules,
            changes=_changes(conn, self._tables, moment),
            open=_open(conn, self._tables, moment),
            fail_on=self._options.fail_on,
        )
        conn.execute(
            sa.update(runs)
            .where(runs.c.number == moment.number)
            .values(
                ended_at=self.store.now,
                status="INCOMPLETE" if outcome.failed else "COMPLETED",
                databases=databases,
                databases_unread=len(unread),
                unread=_json([[one.source_ip, one.db_path] for one in outcome.unread]),
                rules_run=_json([rule.rule for rule in rules if rule.state == "ran"]),
                rules_off=_json([rule.rule for rule in rules if rule.state == "off"]),
                rule_notes=_json(self._notes),
                rules_failed=_json({rule.rule: rule.code for rule in outcome.failed}),
                not_looked_at=_json({rule.rule: rule.not_looked_at for rule in outcome.blind}),
                **{f"findings_{change}": outcome.changes[change] for change in CHANGES},
                **{f"open_{severity}s": outcome.open[severity] for severity in SEVERITIES},
            )
        )
        self._committed = outcome
        return outcome

    def _done_before(self, conn: sa.Connection) -> AuditOutcome | None:
        """The outcome of an earlier attempt whose COMMIT was not heard of."""
        runs = self._tables.audit.runs
        there = sa.select(runs.c.number).where(runs.c.run_id == self._lease.session_id)
        if conn.execute(there).first() is None:
            return None
        return self._committed


def _scope(conn: sa.Connection, tables: Tables, moment: Moment) -> tuple[int, list[UnreadDatabase]]:
    """How many databases there are, and those that were not read since the audit before."""
    databases, runs = tables.databases, tables.audit.runs
    before = conn.execute(
        sa.select(sa.func.max(runs.c.started_at)).where(runs.c.number < moment.number)
    ).scalar()
    read = sa.func.coalesce(databases.c.last_seen_at, databases.c.last_processed).label("read_at")
    query = sa.select(
        databases.c.source_ip, databases.c.node_name, databases.c.db_path, read
    ).order_by(databases.c.source_ip, databases.c.db_path)
    rows = conn.execute(query).all()
    unread = [
        UnreadDatabase(row.source_ip, row.node_name, row.db_path, row.read_at)
        for row in rows
        if before is not None and (row.read_at is None or row.read_at <= before)
    ]
    return len(rows), unread


def _changes(conn: sa.Connection, tables: Tables, moment: Moment) -> dict[str, int]:
    findings = tables.audit.findings
    query = (
        sa.select(findings.c.change, sa.func.count())
        .where(findings.c.changed_run == moment.number)
        .group_by(findings.c.change)
    )
    counted: dict[str, int] = {row[0]: row[1] for row in conn.execute(query)}
    return {change: counted.get(change, 0) for change in CHANGES}


def _open(conn: sa.Connection, tables: Tables, moment: Moment) -> dict[str, int]:
    findings = tables.audit.findings
    query = (
        sa.select(findings.c.severity, sa.func.count())
        .where(findings.c.state.in_(OPEN), not_suppressed(findings, moment.at))
        .group_by(findings.c.severity)
    )
    counted: dict[str, int] = {row[0]: row[1] for row in conn.execute(query)}
    return {severity: counted.get(severity, 0) for severity in SEVERITIES}


def _json(value: Collection[Any]) -> str | None:
    return json.dumps(value, ensure_ascii=False, sort_keys=True) if value else None
