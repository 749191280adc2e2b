"""The JSON report of a run.  Its keys are a contract: docs/REPORT.md, tests/reports."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from rubix_token_sync import __version__, failpoints
from rubix_token_sync.audit.questions import Finding
from rubix_token_sync.errors import SettingsError, SyncError
from rubix_token_sync.monitor.health import Status
from rubix_token_sync.monitor.problems import Problem
from rubix_token_sync.nodes.keep_out import keep_out
from rubix_token_sync.runs.result import RunResult
from rubix_token_sync.text import json_text

__all__ = ["REPORT_VERSION", "build_report", "prepare_directory", "write_report", "write_whole"]

REPORT_VERSION: Final = 1

_OF_A_FINDING: Final = ("fingerprint", "severity", "state", "token_id", "says", "cure")
_MOST_NODES: Final = 20


def _rate(part: int, whole: int) -> float:
    """Per cent with two decimals; of nothing, all."""
    return round(part * 100 / whole, 2) if whole else 100.0


def _time(value: datetime) -> str:
    return value.isoformat(timespec="milliseconds") + "Z"


def build_report(
    outcome: RunResult,
    held: Status | None = None,
    problems: Sequence[Problem] = (),
    findings: Sequence[Finding] = (),
) -> dict[str, Any]:
    """Everything a run did and how it left the target, as plain JSON values.

    ``held`` is what the target says of the source after the run: totals of records and
    contents are its own, whether a database was read or not.  ``findings`` are the worst that
    are open.  Times, duration and rate are those of the session, as the target has them.  Rates
    are per cent; times are UTC.
    """
    counters = outcome.counters
    ended, seconds = _session_times(outcome, held)
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
        "start_time": _time(ended - timedelta(seconds=seconds)),
        "end_time": _time(ended),
        "duration_seconds": round(seconds, 3),
        "total_databases_found": counters.databases_found,
        "total_databases_processed": counters.databases_processed,
        "total_databases_unchanged": counters.databases_current,
        "total_databases_failed": counters.databases_failed,
        "total_records_processed": counters.records_processed,
        "records_per_second": round(counters.records_processed / seconds, 1) if seconds else 0.0,
        "tokens_read": counters.tokens_read,
        "records_inserted": counters.inserted,
        "records_updated": counters.updated,
        "records_vanished": counters.vanished,
        "records_rejected": counters.rejected,
        "companion_tables": {
            name: asdict(counts) for name, counts in sorted(counters.companions.items())
        },
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
        "rate_samples": _since_start(counters.curve.samples(), outcome.seconds - seconds),
        "dead_sessions_found": outcome.dead_sessions,
        "databases": [asdict(database) for database in outcome.databases],
        "skipped": [asdict(skipped) for skipped in outcome.discovery.skipped],
        "errors": [asdict(entry) for entry in outcome.errors],
        "problems": [asdict(problem) for problem in problems],
        "audit": _audit(held),
        "findings": [
            {
                **{name: getattr(one, name) for name in _OF_A_FINDING},
                "nodes": sorted({evidence.node_name for evidence in one.evidence})[:_MOST_NODES],
            }
            for one in findings
        ],
        **_holdings(held),
        "changes": _changes(outcome, held),
    }


def _audit(held: Status | None) -> dict[str, Any] | None:
    """What is open by the target's last audit; None: there was none, or nobody knows."""
    last = held.audit if held is not None else None
    if last is None:
        return None
    return {
        "number": last.last_audit_number,
        "time": _time(last.last_audit_at),
        "complete": last.complete,
        "errors": last.errors,
        "warnings": last.warnings,
        "infos": last.infos,
    }


def _since_start(samples: list[dict[str, float]], earlier: float) -> list[dict[str, float]]:
    """The samples by the session's clock, which begins ``earlier`` seconds after the run's."""
    return [
        {**sample, "seconds": round(max(0.0, sample["seconds"] - max(0.0, earlier)), 3)}
        for sample in samples
    ]


def _session_times(outcome: RunResult, held: Status | None) -> tuple[datetime, float]:
    """End and duration, as the session's row has them where there is one."""
    runs = [source.last_run for source in held.sources] if held is not None else []
    for run in runs:
        if run is not None and run.session_id == outcome.session_id and run.end_time is not None:
            return run.end_time, run.duration_seconds or 0.0
    return outcome.started_at + timedelta(seconds=outcome.seconds), outcome.seconds


def _holdings(held: Status | None) -> dict[str, Any]:
    """What the target holds of the source: null where it was not asked (a dry run)."""
    names = ("total_records", "total_records_with_content", "total_records_invalid")
    if held is None:
        return {**dict.fromkeys(names), "records_by_kind": None, "missing_content": None}
    missing: Counter[str] = Counter()
    for row in held.databases:
        missing.update(row.content_failures)
    counts = (
        sum(source.record_count for source in held.sources),
        sum(source.ipfs_success_count for source in held.sources),
        sum(source.validation_error_count for source in held.sources),
    )
    return {
        **dict(zip(names, counts, strict=True)),
        "records_by_kind": held.records_by_kind,
        "missing_content": dict(sorted(missing.items())),
    }


def _changes(outcome: RunResult, held: Status | None) -> dict[str, Any] | None:
    """What this sync changed, beside the ones before; null where the target does not say it."""
    for source in held.sources if held is not None else ():
        changes = source.changes
        if changes is not None and changes.session_id == outcome.session_id:
            values = asdict(changes)
            del values["session_id"], values["ended_at"]
            for node in values["nodes"]:
                del node["run"], node["at"], node["new"]
            return values
    return None


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
    return write_whole(directory / name, json_text(report) + "\n")


def write_whole(path: Path, text: str) -> Path:
    """Write a file of a report, which has its name when all of it is on the disk.

    Raises:
        SyncError: it cannot be written (exit 1: the sync itself is complete).
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        failpoints.point("report.write")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
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
