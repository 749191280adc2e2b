"""What a person decides about findings: acknowledged, suppressed for a time, open again."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.audit.findings import OPEN
from rubix_token_sync.audit.questions import Finding, FindingFilters, fingerprint, list_findings
from rubix_token_sync.audit.rules import RULES
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.targets.sql.audit_tables import TOKEN_KEY_BYTES
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["acknowledge", "find_one", "reopen", "suppress"]

_REFERENCE: Final = re.compile(r"(?:([a-z_]+):)?([0-9a-f]{6,32})")
_RULE_AND_TOKEN: Final = re.compile(r"([a-z_]+):(.+)", re.DOTALL)
_LONGEST_SUPPRESSION: Final = timedelta(days=3660)


def find_one(conn: sa.Connection, store: SqlTarget, reference: str, now: datetime) -> Finding:
    """The finding that ``reference`` names.

    It is a fingerprint or its beginning (six digits at least, with or without the rule), a
    token id, or ``RULE:TOKEN``.

    Raises:
        SettingsError: none is, or several are.
    """
    found: list[Finding] = []
    match = _REFERENCE.fullmatch(reference)
    if match is not None:
        rule, digits = match.groups()
        width = 2 * TOKEN_KEY_BYTES
        low, high = (bytes.fromhex(digits.ljust(width, fill)) for fill in "0f")
        filters = FindingFilters(rules=(rule,) if rule else (), token_key=(low, high), limit=50)
        found = list_findings(conn, store.tables, RULES, filters, now)
    if not found:
        named = _RULE_AND_TOKEN.fullmatch(reference)
        rules = (named[1],) if named else ()
        filters = FindingFilters(rules=rules, token_id=named[2] if named else reference, limit=50)
        found = list_findings(conn, store.tables, RULES, filters, now)
    if not found:
        raise SettingsError(
            "No finding has this name.",
            code="no_such_finding",
            remedy="`rubix-token-sync findings --state all` lists them with their names.",
        )
    if len(found) > 1:
        raise SettingsError(
            f"{len(found)} findings go by this name: "
            + ", ".join(one.fingerprint for one in found[:5])
            + (" …" if len(found) > 5 else "."),
            code="finding_ambiguous",
            remedy="Name one of them.",
        )
    return found[0]


def acknowledge(store: SqlTarget, reference: str, *, by: str, note: str | None) -> Finding:
    """Somebody knows of it and looks into it: no alert repeats it; it stays open.

    Raises:
        SettingsError: there is no such finding, or it is resolved.
    """

    def work(conn: sa.Connection) -> Finding:
        now = store.database.time(conn)
        found = find_one(conn, store, reference, now)
        _must_be_open(found)
        values = {"state": "acknowledged", "acknowledged_by": by[:255], "acknowledged_at": now}
        return _decide(conn, store, found, now, values | ({"note": note} if note else {}))

    return store.transact(work)


def suppress(
    store: SqlTarget, reference: str, *, by: str, reason: str, lasting: timedelta
) -> Finding:
    """It does not count until then, unless it gets worse.

    Raises:
        SettingsError: there is no such finding, it is resolved, or there is no reason or end.
    """
    if not reason.strip():
        raise SettingsError(
            "A suppression needs a reason.",
            code="suppression_incomplete",
            remedy="Say by --reason why the finding does not count.",
        )
    if not timedelta() < lasting <= _LONGEST_SUPPRESSION:
        raise SettingsError(
            "A suppression ends: after ten years at the latest.",
            code="suppression_incomplete",
            remedy="Say by --for how long it lasts, such as 30d.",
        )

    def work(conn: sa.Connection) -> Finding:
        now = store.database.time(conn)
        found = find_one(conn, store, reference, now)
        _must_be_open(found)
        values = {
            "suppressed_by": by[:255],
            "suppressed_at": now,
            "suppressed_until": now + lasting,
            "suppressed_reason": reason,
        }
        return _decide(conn, store, found, now, values)

    return store.transact(work)


def reopen(store: SqlTarget, reference: str, *, by: str, note: str | None) -> Finding:
    """Take a decision back: the finding counts again, whatever was decided or resolved.

    Raises:
        SettingsError: there is no such finding.
    """

    def work(conn: sa.Connection) -> Finding:
        now = store.database.time(conn)
        found = find_one(conn, store, reference, now)
        findings = store.tables.audit.findings
        state = findings.c.state
        values: dict[str, Any] = {
            "suppressed_until": None,
            "acknowledged_by": None,
            "acknowledged_at": None,
            "state": sa.case(
                (state == "acknowledged", "confirmed"),
                (state == "resolved", "reopened"),
                else_=state,
            ),
            "reopened": findings.c.reopened + sa.case((state == "resolved", 1), else_=0),
            "confirmed_at": sa.case(
                (state == "suspected", sa.null()),
                else_=sa.func.coalesce(findings.c.confirmed_at, now),
            ),
            "resolved_at": None,
            "resolution": None,
            "note": f"Reopened by {by}." if note is None else f"Reopened by {by}: {note}",
        }
        return _decide(conn, store, found, now, values)

    return store.transact(work)


def _must_be_open(found: Finding) -> None:
    if found.state not in (*OPEN, "suppressed"):
        raise SettingsError(
            "The finding is resolved already.",
            code="finding_resolved",
            remedy="`rubix-token-sync findings reopen` opens it again.",
        )


def _decide(
    conn: sa.Connection, store: SqlTarget, found: Finding, now: datetime, values: dict[str, Any]
) -> Finding:
    findings = store.tables.audit.findings
    key = bytes.fromhex(found.fingerprint.partition(":")[2])
    failpoints.point("audit.decide")
    conn.execute(
        sa.update(findings)
        .where(findings.c.rule == found.rule, findings.c.token_key == key)
        .values(**values)
    )
    return find_one(conn, store, fingerprint(found.rule, key), now)
