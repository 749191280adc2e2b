"""The observers that come with the program: report, metrics, alerts.

Each of them says before the run what is wrong with itself, and changes nothing about how
the run ends, but for a report that cannot be written (exit 1).
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rubix_token_sync.audit.findings import OPEN
from rubix_token_sync.audit.questions import SUPPRESSED
from rubix_token_sync.errors import LeaseHeld, SettingsError, SyncError
from rubix_token_sync.library.configuration import Configuration
from rubix_token_sync.library.observers import Observer
from rubix_token_sync.library.results import SyncResult, VerifyResult
from rubix_token_sync.log import log_event
from rubix_token_sync.monitor.health import Status
from rubix_token_sync.nodes.keep_out import keep_out
from rubix_token_sync.reports.report import build_report, prepare_directory, write_report
from rubix_token_sync.runs.progress import Progress
from rubix_token_sync.runs.result import RunOptions, RunResult
from rubix_token_sync.text import counted

if TYPE_CHECKING:
    from rubix_token_sync.alerts import AlertDesk
    from rubix_token_sync.metrics import MetricsEndpoint

__all__ = [
    "AlertObserver",
    "MetricsEndpointObserver",
    "MetricsFileObserver",
    "ReportObserver",
    "report_of",
    "send_finding_alerts",
    "send_status_alerts",
    "watchers_of",
]

_LOG = logging.getLogger(__name__)


def watchers_of(configuration: Configuration) -> list[Observer]:
    """Metrics and alerts, where the settings ask for them."""
    settings = configuration.settings
    found: list[Observer] = []
    if settings.metrics_file is not None:
        found.append(MetricsFileObserver(settings.metrics_file))
    if settings.metrics_port is not None:
        found.append(MetricsEndpointObserver(settings.metrics_address, settings.metrics_port))
    if settings.alert_urls or settings.alert_urls_file or settings.heartbeat_url:
        found.append(AlertObserver(configuration))
    return found


def report_of(result: SyncResult | RunResult) -> dict[str, Any]:
    """The report of a run as plain JSON values; docs/REPORT.md has its keys."""
    if isinstance(result, SyncResult):
        return build_report(result, result.held, result.problems, result.findings)
    return build_report(result)


class ReportObserver(Observer):
    """Writes the JSON report of a run and its page."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory)
        self.file: Path | None = None
        """Where the report was written."""
        self.page: Path | None = None
        """Where its page was written."""

    def on_start(self, options: RunOptions) -> None:
        """
        Raises:
            SettingsError: the directory cannot be written, or belongs to a node.
        """
        if not options.dry_run:
            prepare_directory(self._directory)

    def on_end(self, result: SyncResult | VerifyResult) -> None:
        if isinstance(result, SyncResult) and not result.options.dry_run:
            self._write(report_of(result))

    def on_failure(self, error: BaseException, result: RunResult | None) -> None:
        """A run that failed leaves its report, too."""
        if result is None or self.file is not None:
            return
        try:
            self._write(report_of(result))
        except SyncError as second:  # the run's own error is on its way out
            _LOG.warning("%s", second)
        else:
            _LOG.info("Report: %s", self.file)

    def _write(self, report: dict[str, Any]) -> None:
        from rubix_token_sync.reports.page import write_page

        self.file = write_report(report, self._directory)
        self.page = write_page(report, self.file)


class MetricsFileObserver(Observer):
    """Writes a run's numbers for node_exporter's textfile collector."""

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self._file = Path(file)
        self._options: RunOptions | None = None

    def on_start(self, options: RunOptions) -> None:
        """
        Raises:
            SettingsError: the file cannot be written, or the extra ``metrics`` is missing.
        """
        if options.dry_run:
            return
        self._options = options
        keep_out(self._file, "The metrics file", "file")
        if importlib.util.find_spec("prometheus_client") is None:
            from rubix_token_sync.metrics.endpoint import extra_missing

            raise extra_missing()
        if not os.access(self._file.absolute().parent, os.W_OK | os.X_OK):
            raise SettingsError(
                f"The metrics file {self._file} cannot be written: its directory is missing or "
                "may not be written.",
                code="metrics_unwritable",
                remedy="Make the directory, or choose another file by --metrics-file.",
            )

    def on_end(self, result: SyncResult | VerifyResult) -> None:
        if isinstance(result, SyncResult):
            self._write(result.exit_code, result)

    def on_failure(self, error: BaseException, result: RunResult | None) -> None:
        if not isinstance(error, LeaseHeld):  # the run under way writes its own
            self._write(error.exit_code if isinstance(error, SyncError) else 1, None)

    def _write(self, exit_code: int, result: SyncResult | None) -> None:
        from rubix_token_sync.metrics import write_textfile

        if self._options is None:
            return
        try:
            problems = result.problems if result is not None else ()
            held = result.held if result is not None else None
            write_textfile(
                self._file, self._options.source, exit_code, result, problems,
                held.audit if held is not None else None,
                held.records_by_kind if held is not None else None,
            )  # fmt: skip
        except SyncError as error:
            log_event(_LOG, logging.WARNING, "metrics_not_written", str(error), code=error.code)


