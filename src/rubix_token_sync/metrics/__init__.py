"""Numbers for Prometheus: an endpoint during a run, a textfile after it."""

from __future__ import annotations

from rubix_token_sync.metrics.endpoint import MetricsEndpoint
from rubix_token_sync.metrics.textfile import write_textfile

__all__ = ["MetricsEndpoint", "write_textfile"]
