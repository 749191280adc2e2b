"""An HTTP endpoint that Prometheus asks while a run is under way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.installation import extra_command
from rubix_token_sync.metrics.families import progress_families
from rubix_token_sync.runs.progress import Progress

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["MetricsEndpoint"]


class MetricsEndpoint:
    """Bound from the first moment, so that a clash of ports stops a run before it starts.

    A context: leaving it closes the port.  Numbers are taken from the run's own
    counters at the moment somebody asks; there are no second ones.
    """

    def __init__(self, address: str, port: int, source: str) -> None:
        """
        Raises:
            SettingsError: the port is taken, or the extra ``metrics`` is missing.
        """
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError as error:
            raise extra_missing() from error
        self._source = source
        self._progress: Progress | None = None
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, address, registry)
        except OSError as error:
            raise SettingsError(
                f"Metrics cannot be served on {address}:{port}: {error.strerror or error}.",
                code="metrics_port_taken",
                remedy="Choose another port by --metrics-port; each run needs its own.",
            ) from error
        self.port: int = self._server.server_port

    def observe(self, progress: Progress) -> None:
        """From now on these counters are shown."""
        self._progress = progress

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client for each request."""
        return progress_families(self._source, self._progress)

    def close(self) -> None:
        """Give the port back."""
        self._server.shutdown()
        self._server.server_close()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> MetricsEndpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def extra_missing() -> SettingsError:
    """The error of a program without prometheus_client."""
    return SettingsError(
        "Metrics need the package prometheus-client.",
        code="extra_missing",
        remedy=f"Run: {extra_command('metrics')}",
    )
