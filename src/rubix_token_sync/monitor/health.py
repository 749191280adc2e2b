"""What somebody must look at, and whether anything must be.

`read_status` asks the target; `judge` decides and does no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from rubix_token_sync.monitor.databases import DatabaseRow, list_databases
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.monitor.runs import STUCK_SECONDS, RunRow, last_runs, list_runs
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["Problem", "SourceRow", "Status", "judge", "read_status"]

_MOST_RUNNING = 1_000


@dataclass(frozen=True)
class Problem:
    """One thing to look at.

    ``code``: ``stuck``, ``last_run_failed``, ``last_run_interrupted``,
    ``database_failed``, ``overdue``, ``never_ran``.
    """

    code: str
    message: str
    source_ip: str | None = None
    node_name: str | None = None
    db_path: str | None = None
    session_id: str | None = None
    detail: str | None = None
    """The code of the error behind it, where there is one."""


@dataclass(frozen=True)
class SourceRow:
    """One machine (source) in sum."""

    source_ip: str
    host: str | None
    last_run: RunRow | None
    """The newest finished sync."""
    last_success_at: datetime | None
    """The end of the newest completed sync."""
    age_seconds: float | None
    databases: int
    databases_failed: int
    record_count: int
    ipfs_success_count: int
    ipfs_fail_count: int
    ipfs_success_rate: float | None
    validation_error_count: int
    rejected_count: int


@dataclass(frozen=True)
class Status:
    """How it stands."""

    server_time: datetime
    problems: list[Problem]
    running: list[RunRow]
    sources: list[SourceRow]

    @property
    def ok(self) -> bool:
        """Nobody has to look."""
        return not self.problems


def read_status(
    store: SqlTarget,
    filters: Filters,
    now: datetime,
    *,
    stuck_seconds: float = STUCK_SECONDS,
    max_age: timedelta | None = None,
) -> Status:
    """Runs under way, every source, and what is wrong.

    Looks at sessions, marks and errors only, never at the records: it answers at
    once however large the target is.
    """
    asked = replace(filters, since=None, statuses=("RUNNING",), limit=_MOST_RUNNING)
    running = list_runs(store, asked, now, stuck_seconds=stuck_seconds)
    last = last_runs(store, now, sources=filters.sources)
    completed = last_runs(store, now, status="COMPLETED", sources=filters.sources)
    databases = list_databases(
        store, replace(filters, since=None), now, max_age=max_age, reasons=False
    )
    sources = _sources(running, last, completed, databases, now)
    return Status(now, judge(running, sources, databases, max_age), running, sources)


def _sources(
    running: Sequence[RunRow],
    last: Mapping[str, RunRow],
    completed: Mapping[str, RunRow],
    databases: Sequence[DatabaseRow],
    now: datetime,
) -> list[SourceRow]:
    names = {run.source_ip for run in running} | set(last) | {d.source_ip for d in databases}
    rows = []
    for name in sorted(names):
        run, success = last.get(name), completed.get(name)
        mine = [d for d in databases if d.source_ip == name]
        records = sum(d.record_count for d in mine)
        content = sum(d.ipfs_success_count for d in mine)
        ended = success.end_time if success else None
        host = run.host if run else next((r.host for r in running if r.source_ip == name), None)
        rows.append(
            SourceRow(
                source_ip=name,
                host=host,
                last_run=run,
                last_success_at=ended,
                age_seconds=None
                if ended is None
                else round(max(0.0, (now - ended).total_seconds()), 3),
                databases=len(mine),
                databases_failed=sum(d.state == "failed" for d in mine),
                record_count=records,
                ipfs_success_count=content,
                ipfs_fail_count=sum(d.ipfs_fail_count for d in mine),
                ipfs_success_rate=round(content * 100 / records, 2) if records else None,
                validation_error_count=sum(d.validation_error_count for d in mine),
                rejected_count=sum(d.rejected_count for d in mine),
            )
        )
    return rows


def judge(
    running: Iterable[RunRow],
    sources: Sequence[SourceRow],
    databases: Iterable[DatabaseRow],
    max_age: timedelta | None,
) -> list[Problem]:
    """Everything that somebody must look at, the worst first."""
    problems = [_stuck(run) for run in running if run.stuck]
    if not sources:
        problems.append(
            Problem(
                "never_ran", "No sync has ever run into this target. Run `rubix-token-sync sync`."
            )
        )
    for source in sources:
        run = source.last_run
        if run is not None and run.status in ("FAILED", "INTERRUPTED"):
            problems.append(_ended_badly(run))
    for row in databases:
        if row.error is not None:
            problems.append(
                Problem(
                    "database_failed",
                    f"{row.node_name}: {row.error.message}",
                    row.source_ip,
                    row.node_name,
                    row.db_path,
                    row.error.session_id,
                    row.error.code,
                )
            )
        elif row.state == "overdue" and row.age_seconds is not None:
            problems.append(
                Problem(
                    "overdue",
                    f"{row.node_name} was last synced {row.age_seconds / 3600:,.1f} hours ago.",
                    row.source_ip,
                    row.node_name,
                    row.db_path,
                )
            )
    if max_age is not None:
        problems += [
            _source_overdue(source)
            for source in sources
            # One with databases is told of by them.
            if not source.databases
            and (source.age_seconds is None or source.age_seconds > max_age.total_seconds())
        ]
    return problems


def _stuck(run: RunRow) -> Problem:
    return Problem(
        "stuck",
        f"The run on {run.host or run.source_ip} (process {run.pid or 'unknown'}) has been silent "
        f"for {run.heartbeat_age_seconds or 0:,.0f} seconds: it died, or hangs.",
        run.source_ip,
        session_id=run.session_id,
    )


def _ended_badly(run: RunRow) -> Problem:
    how = "failed" if run.status == "FAILED" else "was interrupted"
    why = f": {run.error_summary}" if run.error_summary else "."
    return Problem(
        f"last_run_{run.status.lower()}",
        f"The last run of {run.source_ip} {how}{why}",
        run.source_ip,
        session_id=run.session_id,
    )


def _source_overdue(source: SourceRow) -> Problem:
    if source.age_seconds is None:
        told = f"{source.source_ip} has never completed a sync."
    else:
        told = (
            f"{source.source_ip} last completed a sync {source.age_seconds / 3600:,.1f} hours ago."
        )
    return Problem("overdue", told, source.source_ip)
