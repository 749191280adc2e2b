"""What is a problem: decisions only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rubix_token_sync.errors import LeaseHeld, SyncError
from rubix_token_sync.ipfs.content import FailureCode
from rubix_token_sync.monitor.health import Problem, Status

__all__ = [
    "NEWS_CODES",
    "Alert",
    "ContentFailure",
    "RunFacts",
    "alert_of_failure",
    "alerts_of_run",
    "alerts_of_status",
]

NEWS_CODES: Final = frozenset(
    {
        FailureCode.NO_REPOSITORY,
        FailureCode.DAMAGED,
        FailureCode.UNSUPPORTED_FORMAT,
        FailureCode.ACCESS_DENIED,
        FailureCode.READ_ERROR,
        FailureCode.DAEMON_REFUSED,
    }
)
"""Reasons for missing content that lie with the machine; the others lie with the token."""


@dataclass(frozen=True)
class Alert:
    """One thing to tell.  ``key`` is the same for the same thing.

    ``lasting`` False: it happened; nobody can say that it is over.
    """

    key: str
    message: str
    lasting: bool = True


@dataclass(frozen=True)
class ContentFailure:
    """Tokens of one database whose content a run could not get, for one reason."""

    node_name: str
    db_path: str
    code: str
    count: int


@dataclass(frozen=True)
class RunFacts:
    """What is known after a completed run of one source."""

    source: str
    status: Status
    """Of this source alone."""
    content_failures: Sequence[ContentFailure] = ()
    """Those that this run met."""
    records_before: int | None = None
    """How many records the source had after the run before."""
    content_below: float | None = None
    records_drop: float | None = None

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
    # Whether runs die is not for a run to say.
    own = [p for p in facts.status.problems if p.code in ("database_failed", "overdue")]
    alerts = [_of_problem(problem) for problem in own]
    alerts += [
        Alert(
            f"content/{failure.db_path}/{failure.code}",
            f"{failure.node_name}: {failure.count:,} tokens without content [{failure.code}]",
            lasting=False,
        )
        for failure in facts.content_failures
        if failure.code in NEWS_CODES
    ]
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
                    lasting=False,
                )
            )
    return alerts


def alerts_of_status(status: Status) -> list[Alert]:
    """What no run tells of itself: that one hangs, died, was stopped, or never came."""
    told = ("stuck", "overdue", "never_ran", "last_run_interrupted")
    return [_of_problem(problem) for problem in status.problems if problem.code in told]


def _of_problem(problem: Problem) -> Alert:
    # A run that hangs is told of once; runs that end the same way night after night, too.
    session = problem.session_id if problem.code == "stuck" else None
    place = problem.db_path or session or problem.source_ip or ""
    detail = f"/{problem.detail}" if problem.detail else ""
    named = f" [{problem.detail or problem.code}]"
    return Alert(f"{problem.code}/{place}{detail}", problem.message + named)
