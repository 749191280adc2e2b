"""What is worth an alert: decisions only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from rubix_token_sync.audit.questions import Finding
from rubix_token_sync.errors import LeaseHeld, SyncError
from rubix_token_sync.monitor.health import Status
from rubix_token_sync.monitor.problems import Problem

__all__ = [
    "Alert",
    "RunFacts",
    "alert_of_failure",
    "alerts_of_findings",
    "alerts_of_run",
    "alerts_of_status",
]

_OF_NO_RUN = frozenset({"stuck", "never_ran", "last_run_failed", "last_run_interrupted"})
"""Problems that a run does not report of its own source: `status --alert` does."""

_MOST_FINDINGS: Final = 10_000
"""What is remembered of findings stays within some megabytes."""


@dataclass(frozen=True)
class Alert:
    """One thing to send.  ``key`` is the same for the same thing."""

    key: str
    message: str
    weight: int = 0
    """Where it has grown, the alert is sent as a new one."""
    quiet: bool = False
    """Somebody knows of it: it is not sent, and not over either."""


@dataclass(frozen=True)
class RunFacts:
    """What is known after a completed run of one source."""

    source: str
    status: Status
    """Of this source alone."""
    records_before: int | None = None
    """How many records the source had after the run before."""
    content_below: float | None = None
    """Per cent of the records that should have content."""
    records_drop: float | None = None
    """Per cent by which records may fall."""

    @property
    def records(self) -> int:
        """How many it has now."""
        return sum(source.record_count for source in self.status.sources)


def alert_of_failure(error: BaseException) -> Alert | None:
    """A run that could not go on; None for one that only waits its turn."""
    if isinstance(error, LeaseHeld):
        return None
    if isinstance(error, SyncError):
        return Alert(f"run/{error.code}", f"The run failed: {error} [{error.code}]")
    return Alert("run/unexpected", f"The run failed: {type(error).__name__}: {error}")


def alerts_of_run(facts: RunFacts) -> list[Alert]:
    """Every problem that a completed run leaves behind."""
    own = [p for p in facts.status.problems if p.code not in _OF_NO_RUN]
    alerts = [_of_problem(problem) for problem in own]
    for source in facts.status.sources:
        rate = source.ipfs_success_rate
        if facts.content_below is not None and rate is not None and rate < facts.content_below:
            alerts.append(
                Alert(
                    "content_below",
                    f"Only {rate:.2f} % of the records have content "
                    f"(less than {facts.content_below:g} %).",
                )
            )
    before = facts.records_before
    if facts.records_drop is not None and before:
        fall = (before - facts.records) * 100 / before
        if fall > facts.records_drop:
            alerts.append(
                Alert(
                    "records_drop",
                    f"Records fell by {fall:.1f} % since the run before, "
                    f"from {before:,} to {facts.records:,}.",
                )
            )
    return alerts


def alerts_of_status(status: Status) -> list[Alert]:
    """What no run reports of itself: that one hangs, died, was stopped, or never came."""
    wanted = ("stuck", "overdue", "never_ran", "last_run_interrupted")
    return [_of_problem(problem) for problem in status.problems if problem.code in wanted]


def alerts_of_findings(findings: Iterable[Finding]) -> list[Alert]:
    """What audits found and is sure: not what the next sync may explain (suspected).

    ``findings`` are those that are open, the worst first, suppressed ones included; notes are
    not worth an alert.  What got worse is sent anew; what was acknowledged or suppressed is not
    sent.
    """
    worth_it = (one for one in findings if one.state != "suspected" and one.severity != "info")
    return [
        Alert(
            f"finding/{one.fingerprint}",
            f"{one.severity}: {one.token_id}: {one.says}, on "
            + (", ".join(sorted({e.node_name for e in one.evidence})) or "no node")
            + f" [{one.rule}]",
            one.weight,
            quiet=one.state in ("acknowledged", "suppressed"),
        )
        for one in islice(worth_it, _MOST_FINDINGS)
    ]


def _of_problem(problem: Problem) -> Alert:
    # A run that hangs is reported once; runs that end the same way night after night, too.
    session = problem.session_id if problem.code == "stuck" else None
    place = problem.db_path or session or problem.source_ip or ""
    detail = f"/{problem.detail}" if problem.detail else ""
    named = f" [{problem.detail or problem.code}]"
    return Alert(f"{problem.code}/{place}{detail}", problem.message + named)
