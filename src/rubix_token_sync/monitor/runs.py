"""Runs: the rows of SyncSessions, with what can be told from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.history.change_counts import ChangeCounts, replaced_by
from rubix_token_sync.monitor.answers import Answers
from rubix_token_sync.monitor.filters import Filters

__all__ = [
    "STUCK_SECONDS",
    "NewestRuns",
    "RunRow",
    "RunView",
    "Trend",
    "is_session",
    "list_runs",
    "newest_runs",
    "read_run",
    "trend",
]

_SESSION: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
STUCK_SECONDS: Final = 60.0
"""A RUNNING session that has been silent for longer is called stuck."""

_RUNNING, _COMPLETED, _FAILED = 0, 1, 2

_STORED: Final = (
    "source_ip",
    "host",
    "pid",
    "command",
    "program_version",
    "status",
    "start_time",
    "end_time",
    "heartbeat_at",
    "progress_percent",
    "total_databases_found",
    "total_databases_processed",
    "total_records_processed",
    "total_ipfs_success",
    "total_ipfs_failures",
    "total_sql_inserts",
    "total_sql_errors",
    "total_validation_errors",
    "error_summary",
)


@dataclass(frozen=True)
class RunRow:
    """One run.  Times are the target's, UTC; rates are None where nothing was processed."""

    session_id: str
    source_ip: str
    host: str | None
    pid: int | None
    command: str | None
    program_version: str | None
    status: str
    stuck: bool
    start_time: datetime | None
    end_time: datetime | None
    duration_seconds: float | None
    """Until the end; of a run under way, until now."""
    heartbeat_at: datetime | None
    heartbeat_age_seconds: float | None
    """Of a run under way only."""
    progress_percent: float | None
    total_databases_found: int
    total_databases_processed: int
    total_records_processed: int
    total_ipfs_success: int
    total_ipfs_failures: int
    total_sql_inserts: int
    total_sql_errors: int
    total_validation_errors: int
    records_per_second: float | None
    ipfs_success_rate: float | None
    """Per cent of the records, as in the guide's query."""
    error_summary: str | None

    @property
    def running(self) -> bool:
        """Under way, or dead without having said so."""
        return self.status == "RUNNING"


@dataclass(frozen=True)
class RunView:
    """One run, and what it did to the records of each node."""

    run: RunRow
    number: int | None
    """On the axis of history; None: a run from before it, or one that took no lease."""
    nodes: list[ChangeCounts]
    """By node, without what is new."""


def is_session(text: str) -> bool:
    """It has the form of a session's id, which not every database takes otherwise."""
    return _SESSION.fullmatch(text) is not None


def read_run(
    store: Answers, session_id: str, now: datetime, *, stuck_seconds: float = STUCK_SECONDS
) -> RunView | None:
    """The run of this session; None: there is none."""
    if not is_session(session_id):
        return None
    sessions, runs = store.tables.sessions, store.tables.runs

    def ask(conn: sa.Connection) -> RunView | None:
        row = conn.execute(
            sa.select(sessions).where(sessions.c.session_id == session_id.lower())
        ).first()
        if row is None:
            return None
        number = conn.execute(
            sa.select(runs.c.number)
            .where(runs.c.session_id == session_id.lower())
            .order_by(runs.c.number.desc())
            .limit(1)
        ).scalar()
        nodes = [] if number is None else replaced_by(conn, store.tables, number)
        return RunView(_row(row, now, stuck_seconds), number, nodes)

    return store.read(ask)


def list_runs(
    store: Answers, filters: Filters, now: datetime, *, stuck_seconds: float = STUCK_SECONDS
) -> list[RunRow]:
    """Runs, the newest first: the guide's two session queries in one."""
    sessions = store.tables.sessions
    query = (
        sa.select(sessions)
        .where(*filters.by(sessions, now, time="start_time"))
        .order_by(sessions.c.start_time.desc(), sessions.c.session_id)
        .limit(filters.limit)
    )
    if filters.statuses:
        query = query.where(sessions.c.status.in_(filters.statuses))
    return store.read(lambda conn: [_row(r, now, stuck_seconds) for r in conn.execute(query)])


@dataclass(frozen=True)
class NewestRuns:
    """Where every source stands."""

    running: list[RunRow]
    """Under way, the newest first."""
    finished: dict[str, RunRow]
    """The newest finished sync of each source."""
    completed: dict[str, RunRow]
    """The newest completed sync of each source."""


