"""What the evidence says of itself: an in-toto statement about its files.

The predicate names the run and the moment, the scope with everything that was not read, the
counts, the findings, what every verdict rests on, and the evidence before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from rubix_token_sync.audit.questions import AuditRow
from rubix_token_sync.evidence.form import CONTENTS, PREDICATE_TYPE, STATEMENT_TYPE
from rubix_token_sync.monitor.databases import DatabaseRow
from rubix_token_sync.monitor.health import Status
from rubix_token_sync.monitor.problems import Problem

__all__ = ["Counts", "Origin", "Previous", "statement", "time_text"]

UNREAD: Final = frozenset({"failed", "pending", "overdue"})
"""States of databases that are not as their nodes are now."""


@dataclass
class Counts:
    """Records by what an auditor asks for first."""

    records: int = 0
    with_content: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, int] = field(default_factory=dict)
    """``none``: nobody has judged."""
    vanished: int = 0
    """Records that their nodes do not have any more; they are not in the tree."""


@dataclass(frozen=True)
class Origin:
    """Where and when the evidence was made."""

    target_kind: str
    target_place: str
    at: datetime
    """By the target's clock, at the beginning."""
    one_moment: bool
    """Everything is what one snapshot of the target held."""
    run: str
    program_version: str
    limits_version: str
    """Of this program: what verdicts of records without one would rest on."""


@dataclass(frozen=True)
class Previous:
    """The evidence before this one."""

    origin: str
    size: int
    root: str
    """Base64."""
    run: str
    made_at: str
    files_digest: str


def time_text(value: datetime | None) -> str | None:
    """RFC 3339 in UTC, with microseconds."""
    return None if value is None else value.isoformat(timespec="microseconds") + "Z"


def statement(
    *,
    files: Mapping[str, tuple[str, int]],
    origin: Origin,
    size: int,
    root: str,
    status: Status,
    audit: AuditRow | None,
    audit_limits: str | None,
    counts: Counts,
    findings: Mapping[str, int],
    previous: Previous | None,
    time_stamp_from: str | None,
) -> dict[str, Any]:
    """The manifest; ``files`` have their hash and size, ``findings`` are counted by state.

    ``time_stamp_from``: the authority that will be asked to stamp the checkpoint.
    """
    unread = [d for d in status.databases if d.state in UNREAD]
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": files[name][0]}} for name in CONTENTS],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "run": origin.run,
            "made_at": time_text(origin.at),
            "program_version": origin.program_version,
            "target": {"kind": origin.target_kind, "place": origin.target_place},
            "one_moment": origin.one_moment,
            "tree": {"hash": "RFC 6962, SHA-256", "leaves": size, "root": root},
            "sizes": {name: files[name][1] for name in CONTENTS},
            # A run under way may have stored half of a database.
            "complete": status.ok and not unread and not status.running,
            "not_read": {
                "databases": [_database(d) for d in unread],
                "problems": [_problem(p) for p in status.problems],
            },
            "scope": {
                "sources": [
                    {
                        "source_ip": s.source_ip,
                        "last_run": s.last_run.session_id if s.last_run else None,
                        "last_run_status": s.last_run.status if s.last_run else None,
                        "last_success_at": time_text(s.last_success_at),
                    }
                    for s in status.sources
                ],
                "runs_under_way": [run.session_id for run in status.running],
                "databases": [_database(d) for d in status.databases],
            },
            "counts": {
                "records": counts.records,
                "with_content": counts.with_content,
                "kinds": dict(sorted(counts.kinds.items())),
                "verdicts": dict(sorted(counts.verdicts.items())),
                "vanished": counts.vanished,
            },
            "findings": dict(findings),
            "audit": None if audit is None else _audit(audit, audit_limits),
            "limits_version": origin.limits_version,
            "previous": None if previous is None else vars(previous),
            "time_stamp_from": time_stamp_from,
        },
    }


def _database(row: DatabaseRow) -> dict[str, Any]:
    return {
        "source_ip": row.source_ip,
        "node_name": row.node_name,
        "db_path": row.db_path,
        "state": row.state,
        "records": row.record_count,
        "rejected": row.rejected_count,
        "read_at": time_text(row.last_success_at),
        "error": row.error.code if row.error is not None else None,
    }


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "code": problem.code,
        "severity": problem.severity,
        "message": problem.message,
        "source_ip": problem.source_ip,
        "node_name": problem.node_name,
        "db_path": problem.db_path,
    }


def _audit(audit: AuditRow, limits: str | None) -> dict[str, Any]:
    return {
        "number": audit.number,
        "run_id": audit.run_id,
        "status": audit.status,
        "started_at": time_text(audit.started_at),
        "limits_version": limits,
        "databases": audit.databases,
        "databases_unread": audit.databases_unread,
        "rules_run": audit.rules_run,
        "rules_off": audit.rules_off,
        "rules_failed": audit.rules_failed,
    }
