"""Names and meanings of the metrics; documented in docs/METRICS.md, held together by a test.

Base units, ``_total`` for what only grows, one prefix: Prometheus's conventions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Final

from rubix_token_sync.text import shown

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from rubix_token_sync.audit.questions import OpenFindings
    from rubix_token_sync.monitor.problems import Problem
    from rubix_token_sync.runs.progress import Progress
    from rubix_token_sync.runs.result import DatabaseOutcome, RunResult

__all__ = ["PREFIX", "outcome_families", "progress_families"]

PREFIX: Final = "rubix_sync_"

_COUNTERS: Final = {
    "tokens_read": ("tokens_read", "Rows read from the nodes in this run."),
    "records_inserted": ("inserted", "New records stored in this run."),
    "records_updated": ("updated", "Changed records stored in this run."),
    "records_vanished": ("vanished", "Records marked as gone from their node in this run."),
    "records_rejected": ("rejected", "Records that the target refused in this run."),
    "sql_batches": ("batches", "Batches written in this run."),
    "sql_bulk_loads": ("bulk_loads", "Bulk loads in this run."),
    "sql_retries": ("retries", "Attempts at the target repeated in this run."),
    "content_healed": ("healed", "Damaged blocks whose content came from elsewhere in this run."),
}
"""Metric (without prefix and ``_total``) → field of `Counters`, meaning."""

_DATABASES: Final = {
    "found": "databases_found",
    "processed": "databases_processed",
    "unchanged": "databases_current",
    "failed": "databases_failed",
}


def progress_families(source: str, progress: Progress | None) -> Iterator[Metric]:
    """A run under way."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    from rubix_token_sync.runs.progress import Progress

    now = progress if progress is not None else Progress()
    counters = now.counters
    labels, values = ["source"], [source]
    up = GaugeMetricFamily(PREFIX + "up", "1 while a run is under way.", labels=labels)
    up.add_metric(values, 1)
    yield up
    share = GaugeMetricFamily(PREFIX + "progress_ratio", "How far the run is.", labels=labels)
    share.add_metric(values, now.share if progress is not None else 0.0)
    yield share
    for name, (field, meaning) in _COUNTERS.items():
        family = CounterMetricFamily(PREFIX + name, meaning, labels=labels)
        family.add_metric(values, getattr(counters, field))
        yield family
    databases = GaugeMetricFamily(
        PREFIX + "databases", "Databases of this run by state.", labels=[*labels, "state"]
    )
    for state, field in _DATABASES.items():
        databases.add_metric([source, state], getattr(counters, field))
    yield databases
    yield _by(
        source, "content_resolved", "way", "Contents got in this run.", dict(counters.content_via)
    )
    yield _by(
        source,
        "content_failures",
        "reason",
        "Contents that could not be got in this run.",
        dict(counters.content_failures),
    )


def _by(source: str, name: str, label: str, meaning: str, counts: Mapping[str, int]) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(PREFIX + name, meaning, labels=["source", label])
    for key, count in sorted(counts.items()):
        family.add_metric([source, key], count)
    return family


def outcome_families(
    source: str,
    ended_at: float,
    success_at: float | None,
    exit_code: int,
    outcome: RunResult | None,
    problems: Sequence[Problem] = (),
    findings: OpenFindings | None = None,
    kinds: Mapping[str, int] | None = None,
) -> Iterator[Metric]:
    """A run that is over; ``outcome`` None: it failed.  Times are Unix seconds.

    ``kinds`` are the live records by kind of token, ``findings`` what the target's last audit
    left open; None: nobody asked the target.
    """
    from prometheus_client.core import GaugeMetricFamily

    def gauge(name: str, meaning: str, value: float) -> Metric:
        family = GaugeMetricFamily(PREFIX + name, meaning, labels=["source"])
        family.add_metric([source], value)
        return family

    yield gauge("last_run_timestamp_seconds", "When the last run ended.", ended_at)
    yield gauge("last_run_exit_code", "Exit code of the last run.", exit_code)
    if success_at is not None:
        yield gauge(
            "last_success_timestamp_seconds", "When the last completed run ended.", success_at
        )
    if outcome is None:
        return
    counters = outcome.counters
    yield gauge("last_run_duration_seconds", "How long the last run took.", outcome.seconds)
    for name, (field, meaning) in _COUNTERS.items():
        meaning = meaning.replace("in this run", "in the last run")
        yield gauge(f"last_run_{name}", meaning, getattr(counters, field))
    databases = GaugeMetricFamily(
        PREFIX + "last_run_databases",
        "Databases of the last run by state.",
        labels=["source", "state"],
    )
    for state, field in _DATABASES.items():
        databases.add_metric([source, state], getattr(counters, field))
    yield databases
    failures = GaugeMetricFamily(
        PREFIX + "last_run_content_failures",
        "Contents that could not be got in the last run.",
        labels=["source", "reason"],
    )
    for reason, count in sorted(counters.content_failures.items()):
        failures.add_metric([source, reason], count)
    yield failures
    severities = GaugeMetricFamily(
        PREFIX + "problems",
        "Problems after the last run by severity (docs/RELIABILITY.md).",
        labels=["source", "severity"],
    )
    for severity in ("error", "warning"):
        found = sum(problem.severity == severity for problem in problems)
        severities.add_metric([source, severity], found)
    yield severities
    if kinds is not None:
        held = GaugeMetricFamily(
            PREFIX + "records",
            "Records that the target holds of the source by kind of token.",
            labels=["source", "kind"],
        )
        for kind, count in kinds.items():
            held.add_metric([source, kind], count)
        yield held
    if findings is not None:
        yield from _of_audit(source, findings)
    for name, meaning, attribute in (
        ("node_records", "Records of the node.", "records"),
        ("node_records_with_content", "Records of the node with content.", "ipfs_success"),
        ("node_records_invalid", "Records with validation errors.", "validation_errors"),
    ):
        family = GaugeMetricFamily(PREFIX + name, meaning, labels=["source", "node", "db_path"])
        for node in outcome.databases:
            family.add_metric(_of(source, node), getattr(node, attribute))
        yield family
    failed = GaugeMetricFamily(
        PREFIX + "node_failed",
        "1 where the last run could not process the node's database.",
        labels=["source", "node", "db_path"],
    )
    for node in outcome.databases:
        failed.add_metric(_of(source, node), node.status in ("failed", "missing", "pending"))
    yield failed


def _of(source: str, node: DatabaseOutcome) -> list[str]:
    """Values of the labels: a node's names may hold anything, and end up on terminals and pages."""
    return [source, shown(node.node_name), shown(node.db_path)]


def _of_audit(source: str, findings: OpenFindings) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    found = GaugeMetricFamily(
        PREFIX + "findings",
        "Open findings of the target's last audit by severity, of all machines.",
        labels=["source", "severity"],
    )
    for severity, number in (
        ("error", findings.errors), ("warning", findings.warnings), ("info", findings.infos),
    ):  # fmt: skip
        found.add_metric([source, severity], number)
    yield found
    began = GaugeMetricFamily(
        PREFIX + "last_audit_timestamp_seconds",
        "When the target's last audit began.",
        labels=["source"],
    )
    began.add_metric([source], findings.last_audit_at.replace(tzinfo=UTC).timestamp())
    yield began
    complete = GaugeMetricFamily(
        PREFIX + "last_audit_complete",
        "1 where every rule of the target's last audit ran.",
        labels=["source"],
    )
    complete.add_metric([source], findings.complete)
    yield complete
