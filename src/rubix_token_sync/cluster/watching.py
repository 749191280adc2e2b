"""From the orders to the end of the last host: what each reports, loses, or leaves to the target.

Tasks are pinned to the address of their host.  Hosts report by Dask's events, which the
scheduler pushes here; no result ever lies in a future, where the death of its host would take
it along.  A report of a sync that was lost is read from the target.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rubix_token_sync.cluster.messages import (
    TOPIC,
    HostProgress,
    HostReport,
    Order,
    read_event,
)
from rubix_token_sync.cluster.outcome import HostOutcome
from rubix_token_sync.cluster.roster import Member
from rubix_token_sync.cluster.target import FleetTarget, fate
from rubix_token_sync.errors import SyncError
from rubix_token_sync.log import log_event
from rubix_token_sync.monitor.runs import RunRow
from rubix_token_sync.runs.cancel import CancelToken

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["HostView", "Mail", "Watch", "why_failed"]

_LOG = logging.getLogger(__name__)
_PACE: Final = 0.25
_TARGET_PACE: Final = 2.0
_LATE_SECONDS: Final = 5.0
"""A report comes before its task's end does, or within this time."""
_LEAVING_SECONDS: Final = 150.0
"""How long hosts that were asked to end may take for the transaction that they are in."""


@dataclass
class HostView:
    """A host as it is now, for who looks on."""

    member: Member
    state: str = "starting"
    """``starting``, ``waiting`` (for an earlier order there), ``working``, ``watched`` (lost, and
    its run goes on in the target), ``lost``, ``ended``."""
    progress: HostProgress = field(default_factory=HostProgress)
    report: HostReport | None = None
    run: str = ""
    """State of its session, where the target was asked."""

    @property
    def open(self) -> bool:
        """Its end is still to come."""
        return self.state not in ("ended", "lost")


