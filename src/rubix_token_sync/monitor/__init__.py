"""Questions to the target: what runs, ran, is up to date, failed.

Read only.  Every statement is SQLAlchemy core on `store.tables`, so it runs on
SQLite, PostgreSQL and Azure SQL alike.  Ages and 'stuck' are by the target's
clock, never by this machine's.

`runs` answers about sessions, `databases` about nodes, `failures` about errors;
`health` puts them together, `problems` decides what of it somebody must look at;
`export` writes every error to a file.
"""

from __future__ import annotations

from rubix_token_sync.monitor.databases import DatabaseRow, list_databases
from rubix_token_sync.monitor.failures import FailureReport, failure_report
from rubix_token_sync.monitor.filters import Filters, parse_age
from rubix_token_sync.monitor.health import Status, read_status
from rubix_token_sync.monitor.problems import Problem, Rules
from rubix_token_sync.monitor.runs import RunRow, Trend, list_runs, trend

__all__ = [
    "DatabaseRow",
    "FailureReport",
    "Filters",
    "Problem",
    "Rules",
    "RunRow",
    "Status",
    "Trend",
    "failure_report",
    "list_databases",
    "list_runs",
    "parse_age",
    "read_status",
    "trend",
]
