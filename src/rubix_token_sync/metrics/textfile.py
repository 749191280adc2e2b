"""A file for node_exporter's textfile collector."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.metrics.endpoint import extra_missing
from rubix_token_sync.metrics.families import PREFIX, outcome_families

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from rubix_token_sync.audit.questions import OpenFindings
    from rubix_token_sync.monitor.problems import Problem
    from rubix_token_sync.runs.result import RunResult

__all__ = ["write_textfile"]


class _Collected:
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def write_textfile(
    path: Path,
    source: str,
    exit_code: int,
    outcome: RunResult | None,
    problems: Sequence[Problem] = (),
    findings: OpenFindings | None = None,
    kinds: Mapping[str, int] | None = None,
) -> None:
    """Write the last run's numbers, atomically; ``outcome`` None: it failed.

    The time of the last success outlives failures: it is taken over from the file.

    Raises:
        SettingsError: the file cannot be written, or the extra ``metrics`` is missing.
    """
    try:
        from prometheus_client import CollectorRegistry, write_to_textfile
    except ImportError as error:
        raise extra_missing() from error
    now = time.time()
    completed = outcome is not None and outcome.status == "COMPLETED"
    success = now if completed else _last_success(path)
    registry = CollectorRegistry()
    families = outcome_families(source, now, success, exit_code, outcome, problems, findings, kinds)
    registry.register(_Collected(list(families)))
    try:
        write_to_textfile(str(path), registry)
    except OSError as error:
        raise SettingsError(
            f"The metrics file {path} cannot be written: {error.strerror or error}.",
            code="metrics_unwritable",
            remedy="Choose another file by --metrics-file; the sync itself is complete.",
        ) from error


def _last_success(path: Path) -> float | None:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        text = path.read_text(encoding="utf-8")
        for family in text_string_to_metric_families(text):
            if family.name == f"{PREFIX}last_success_timestamp_seconds":
                return float(family.samples[0].value)
    except (OSError, ValueError, IndexError):  # no file yet, or not one of ours
        return None
    return None