class MetricsEndpointObserver(Observer):
    """Serves a run's numbers to Prometheus while it works."""

    def __init__(self, address: str, port: int) -> None:
        self._address, self._port = address, port
        self._endpoint: MetricsEndpoint | None = None

    def on_start(self, options: RunOptions) -> None:
        """
        Raises:
            SettingsError: the port is taken, or the extra ``metrics`` is missing.
        """
        if options.dry_run:
            return
        from rubix_token_sync.metrics import MetricsEndpoint

        self._endpoint = MetricsEndpoint(self._address, self._port, options.source)

    def on_progress(self, progress: Progress) -> None:
        if self._endpoint is not None:
            self._endpoint.observe(progress)

    def close(self) -> None:
        if self._endpoint is not None:
            self._endpoint.close()


class AlertObserver(Observer):
    """Sends alerts of what is new since the run before, and says when it is over."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._desk: AlertDesk | None = None

    def on_start(self, options: RunOptions) -> None:
        """
        Raises:
            SettingsError: an address cannot be used.
        """
        if not options.dry_run:
            self._desk = _desk(self._configuration, options.source)

    def on_end(self, result: SyncResult | VerifyResult) -> None:
        if self._desk is None or not isinstance(result, SyncResult):
            return
        if result.status != "COMPLETED":
            return
        self._desk.beat()
        if self._desk.active:
            with _harmless():
                self._send(self._desk, result)
            if result.audit is not None:
                send_finding_alerts(self._configuration)

    def _send(self, desk: AlertDesk, result: SyncResult) -> None:
        from rubix_token_sync.alerts import RunFacts, alerts_of_run

        settings = self._configuration.settings
        if result.held is None:
            log_event(
                _LOG, logging.WARNING, "alerts_not_judged",
                "The target could not be read to find out what to alert about.",
            )  # fmt: skip
            return
        facts = RunFacts(
            source=result.options.source,
            status=result.held,
            records_before=desk.remembered_records(),
            content_below=settings.alert_content_below,
            records_drop=settings.alert_records_drop,
        )
        desk.send(alerts_of_run(facts), records=facts.records)
        counters = result.counters
        desk.send_success(
            f"Rubix sync, {result.options.source}: completed",
            f"{counted(counters.databases_processed, 'database')} processed, "
            f"{counters.databases_current} unchanged, {counters.databases_failed} failed; "
            f"{counters.inserted:,} new records, {counters.updated:,} changed, "
            f"{counters.vanished:,} gone, in {result.seconds:.1f} s.",
        )

    def on_failure(self, error: BaseException, result: RunResult | None) -> None:
        if self._desk is None:
            return
        from rubix_token_sync.alerts import alert_of_failure

        alert = alert_of_failure(error)
        if alert is not None:
            with _harmless():
                self._desk.send_failure(alert)


def send_status_alerts(configuration: Configuration, status: Status) -> None:
    """Send what no run can say of itself: stuck, stopped, overdue runs.

    Raises:
        SettingsError: no address is set, or one cannot be used.
    """
    from rubix_token_sync.alerts import alerts_of_status

    desk = _desk(configuration, "monitor")
    if not desk.active:
        raise SettingsError(
            "Alerts have no recipient: neither alert_urls nor alert_urls_file is set.",
            code="no_alert_urls",
            remedy="Set one of them in the settings file; see docs/ALERTS.md.",
        )
    desk.send(alerts_of_status(status))


def send_finding_alerts(configuration: Configuration) -> None:
    """Send what is new, worse and resolved among the target's findings, where anybody listens.

    What fails is logged, and changes nothing.
    """
    settings = configuration.settings
    if not (settings.alert_urls or settings.alert_urls_file):
        return
    with _harmless():
        from rubix_token_sync.alerts import alerts_of_findings
        from rubix_token_sync.library.reader import open_target

        with open_target(configuration=configuration) as target:
            found = target.findings(states=(*OPEN, SUPPRESSED))
        _desk(configuration, "audit").send(alerts_of_findings(found), about="finding/")


def _desk(configuration: Configuration, scope: str) -> AlertDesk:
    from rubix_token_sync.alerts import AlertDesk, AlertOptions
    from rubix_token_sync.settings.masking import masked

    settings = configuration.settings
    if settings.state_directory is not None:
        keep_out(settings.state_directory, "The state directory")
    named = settings.target_file or masked(settings.target.get_secret_value())
    return AlertDesk(AlertOptions.of(settings), scope, named)


@contextlib.contextmanager
def _harmless() -> Iterator[None]:
    """Whatever fails in sending an alert changes nothing about the run."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the run's own end counts
        log_event(
            _LOG, logging.WARNING, "alert_failed",
            f"The alert could not be sent: {type(error).__name__}: {error}",
        )  # fmt: skip
