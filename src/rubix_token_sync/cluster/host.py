"""A host of the fleet: it carries out orders, one at a time, with its own settings.

`Host` knows nothing of Dask.  An order becomes a call of the library, as the command line would
make it on this machine: with the machine's own settings file, target file, state directory,
report directory and alerts, under its own lease.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final, cast

from rubix_token_sync.cluster.messages import HostProgress, HostReport, Order
from rubix_token_sync.cluster.partaking import Send, Take, take_part
from rubix_token_sync.cluster.sharing import Ended, Share
from rubix_token_sync.errors import SettingsError, SyncError
from rubix_token_sync.library.auditing import audit_and_list
from rubix_token_sync.library.configuration import (
    Configuration,
    SettingsOverrides,
    check_roots,
    configure,
    settings_of,
)
from rubix_token_sync.library.logs import explain_failure
from rubix_token_sync.library.observers import Observer
from rubix_token_sync.library.results import SyncResult, VerifyResult
from rubix_token_sync.library.watchers import ReportObserver, send_finding_alerts, watchers_of
from rubix_token_sync.library.work import sync, verify
from rubix_token_sync.log import log_event
from rubix_token_sync.monitor.problems import Problem
from rubix_token_sync.runs.cancel import CancelToken, Interrupted
from rubix_token_sync.runs.progress import Progress
from rubix_token_sync.scratch import Scratch

__all__ = ["Host", "HostSettings", "Speak"]

_LOG = logging.getLogger(__name__)
_PACE: Final = 1.0
"""Seconds between two reports of progress, at least."""

Speak = Callable[[HostProgress | HostReport], None]


@dataclass(frozen=True)
class HostSettings:
    """How this host finds its settings, each time anew: files may change between two orders."""

    roots: tuple[str, ...] = ()
    config: str | None = None
    profile: str | None = None
    overrides: SettingsOverrides = field(default_factory=lambda: SettingsOverrides())
    embedded: bool = True

    def configured(self, ordered: dict[str, Any] | None = None) -> Configuration:
        """Settings and target in force, with those that an order names.

        Raises:
            SettingsError: a setting or the target's file is wrong.
        """
        given = cast("SettingsOverrides", {**self.overrides, **(ordered or {})})
        settings = settings_of(
            *self.roots, config=self.config, profile=cast("Any", self.profile), **given
        )
        return configure(settings=settings, embedded=self.embedded)


class Host:
    """What carries out orders here."""

    def __init__(self, settings: HostSettings) -> None:
        """
        Raises:
            SettingsError: the settings of this host are wrong.
        """
        self.settings = settings
        configuration = settings.configured()
        check_roots(configuration.roots)
        self.source = configuration.settings.source_ip
        """The source that this host is."""
        self.scratch = Scratch(configuration.settings.scratch, configuration.roots)
        """Where the process keeps its own files: never in a node or below a root."""
        self._turn = threading.Lock()
        self._running: tuple[str, CancelToken] | None = None
        self._ended: int | None = None

    def carry_out(self, order: Order, speak: Speak, wanted: Callable[[], bool]) -> None:
        """Do it, and report: progress, then how it ended.  Nothing is raised.

        Orders take turns; ``wanted`` says whether somebody still waits for this one.
        """

        def waits() -> None:
            speak(HostProgress(waiting=True))

        with self._in_turn(order.run, wanted, waits) as stop:
            if stop is None:
                return
            log_event(_LOG, logging.INFO, "order_begun", f"{order.command} for the run {order.run}")
            report = self._done(order, speak, stop)
            log_event(
                _LOG, logging.INFO, "order_ended",
                f"{order.command}: {report.status.lower()}, exit code {report.exit_code}",
            )  # fmt: skip
            speak(report)

    def take_part(self, share: Share, take: Take, send: Send, wanted: Callable[[], bool]) -> None:
        """Do jobs of a shared source, as long as there are any.  Nothing is raised.

        ``send`` gets what becomes of them, `Ended` last.
        """
        with self._in_turn(share.run, wanted, lambda: None) as stop:
            if stop is None:
                return
            log_event(_LOG, logging.INFO, "order_begun", f"databases for the run {share.run}")
            ended = self._partaken(share, take, send, stop)
            log_event(
                _LOG, logging.INFO, "order_ended",
                f"databases: {'done' if ended == Ended() else 'not to the end'}",
            )  # fmt: skip
            send(ended)

    def _partaken(self, share: Share, take: Take, send: Send, stop: CancelToken) -> Ended:
        try:
            take_part(self.settings.configured(dict(share.settings)), share, take, send, stop)
        except Interrupted as interrupt:
            return Ended(interrupted=interrupt.signal_number)
        except Exception as error:  # noqa: BLE001 - it goes to the coordinator, in words
            failure = explain_failure(error)
            _LOG.error("%s [%s]", failure.message, failure.code)
            _LOG.debug("%s", failure.trace)
            if not isinstance(error, SyncError):
                error = SyncError(failure.message, code=failure.code, remedy=failure.remedy)
            return Ended(error)
        return Ended()

    @contextlib.contextmanager
    def _in_turn(
        self, run: str, wanted: Callable[[], bool], waits: Callable[[], None]
    ) -> Iterator[CancelToken | None]:
        """What can stop the order that is now this host's; None: its coordinator has gone."""
        said = 0.0
        while not self._turn.acquire(timeout=0.2):
            if not wanted():
                yield None
                return
            if time.monotonic() - said > _PACE:
                said = time.monotonic()
                waits()
        try:
            if not wanted():
                yield None
                return
            stop = CancelToken()
            self._running = run, stop
            if self._ended is not None:
                stop.ask(self._ended)
            yield stop
        finally:
            self._running = None
            self._turn.release()

    def stop(self, run: str, signal_number: int) -> None:
        """Let the order of this run end at its next safe point; any other goes on."""
        running = self._running
        if running is not None and running[0] == run:
            running[1].ask(signal_number)

    def end(self, signal_number: int) -> None:
        """Let whatever is under way end at its next safe point, and nothing else begin."""
        self._ended = signal_number
        running = self._running
        if running is not None:
            running[1].ask(signal_number)

    def idle(self, timeout: float) -> bool:
        """Wait until no order is under way, for so many seconds at most."""
        if self._turn.acquire(timeout=timeout):
            self._turn.release()
            return True
        return False

    def _done(self, order: Order, speak: Speak, stop: CancelToken) -> HostReport:
        began = time.monotonic()
        try:
            return self._work(order, speak, stop)
        except Interrupted as interrupt:
            return HostReport(
                order.source,
                order.command,
                128 + interrupt.signal_number,
                "INTERRUPTED",
                host=socket.gethostname(),
                seconds=round(time.monotonic() - began, 3),
            )
        except Exception as error:  # noqa: BLE001 - it goes to the coordinator, in words
            failure = explain_failure(error)
            _LOG.error("%s [%s]", failure.message, failure.code)
            _LOG.debug("%s", failure.trace)
            return HostReport(
                order.source,
                order.command,
                failure.exit_code,
                "FAILED",
                host=socket.gethostname(),
                seconds=round(time.monotonic() - began, 3),
                code=failure.code,
                message=failure.message,
                remedy=failure.remedy,
            )

    def _work(self, order: Order, speak: Speak, stop: CancelToken) -> HostReport:
        configuration = self.settings.configured(dict(order.settings))
        if configuration.settings.source_ip != order.source:
            raise SettingsError(
                f"This host is {configuration.settings.source_ip} now, and was {order.source} "
                "when it joined.",
                code="host_renamed",
                remedy="Start `cluster worker` again there.",
            )
        if order.command == "audit":
            return self._audit(configuration, order)
        watch = _Watch(speak)
        if order.command == "verify":
            return _of_verify(
                verify(
                    repair=order.repair, observers=[watch], stop=stop, configuration=configuration
                ),
                order,
            )
        report = ReportObserver(configuration.report_directory)
        done = sync(
            force=order.force,
            allow_shrink=order.allow_shrink,
            adopt_source=order.adopt_source,
            audit=False,  # the fleet is audited once, when all hosts have ended
            observers=[report, *watchers_of(configuration), watch],
            stop=stop,
            configuration=configuration,
        )
        return _of_sync(done, order, None if report.file is None else str(report.file))

    def _audit(self, configuration: Configuration, order: Order) -> HostReport:
        done, _ = audit_and_list(configuration)
        send_finding_alerts(configuration)
        failed = [rule for rule in done.rules if rule.state == "failed"]
        return HostReport(
            order.source,
            order.command,
            done.exit_code,
            "COMPLETED",
            host=socket.gethostname(),
            seconds=done.seconds,
            databases=done.databases,
            problems=[
                Problem(
                    "rule_failed",
                    f"The rule {rule.rule} failed: {rule.message}",
                    detail=rule.code,
                    cure="`rubix-token-sync audit` says more.",
                )
                for rule in failed
            ],
            document={
                "audit": done.number,
                "run_id": done.run_id,
                "fail_on": done.fail_on,
                "databases": done.databases,
                "unread_databases": done.unread_databases,
                "changes": dict(done.changes),
                "open": dict(done.open),
            },
        )


