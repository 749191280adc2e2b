"""`--events`: what happens, as JSON Lines on stdout, for programs that look on."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.output import print_json_line

if TYPE_CHECKING:
    from rubix_token_sync import (
        AuditOutcome,
        DatabaseOutcome,
        Difference,
        Finding,
        Problem,
        Progress,
        SyncResult,
        VerifyResult,
    )

__all__ = [
    "EventObserver",
    "emit",
    "ended_audit",
    "ended_sync",
    "ended_verify",
    "failed",
    "interrupted",
    "started",
]

_PROGRESS_SECONDS: Final = 1.0
_OF_A_PROBLEM: Final = (
    "code", "severity", "message", "cure", "node_name", "db_path", "detail", "count",
)  # fmt: skip


def emit(event: str, **fields: Any) -> None:
    """One line, at once: whoever reads must not wait for a buffer to fill."""
    now = datetime.now(UTC).replace(tzinfo=None)
    print_json_line({"event": event, "time": now, **fields})
    sys.stdout.flush()


def started(command: str, configuration: rts.Configuration, *, as_json: bool) -> None:
    """The first line.

    Raises:
        UsageError: ``--json`` was given as well.
    """
    if as_json:
        raise click.UsageError("Give --json or --events, not both.")
    source = configuration.settings.source_ip
    emit("started", command=command, source_ip=source, target=rts.redact(configuration.chosen))


class EventObserver(rts.Observer):
    """Writes what a `sync` or `verify` does, while it does it."""

    def __init__(self) -> None:
        self._last = 0.0

    def on_progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last < _PROGRESS_SECONDS or not progress.weights:
            return
        self._last = now
        counters = progress.counters
        emit(
            "progress",
            share=round(progress.share, 4),
            records=progress.so_far()[0],
            databases=counters.databases_processed + counters.databases_failed,
        )

    def on_difference(self, difference: Difference) -> None:
        emit("difference", **asdict(difference))

    def on_database(self, database: DatabaseOutcome) -> None:
        emit("database", **asdict(database))


def ended_sync(result: SyncResult, report_file: str | None) -> int:
    """The last lines of a `sync` or `retry-failed`; its exit code."""
    counters = asdict(result.counters)
    numbers = {name: value for name, value in counters.items() if isinstance(value, int)}
    _problems(result.problems)
    return _ended(result.exit_code, result.seconds, numbers, report_file)


def ended_verify(result: VerifyResult) -> int:
    """The last lines of a `verify`; its exit code."""
    numbers = {"records": result.records, "databases": result.databases}
    for letter, name in (("+", "new"), ("-", "vanished"), ("*", "changed"), ("c", "content")):
        numbers[name] = result.differences[letter]
    _problems(result.problems)
    return _ended(result.exit_code, result.seconds, numbers, None)


def ended_audit(done: AuditOutcome, found: Iterable[Finding]) -> int:
    """The last lines of an `audit`; its exit code."""
    for rule in done.rules:
        emit(
            "rule",
            rule=rule.rule,
            severity=rule.severity,
            state=rule.state,
            findings=rule.findings,
            not_looked_at=rule.not_looked_at,
        )
    for finding in found:
        emit(
            "finding",
            fingerprint=finding.fingerprint,
            rule=finding.rule,
            severity=finding.severity,
            state=finding.state,
            token_id=finding.token_id,
            nodes=sorted({row.node_name or "" for row in finding.evidence}),
        )
    return _ended(done.exit_code, done.seconds, dict(done.open), None)


def failed(failure: rts.Failure) -> None:
    """The last lines of a command that failed."""
    emit(
        "error",
        code=failure.code,
        category=failure.category,
        message=rts.redact(failure.message),
        remedy=rts.redact(failure.remedy),
    )
    _ended(failure.exit_code, None, {}, None)


def interrupted(exit_code: int) -> None:
    """The last line of a command that was stopped before there was anything to report."""
    _ended(exit_code, None, {}, None)


def _problems(problems: Iterable[Problem]) -> None:
    for problem in problems:
        emit("problem", **{name: getattr(problem, name) for name in _OF_A_PROBLEM})


def _ended(
    exit_code: int, seconds: float | None, numbers: dict[str, int], report_file: str | None
) -> int:
    emit(
        "ended",
        ok=exit_code == 0,
        exit_code=exit_code,
        seconds=None if seconds is None else round(seconds, 3),
        numbers=numbers,
        report_file=report_file,
    )
    return exit_code
