"""How it stands: facts from the target, and what `problems.judge` says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from rubix_token_sync.audit.questions import OpenFindings, open_findings
from rubix_token_sync.monitor.answers import Answers
from rubix_token_sync.monitor.changes import LastChanges, last_changes
from rubix_token_sync.monitor.databases import DatabaseRow, list_databases, unread_directories
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.monitor.problems import Facts, Problem, Rules, judge, worst
from rubix_token_sync.monitor.runs import STUCK_SECONDS, NewestRuns, RunRow, newest_runs
from rubix_token_sync.records.kinds import KINDS

__all__ = ["SourceRow", "Status", "read_status"]


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
    databases_pending: int
    record_count: int
    ipfs_success_count: int
    ipfs_fail_count: int
    ipfs_success_rate: float | None
    validation_error_count: int
    rejected_count: int
    changes: LastChanges | None = None
    """What the newest completed sync changed; None: none since history began."""


@dataclass(frozen=True)
class Status:
    """How it stands."""

    server_time: datetime
    problems: list[Problem]
    running: list[RunRow]
    sources: list[SourceRow]
    databases: list[DatabaseRow]
    audit: OpenFindings | None = None
    """What the audit left open, over all sources; None: there was none yet."""

    @property
    def records_by_kind(self) -> dict[str, int]:
        """Live records by ``token_kind``, as the databases' last runs counted them."""
        total: Counter[str] = Counter()
        for row in self.databases:
            total.update(row.kinds)
        return {kind.name: total[kind.name] for kind in KINDS if total[kind.name]}

    @property
    def exit_code(self) -> int:
        """1 where a problem is an error, else 0."""
        return worst(self.problems)

    @property
    def ok(self) -> bool:
        """Nothing is wrong; there may be warnings."""
        return self.exit_code == 0


def read_status(
    store: Answers,
    filters: Filters,
    now: datetime,
    *,
    stuck_seconds: float = STUCK_SECONDS,
    rules: Rules | None = None,
) -> Status:
    """Runs under way, every source and database, and what is wrong.

    Looks at sessions, marks and errors, and at those records only that have no content.
    """
    rules = rules or Rules()
    runs = newest_runs(store, now, sources=filters.sources, stuck_seconds=stuck_seconds)
    databases = list_databases(store, replace(filters, since=None), now, max_age=rules.max_age)
    changes = last_changes(store, filters.sources)
    sources = _sources(runs, databases, changes, now)
    unread = unread_directories(store, replace(filters, since=None, nodes=()), now)
    facts = Facts(runs.running, sources, databases, unread)
    audit = store.read(lambda conn: open_findings(conn, store.tables, now))
    return Status(now, judge(facts, rules), runs.running, sources, databases, audit)


def _sources(
    runs: NewestRuns,
    databases: Sequence[DatabaseRow],
    changes: Mapping[str, LastChanges],
    now: datetime,
) -> list[SourceRow]:
    running = {run.source_ip: run for run in reversed(runs.running)}
    names = {*running, *runs.finished, *(d.source_ip for d in databases)}
    rows = []
    for name in sorted(names):
        run, success = runs.finished.get(name), runs.completed.get(name)
        mine = [d for d in databases if d.source_ip == name]
        records = sum(d.record_count for d in mine)
        content = sum(d.ipfs_success_count for d in mine)
        ended = success.end_time if success else None
        known = run or running.get(name)
        rows.append(
            SourceRow(
                source_ip=name,
                host=known.host if known else None,
                last_run=run,
                last_success_at=ended,
                age_seconds=None
                if ended is None
                else round(max(0.0, (now - ended).total_seconds()), 3),
                databases=len(mine),
                databases_failed=sum(d.state == "failed" for d in mine),
                databases_pending=sum(d.state == "pending" for d in mine),
                record_count=records,
                ipfs_success_count=content,
                ipfs_fail_count=sum(d.ipfs_fail_count for d in mine),
                ipfs_success_rate=round(content * 100 / records, 2) if records else None,
                validation_error_count=sum(d.validation_error_count for d in mine),
                rejected_count=sum(d.rejected_count for d in mine),
                changes=changes.get(name),
            )
        )
    return rows
