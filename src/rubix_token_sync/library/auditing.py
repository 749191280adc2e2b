"""The audit: run it, ask what it found, decide about findings."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Unpack

from rubix_token_sync.audit import decisions
from rubix_token_sync.audit.findings import OPEN
from rubix_token_sync.audit.questions import Finding, FindingFilters, list_findings
from rubix_token_sync.audit.rules import RULES
from rubix_token_sync.audit.run import AuditOutcome, run_audit
from rubix_token_sync.errors import SchemaError, TargetRefused
from rubix_token_sync.library.configuration import CallSettings, Configuration, configured
from rubix_token_sync.targets.registry import open_target
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = [
    "RuleRow",
    "acknowledge_finding",
    "audit_records",
    "audit_target",
    "reopen_finding",
    "rules",
    "suppress_finding",
    "writable",
]


_MOST_FINDINGS: Final = 100


@dataclass(frozen=True)
class RuleRow:
    """A rule as the settings have it."""

    rule: str
    severity: str
    """The one in force."""
    default_severity: str
    enabled: bool
    compares_nodes: bool
    """Findings are suspected until every database of theirs was read again."""
    says: str
    means: str
    cause: str
    cure: str
    blind_to: str
    """What it counts as not looked at, in the plural; empty: it looks at everything."""


def audit_records(**settings: Unpack[CallSettings]) -> AuditOutcome:
    """Run the rules over the target, all sources together, and bring its findings up to date.

    Nodes are not read.  Either ``configuration`` is given, or the settings themselves.

    Raises:
        SettingsError: a rule that does not exist is named.
        LeaseHeld: another audit is under way.
        TargetError: the target cannot be used, or no sync has made its tables.
    """
    return audit_target(configured(**settings))


def audit_target(configuration: Configuration) -> AuditOutcome:
    """`audit_records`, of the target of this configuration."""
    return audit_and_list(configuration)[0]


def audit_and_list(configuration: Configuration) -> tuple[AuditOutcome, list[Finding]]:
    """`audit_target`, and the worst of what is open then."""
    options = configuration.audit_options()
    with writable(configuration) as store:
        return run_audit(store, options), worst_findings(store)


def worst_findings(store: SqlTarget) -> list[Finding]:
    """The open findings of a target, the worst first: at most a hundred."""
    now, filters = store.server_time(), FindingFilters(states=OPEN, limit=_MOST_FINDINGS)
    return store.read(lambda conn: list_findings(conn, store.tables, RULES, filters, now))


def rules(configuration: Configuration) -> list[RuleRow]:
    """Every rule, in the order in which they run, as the settings have it.

    Raises:
        SettingsError: the settings name a rule that does not exist.
    """
    options = configuration.audit_options()
    return [
        RuleRow(
            rule=rule.code,
            severity=options.severity(rule),
            default_severity=rule.severity,
            enabled=rule.code not in options.off,
            compares_nodes=rule.compares_nodes,
            says=rule.says,
            means=rule.means,
            cause=rule.cause,
            cure=rule.cure,
            blind_to=rule.blind_to,
        )
        for rule in RULES
    ]


def acknowledge_finding(
    reference: str,
    *,
    by: str | None = None,
    note: str | None = None,
    **settings: Unpack[CallSettings],
) -> Finding:
    """Note that somebody knows of the finding: alerts do not repeat it; it stays open.

    ``reference`` is its fingerprint or the beginning of it, its token id, or RULE:TOKEN;
    ``by`` defaults to this user.

    Raises:
        SettingsError: no finding, several, or a resolved one go by this name.
    """
    with writable(configured(**settings)) as store:
        return decisions.acknowledge(store, reference, by=by or _this_user(), note=note)


def suppress_finding(
    reference: str,
    *,
    reason: str,
    lasting: timedelta,
    by: str | None = None,
    **settings: Unpack[CallSettings],
) -> Finding:
    """Let the finding not count for this long, unless it gets worse; see `acknowledge_finding`.

    Raises:
        SettingsError: as there; or the reason or the end is missing.
    """
    with writable(configured(**settings)) as store:
        return decisions.suppress(
            store, reference, by=by or _this_user(), reason=reason, lasting=lasting
        )


def reopen_finding(
    reference: str,
    *,
    by: str | None = None,
    note: str | None = None,
    **settings: Unpack[CallSettings],
) -> Finding:
    """Take back whatever was decided about the finding; see `acknowledge_finding`."""
    with writable(configured(**settings)) as store:
        return decisions.reopen(store, reference, by=by or _this_user(), note=note)


@contextlib.contextmanager
def writable(configuration: Configuration) -> Iterator[SqlTarget]:
    """The target, with its tables in place."""
    if not configuration.target.exists():
        raise TargetRefused(
            "The target does not exist yet.",
            code="target_absent",
            remedy="Run `rubix-token-sync sync` first, or name another one by --target.",
        )
    store = open_target(configuration.target, configuration.target_options())
    try:
        if store.schema_version() is None:
            raise SchemaError(
                "The target holds no tables of this program's version.",
                code="schema_missing",
                remedy="Run `rubix-token-sync schema upgrade` or a first `sync`.",
            )
        store.ensure_schema()
        yield store
    finally:
        store.close()


def _this_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"
