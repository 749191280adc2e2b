"""The JSON report of a run.  Its keys are a contract: docs/REPORT.md, tests/reports."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from rubix_token_sync import __version__, failpoints
from rubix_token_sync.errors import SettingsError, SyncError
from rubix_token_sync.nodes.keep_out import keep_out
from rubix_token_sync.runs.result import RunResult

__all__ = ["REPORT_VERSION", "build_report", "prepare_directory", "write_report"]

REPORT_VERSION: Final = 1


def _rate(part: int, whole: int) -> float:
    """Per cent with two decimals; of nothing, all."""
    return round(part * 100 / whole, 2) if whole else 100.0


def _time(value: datetime) -> str:
    return value.isoformat(timespec="milliseconds") + "Z"


def build_report(outcome: RunResult) -> dict[str, Any]:
    """Everything a run did, as plain JSON values.

    Counts of records and contents are those that the target itself counted when
    each database was marked; rates are per cent; times are UTC.
    """
    counters = outcome.counters
    stored = counters.inserted + counters.updated + counters.vanished
    return {
        "report_version": REPORT_VERSION,
        "program_version": __version__,
        "command": outcome.options.command,
        "dry_run": outcome.options.dry_run,
        "session_id": outcome.session_id,
        "source_ip": outcome.options.source,
        "target": outcome.place,
        "status": outcome.status,
        "exit_code": outcome.exit_code,
        "start_time": _time(outcome.started_at),
        "end_time": _time(outcome.started_at + timedelta(seconds=outcome.seconds)),
        "duration_seconds": round(outcome.seconds, 3),
        "total_databases_found": counters.databases_found,
        "total_databases_processed": counters.databases_processed,
        "total_databases_unchanged": counters.databases_current,
        "total_databases_failed": counters.databases_failed,
        "total_records_processed": counters.records_processed,
        "records_per_second": round(counters.records_processed / outcome.seconds, 1)
        if outcome.seconds
        else 0.0,
        "tokens_read": counters.tokens_read,
        "records_inserted": counters.inserted,
        "records_updated": counters.updated,
        "records_vanished": counters.vanished,
        "records_rejected": counters.rejected,
        "total_ipfs_success": counters.ipfs_success,
        "total_ipfs_failures": counters.ipfs_failures,
        "ipfs_success_rate": _rate(
            counters.ipfs_success, counters.ipfs_success + counters.ipfs_failures
        ),
        "content_by_way": dict(sorted(counters.content_via.items())),
        "content_failures": dict(sorted(counters.content_failures.items())),
        "content_healed": counters.healed,
        "total_validation_errors": counters.validation_errors,
        "sql_success_rate": _rate(stored, stored + counters.rejected),
        "total_sql_errors": counters.sql_errors,
        "sql_batches": counters.batches,
        "sql_bulk_loads": counters.bulk_loads,
        "sql_retries": counters.retries,
        "throttled_seconds": round(outcome.throttled_seconds, 3),
        "rate_samples": counters.curve.samples(),
        "dead_sessions_found": outcome.dead_sessions,
        "databases": [asdict(database) for database in outcome.databases],
        "skipped": [asdict(skipped) for skipped in outcome.discovery.skipped],
        "errors": [asdict(entry) for entry in outcome.errors],
    }


def prepare_directory(directory: Path) -> None:
    """Make sure before a run that its report can be written after it.

    Raises:
        SettingsError: the directory is inside a node's, or cannot be written.
    """
    keep_out(directory, "The report")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise SettingsError(
            f"Reports cannot be written to {directory}: {error.strerror or error}.",
            code="report_unwritable",
            remedy="Choose another directory by --report.",
        ) from error


def write_report(report: dict[str, Any], directory: Path) -> Path:
    """Write the report atomically; a reader never sees half of it.

    Raises:
        SyncError: it cannot be written (exit 1: the sync itself is complete).
    """
    stamp = report["start_time"].replace("-", "").replace(":", "").split(".")[0]
    name = f"sync_report_{stamp}Z_{(report['session_id'] or 'dry-run')[:8]}.json"
    path = directory / name
    temporary = path.with_suffix(".tmp")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        failpoints.point("report.write")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(report, file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            failpoints.point("report.fsync")
            os.fsync(file.fileno())
        failpoints.point("report.rename")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise SyncError(
            f"The report {path} cannot be written: {error.strerror or error}.",
            code="report_unwritable",
            remedy="Choose another directory by --report; the sync itself is complete.",
        ) from error
    return path