def newest_runs(
    store: Answers,
    now: datetime,
    *,
    sources: Sequence[str] = (),
    stuck_seconds: float = STUCK_SECONDS,
) -> NewestRuns:
    """By one question: a target may be far away."""
    sessions = store.tables.sessions
    # Of the earlier script's rows no command is known; all of them were syncs.
    synced = sa.or_(sessions.c.command.is_(None), sessions.c.command == "sync")
    state = sa.case(
        (sessions.c.status == "RUNNING", _RUNNING),
        (sa.and_(synced, sessions.c.status == "COMPLETED"), _COMPLETED),
        (synced, _FAILED),
    )
    stated = sa.select(sessions, state.label("state"))
    if sources:
        stated = stated.where(sessions.c.source_ip.in_(sources))
    each = stated.subquery()
    newest = (each.c.start_time.desc(), each.c.session_id)
    place = sa.func.row_number().over(
        partition_by=(each.c.source_ip, each.c.state), order_by=newest
    )
    ranked = sa.select(each, place.label("place")).where(each.c.state.is_not(None)).subquery()
    query = (
        sa.select(ranked)
        .where(sa.or_(ranked.c.place == 1, ranked.c.state == _RUNNING))
        .order_by(ranked.c.start_time.desc(), ranked.c.session_id)
    )
    found = NewestRuns([], {}, {})
    for row in store.read(lambda conn: conn.execute(query).all()):
        run = _row(row, now, stuck_seconds)
        if row.state == _RUNNING:
            found.running.append(run)
            continue
        found.finished.setdefault(run.source_ip, run)
        if row.state == _COMPLETED:
            found.completed[run.source_ip] = run
    return found


def _row(row: sa.Row[Any], now: datetime, stuck_seconds: float) -> RunRow:
    held: dict[str, Any] = {name: getattr(row, name) for name in _STORED}
    for name in _STORED:
        if name.startswith("total_"):
            held[name] = held[name] or 0
    running = row.status == "RUNNING"
    # Rows of the earlier script have no heartbeat: their start is the last sign of life.
    sign = row.heartbeat_at or row.start_time
    age = (now - sign).total_seconds() if running and sign is not None else None
    until = row.end_time or (now if running else row.heartbeat_at)
    seconds = None
    if row.start_time is not None and until is not None:
        seconds = round(max(0.0, (until - row.start_time).total_seconds()), 3)
    records = held["total_records_processed"]
    return RunRow(
        session_id=str(row.session_id),
        stuck=age is not None and age > stuck_seconds,
        duration_seconds=seconds,
        heartbeat_age_seconds=None if age is None else round(max(0.0, age), 3),
        records_per_second=round(records / seconds, 1) if records and seconds else None,
        ipfs_success_rate=round(held["total_ipfs_success"] * 100 / records, 2) if records else None,
        **held,
    )


@dataclass(frozen=True)
class Trend:
    """What several runs say together."""

    runs: int
    completed: int
    failed: int
    interrupted: int
    running: int
    success_rate: float | None
    """Per cent of the finished runs that completed."""
    median_duration_seconds: float | None
    median_records_per_second: float | None
    rates: list[float | None]
    """Records a second of each finished run, the oldest first; None where it had none."""


def trend(runs: Sequence[RunRow]) -> Trend:
    """Sum up runs (the newest first, as `list_runs` gives them)."""
    finished = [run for run in runs if not run.running]
    completed = [run for run in finished if run.status == "COMPLETED"]
    seconds = [r.duration_seconds for r in completed if r.duration_seconds is not None]
    rates = [r.records_per_second for r in completed if r.records_per_second is not None]
    return Trend(
        runs=len(runs),
        completed=len(completed),
        failed=sum(run.status == "FAILED" for run in finished),
        interrupted=sum(run.status == "INTERRUPTED" for run in finished),
        running=len(runs) - len(finished),
        success_rate=round(len(completed) * 100 / len(finished), 2) if finished else None,
        median_duration_seconds=round(median(seconds), 3) if seconds else None,
        median_records_per_second=round(median(rates), 1) if rates else None,
        rates=[run.records_per_second for run in reversed(finished)],
    )