class _Watch(Observer):
    """Reports progress, at most once a second."""

    def __init__(self, speak: Speak) -> None:
        self._speak = speak
        self._last = 0.0

    def on_progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last < _PACE:
            return
        self._last = now
        records, contents = progress.so_far()
        counters = progress.counters
        self._speak(
            HostProgress(
                share=round(progress.share, 4),
                records=records,
                contents=contents,
                databases_done=counters.databases_processed + counters.databases_current,
                databases_failed=counters.databases_failed,
                databases=counters.databases_found,
                seconds=round(progress.seconds, 1),
            )
        )


def _of_sync(done: SyncResult, order: Order, file: str | None) -> HostReport:
    counters = done.counters
    in_target = [] if done.held is None else done.held.problems
    return HostReport(
        order.source,
        order.command,
        done.exit_code,
        done.status,
        host=socket.gethostname(),
        session_id=done.session_id,
        seconds=round(done.seconds, 3),
        databases=counters.databases_processed,
        databases_unchanged=counters.databases_current,
        databases_failed=counters.databases_failed,
        records=counters.records_processed,
        inserted=counters.inserted,
        updated=counters.updated,
        vanished=counters.vanished,
        report_file=file,
        problems=[p for p in done.problems if p not in in_target],
    )


def _of_verify(done: VerifyResult, order: Order) -> HostReport:
    status = {0: "EQUAL", 5: "DIFFERENT"}.get(done.exit_code, "COMPLETED")
    return HostReport(
        order.source,
        order.command,
        done.exit_code,
        status,
        host=socket.gethostname(),
        seconds=round(done.seconds, 3),
        databases=done.databases,
        databases_failed=len(done.failed) + len(done.unreadable),
        records=done.records,
        differences=sum(done.differences.values()),
        problems=[_of_source(problem, order.source) for problem in done.problems],
    )


def _of_source(problem: Problem, source: str) -> Problem:
    """`verify` knows of one source only; a fleet has many."""
    return Problem(**{**asdict(problem), "source_ip": problem.source_ip or source})