class Mail:
    """What hosts report to this run, from Dask's thread to ours."""

    def __init__(self, client: Client, run: str) -> None:
        self._run = run
        self._events: queue.SimpleQueue[object] = queue.SimpleQueue()
        client.subscribe_topic(TOPIC, lambda event: self._events.put(event[1]))

    def next(self, seconds: float) -> tuple[str, HostProgress | HostReport] | None:
        """The next message, its source first; None: none came within so many seconds."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                heard = read_event(self._events.get(timeout=left), self._run)
            except queue.Empty:
                return None
            except ValueError as error:
                log_event(_LOG, logging.WARNING, "message_refused", f"Not understood: {error}")
                continue
            if heard is not None:
                return heard
        return None


class Watch:
    """Gives orders and sees them to their ends."""

    def __init__(
        self,
        client: Client,
        mail: Mail,
        stop: CancelToken,
        *,
        target: FleetTarget | None,
        lease_seconds: float,
        on_update: Callable[[Sequence[HostView]], None],
    ) -> None:
        """``target``: where lost reports are read from; None: there are none to read."""
        self.views: dict[str, HostView] = {}
        self.lost: dict[str, str] = {}
        """Source → how its host was lost."""
        self.scheduler_lost: str | None = None
        self._client = client
        self._mail = mail
        self._stop = stop
        self._target = target
        self._lease_seconds = lease_seconds
        self._on_update = on_update
        self._began = time.monotonic()
        self._futures: dict[str, Future[None]] = {}
        self._finished: dict[str, float] = {}
        self._lost_at: dict[str, float] = {}
        self._found: dict[str, HostOutcome] = {}
        self._asked_target = 0.0
        self._stopping: float | None = None
        self._run = ""

    def order(self, orders: Iterable[tuple[Member, Order]]) -> None:
        """Hand out orders.

        Raises:
            Interrupted: the stop was asked for before the last of them.
        """
        from rubix_token_sync.cluster.worker import carry_out, resource

        for member, order in orders:
            self._stop.check()
            self.views[member.source] = HostView(member)
            self._futures[member.source] = self._client.submit(
                carry_out,
                order.plain(),
                key=f"{order.command}-{member.source}-{order.run}",
                workers=[member.address],
                resources={resource(member.source): 1},
                allow_other_workers=False,
                pure=False,
                retries=0,
            )
            self._run = order.run

    def see_to_the_end(self) -> None:
        """Until every host has ended or is lost."""
        while self._open():
            self._hear()
            self._look_at_scheduler()
            self._look_at_futures()
            self._look_at_target()
            self._look_at_stop()
            self._on_update(list(self.views.values()))

    def outcomes(self) -> list[HostOutcome]:
        """What became of each host, as it reported, or as the target has it."""
        return [self._outcome(source, view) for source, view in self.views.items()]

    def _open(self) -> list[str]:
        return [source for source, view in self.views.items() if view.open]

    def _hear(self) -> None:
        """Take in what hosts reported, or wait a moment for it."""
        until = time.monotonic() + _PACE
        while self._open() and (left := until - time.monotonic()) > 0:
            heard = self._mail.next(left)
            if heard is None:
                return
            source, content = heard
            view = self.views.get(source)
            if view is None or view.report is not None:
                continue
            if isinstance(content, HostReport):
                view.report, view.state = content, "ended"
                self.lost.pop(source, None)
            elif view.state in ("starting", "waiting", "working"):
                view.progress = content
                view.state = "waiting" if content.waiting else "working"

    def _look_at_scheduler(self) -> None:
        if self.scheduler_lost is not None or self._client.status == "running":
            return
        self.scheduler_lost = "it ended, or it cannot be reached any more"
        log_event(
            _LOG, logging.WARNING, "scheduler_lost",
            "The connection to the scheduler is lost. Hosts go on; how they end is read from the "
            "target.",
        )  # fmt: skip
        for source in self._open():
            self._lose(source, "the scheduler is gone", named=False)

    def _look_at_futures(self) -> None:
        for source in self._open():
            if self.views[source].state == "watched":
                continue
            future = self._futures[source]
            if future.status == "error":
                self._lose(source, why_failed(future.exception(timeout=_LATE_SECONDS)))
            elif future.status == "finished":
                since = self._finished.setdefault(source, time.monotonic())
                if time.monotonic() - since > _LATE_SECONDS:
                    self._lose(source, "its report did not arrive")
            elif future.status != "pending":
                self._lose(source, f"its task was {future.status}")

    def _lose(self, source: str, how: str, *, named: bool = True) -> None:
        """The host will report no more; what its run does now, only the target says."""
        self.views[source].state = "lost" if self._target is None else "watched"
        self._lost_at[source] = time.monotonic()
        if named:
            self.lost[source] = how
            log_event(
                _LOG, logging.WARNING, "host_lost", f"{source} was lost: {how}.", source=source
            )

    def _look_at_target(self) -> None:
        watched = [s for s in self._open() if self.views[s].state == "watched"]
        if (
            not watched
            or self._target is None
            or time.monotonic() - self._asked_target < _TARGET_PACE
        ):
            return
        self._asked_target = time.monotonic()
        runs: Mapping[str, RunRow] = {}
        silent = False
        try:
            runs = self._target.runs(watched, time.monotonic() - self._began)
        except SyncError as error:
            silent = True
            log_event(
                _LOG, logging.WARNING, "target_not_asked",
                f"The target's state could not be read: {error}", code=error.code,
            )  # fmt: skip
        for source in watched:
            view, run = self.views[source], runs.get(source)
            since = time.monotonic() - self._lost_at[source]
            if silent and since < self._lease_seconds:
                continue
            if run is not None:
                view.run = run.status
                member = view.member
                self._found[source] = HostOutcome.of_run(run, member.host, member.address)
            verdict = fate(run, silent_seconds=since, lease_seconds=self._lease_seconds)
            if verdict == "known":
                view.state = "ended"
            elif verdict == "lost":
                view.state = "lost"
                self.lost.setdefault(source, "it gave no sign of life any more")

    def _look_at_stop(self) -> None:
        number = self._stop.signal_number
        if number is None:
            return
        if self._stopping is None:
            self._stopping = time.monotonic()
            self._ask_to_stop(number)
        waited = time.monotonic() - self._stopping
        for source in self._open():
            idle = self.views[source].state in ("starting", "waiting")
            if idle and waited > _LATE_SECONDS:
                self._futures[source].cancel()
                self._give_up(source, "it had not begun when it was asked to end")
            elif waited > _LEAVING_SECONDS:
                self._give_up(source, "it did not end when it was asked to")

    def _give_up(self, source: str, how: str) -> None:
        self.lost[source] = how
        self.views[source].state = "lost"

    def _ask_to_stop(self, number: int) -> None:
        from rubix_token_sync.cluster.worker import stop_order

        asked = [s for s in self._open() if self.views[s].state != "watched"]
        if asked:
            self._client.run(
                stop_order,
                self._run,
                number,
                workers=[self.views[source].member.address for source in asked],
                wait=False,
                on_error="ignore",
            )

    def _outcome(self, source: str, view: HostView) -> HostOutcome:
        member = view.member
        if view.report is not None:
            return HostOutcome.of_report(view.report, member.host, member.address)
        held = self._found.get(source)
        if view.state == "ended" and held is not None:
            return held
        return HostOutcome(
            source,
            member.host,
            member.address,
            "lost",
            session_id=None if held is None else held.session_id,
        )


def why_failed(error: BaseException | None) -> str:
    """Why a task failed, in words; Dask's own exceptions mean that its host is gone."""
    name = type(error).__name__
    if name == "KilledWorker":
        return "its worker ended or was cut off while it worked"
    if name == "NoValidWorkerError":
        return "its worker is no longer connected"
    return f"its worker failed: {name}: {str(error).partition(chr(10))[0]}"
