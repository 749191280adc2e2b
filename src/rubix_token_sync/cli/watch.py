"""Who looks at a run while it works and hears how it ended: metrics and alerts.

Both load only where they are asked for.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import click

from rubix_token_sync.cli.options import Common, store_options
from rubix_token_sync.errors import SettingsError, SyncError
from rubix_token_sync.log import log_event

if TYPE_CHECKING:
    from rubix_token_sync.alerts import AlertDesk, RunFacts
    from rubix_token_sync.metrics import MetricsEndpoint
    from rubix_token_sync.runs.progress import Progress
    from rubix_token_sync.runs.result import RunOptions, RunResult
    from rubix_token_sync.settings import Settings

__all__ = ["Watch", "metrics_options", "open_desk"]

_LOG = logging.getLogger(__name__)

metrics_options = [
    click.option(
        "--metrics-port",
        type=int,
        metavar="N",
        help="Serve metrics to Prometheus there during the run.",
    ),
    click.option("--metrics-address", metavar="HOST", help="Address of that port."),
    click.option(
        "--metrics-file",
        metavar="FILE",
        help="Write metrics there after the run, for node_exporter.",
    ),
]
"""Flags of `sync` and `retry-failed`."""


class Watch:
    """A context around a run.  What it does afterwards never changes how the run ended.

    Entering binds the port of metrics and looks at every address of alerts: what is
    wrong there is said before any work.
    """

    def __init__(self, common: Common, run: RunOptions) -> None:
        self._common = common
        self._settings = common.settings
        self._run = run
        self._endpoint: MetricsEndpoint | None = None
        self._desk: AlertDesk | None = None

    def __enter__(self) -> Watch:
        settings = self._settings
        if self._run.dry_run:
            return self
        if settings.metrics_file is not None:
            _check_metrics_file(settings.metrics_file)
        self._desk = open_desk(settings, settings.source_ip)
        if settings.metrics_port is not None:
            from rubix_token_sync.metrics import MetricsEndpoint

            self._endpoint = MetricsEndpoint(
                settings.metrics_address, settings.metrics_port, settings.source_ip
            )
        return self

    def over(self, show: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """``show``, and the metrics as well."""
        endpoint = self._endpoint
        if endpoint is None:
            return show

        def observe(progress: Progress) -> None:
            endpoint.observe(progress)
            show(progress)

        return observe

    def done(self, outcome: RunResult) -> None:
        """The run ended by itself or was interrupted."""
        if self._run.dry_run:
            return
        self._write_metrics(outcome.exit_code, outcome)
        if self._desk is None:
            return
        if outcome.status == "COMPLETED":
            self._desk.beat()
            if self._desk.active:
                self._tell(self._desk, outcome)

    def _tell(self, desk: AlertDesk, outcome: RunResult) -> None:
        from rubix_token_sync.alerts import alerts_of_run

        try:
            facts = self._facts(desk, outcome)
        except SyncError as error:
            log_event(
                _LOG, logging.WARNING, "alerts_not_judged",
                f"The target could not be asked what there is to alert of: {error}",
            )  # fmt: skip
            return
        desk.tell(alerts_of_run(facts), records=facts.records)
        counters = outcome.counters
        desk.tell_success(
            f"Rubix sync, {outcome.options.source}: completed",
            f"{counters.databases_processed} databases processed, "
            f"{counters.databases_current} unchanged, {counters.databases_failed} failed; "
            f"{counters.inserted:,} new records, {counters.updated:,} changed, "
            f"{counters.vanished:,} gone, in {outcome.seconds:.1f} s.",
        )

    def _facts(self, desk: AlertDesk, outcome: RunResult) -> RunFacts:
        from rubix_token_sync.alerts import ContentFailure, RunFacts
        from rubix_token_sync.monitor import Filters, read_status
        from rubix_token_sync.monitor.databases import content_failures_of_run
        from rubix_token_sync.targets.registry import open_target

        settings, source = self._settings, outcome.options.source
        hours = settings.alert_max_age_hours
        store = open_target(self._common.target, store_options(settings, read_only=True))
        try:
            status = read_status(
                store,
                Filters(sources=(source,)),
                store.server_time(),
                max_age=None if hours is None else timedelta(hours=hours),
            )
            failures = content_failures_of_run(store, outcome.session_id or "")
        finally:
            store.close()
        return RunFacts(
            source=source,
            status=status,
            content_failures=[ContentFailure(*failure) for failure in failures],
            records_before=desk.remembered_records(),
            content_below=settings.alert_content_below,
            records_drop=settings.alert_records_drop,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._endpoint is not None:
            self._endpoint.close()
        if not isinstance(error, Exception) or self._run.dry_run:
            return
        with _harmless():
            from rubix_token_sync.alerts import alert_of_failure
            from rubix_token_sync.errors import LeaseHeld

            if isinstance(error, LeaseHeld):  # the run under way tells for itself
                return
            self._write_metrics(error.exit_code if isinstance(error, SyncError) else 1, None)
            alert = alert_of_failure(error)
            if alert is not None and self._desk is not None:
                self._desk.tell_failure(alert)

    def _write_metrics(self, exit_code: int, outcome: RunResult | None) -> None:
        if self._settings.metrics_file is None:
            return
        from rubix_token_sync.metrics import write_textfile

        path = Path(self._settings.metrics_file)
        try:
            write_textfile(path, self._settings.source_ip, exit_code, outcome)
        except SyncError as error:
            log_event(_LOG, logging.WARNING, "metrics_not_written", str(error), code=error.code)


def open_desk(settings: Settings, scope: str) -> AlertDesk | None:
    """Where alerts are told; None where nobody wants any.

    Raises:
        SettingsError: an address cannot be used.
    """
    if not (settings.alert_urls or settings.alert_urls_file or settings.heartbeat_url):
        return None
    from rubix_token_sync.alerts import AlertDesk, AlertOptions
    from rubix_token_sync.nodes.keep_out import keep_out
    from rubix_token_sync.settings.masking import masked

    if settings.state_directory is not None:
        keep_out(settings.state_directory, "The state directory")
    named = settings.target_file or masked(settings.target.get_secret_value())
    return AlertDesk(AlertOptions.of(settings), scope, named)


def _check_metrics_file(path: str) -> None:
    from rubix_token_sync.nodes.keep_out import keep_out

    keep_out(path, "The metrics file")
    if importlib.util.find_spec("prometheus_client") is None:
        from rubix_token_sync.metrics.endpoint import extra_missing

        raise extra_missing()
    directory = Path(path).absolute().parent
    if not os.access(directory, os.W_OK | os.X_OK):
        raise SettingsError(
            f"The metrics file {path} cannot be written: its directory is missing or closed.",
            code="metrics_unwritable",
            remedy="Make the directory, or choose another file by --metrics-file.",
        )


@contextlib.contextmanager
def _harmless() -> Iterator[None]:
    """Whatever fails in telling of a failure must not hide that failure."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the run's own error is on its way out
        log_event(
            _LOG, logging.WARNING, "alert_failed",
            f"The failure could not be told: {type(error).__name__}: {error}",
        )  # fmt: skip
