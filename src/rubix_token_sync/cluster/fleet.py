"""The coordinator: who takes part, one order to each host, and what became of all of them."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rubix_token_sync.cluster.client import client_of, connected
from rubix_token_sync.cluster.engine import Connection, running_dask
from rubix_token_sync.cluster.greeting import Versions, knock
from rubix_token_sync.cluster.messages import Command, HostReport, Order
from rubix_token_sync.cluster.outcome import (
    FleetResult,
    HostOutcome,
    Judged,
    exit_code_of,
    judge_fleet,
)
from rubix_token_sync.cluster.roster import Member, Roster, members_of, roster_of
from rubix_token_sync.cluster.target import FleetTarget
from rubix_token_sync.cluster.watching import HostView, Mail, Watch
from rubix_token_sync.errors import SyncError
from rubix_token_sync.library.configuration import Configuration
from rubix_token_sync.log import log_event
from rubix_token_sync.monitor.health import Status
from rubix_token_sync.monitor.problems import Problem
from rubix_token_sync.runs.cancel import CancelToken
from rubix_token_sync.scratch import Scratch
from rubix_token_sync.text import counted

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["FleetOptions", "run_fleet"]

_LOG = logging.getLogger(__name__)
_PACE: Final = 0.25

T = TypeVar("T")


@dataclass(frozen=True)
class FleetOptions:
    """What the fleet is to do."""

    command: Command
    sources: tuple[str, ...] = ()
    """Those that must take part; none: all that are connected or that the target knows."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """For the hosts: see `messages.FORWARDED`."""
    force: bool = False
    allow_shrink: bool = False
    adopt_source: bool = False
    repair: bool = False
    audit: bool = False
    """Audit the target once, after a sync that every host completed."""
    hosts: int = 1
    """So many must take part, at least."""
    wait_seconds: float = 20.0
    """How long hosts that are absent may take to connect."""


def run_fleet(
    connection: Connection,
    configuration: Configuration,
    options: FleetOptions,
    *,
    on_update: Callable[[Sequence[HostView]], None] = lambda _views: None,
    stop: CancelToken | None = None,
) -> FleetResult:
    """Have every host of the fleet do its part, and see to the end what became of it.

    ``configuration`` is the coordinator's own; its target is only read.  ``on_update`` is
    called several times a second in this thread.

    Raises:
        SettingsError: this machine cannot take part: its certificate or version.
        SchedulerUnreachable: no scheduler answers.
        TargetError: the target cannot be read.
    """
    own = Versions.own()
    target = FleetTarget(configuration)
    known = target.sources()
    knock(connection)
    scratch = Scratch(configuration.settings.scratch)
    with running_dask(scratch), client_of(connection, own) as client:
        run = _Fleet(client, connection, configuration, options, target, on_update, stop)
        return run.run(own, known)


class _Fleet:
    """One run of the fleet."""

    def __init__(
        self,
        client: Client,
        connection: Connection,
        configuration: Configuration,
        options: FleetOptions,
        target: FleetTarget,
        on_update: Callable[[Sequence[HostView]], None],
        stop: CancelToken | None,
    ) -> None:
        self._client = client
        self._connection = connection
        self._settings = configuration.settings
        self._options = options
        self._target = target
        self._on_update = on_update
        self._stop = stop or CancelToken()
        self._id = str(uuid.uuid4())
        self._began = time.monotonic()
        self._mail = Mail(client, self._id)
        self._unasked: list[Problem] = []

    def run(self, own: Versions, known: Sequence[str]) -> FleetResult:
        began_at = datetime.now(UTC).replace(tzinfo=None)
        command = self._options.command
        audits = command == "audit"
        roster = self._gather(own, () if audits else known)
        members = list(roster.members.values())
        if audits:  # the target is one: one host is enough, and two would wait for each other
            del members[1:]
        watch = self._carried_out(command, members)
        outcomes = watch.outcomes() if audits else _with_absent(watch.outcomes(), roster)
        held = self._held(outcomes) if command == "sync" else None
        auditing = watch if audits else self._audit_after(members, outcomes)
        audited = None if auditing is None else _report_of(auditing)
        judged = Judged(
            command=command,
            hosts=outcomes,
            problems=[
                *self._problems(roster, watch, audits=audits),
                *self._of_audit(audited),
                *self._elsewhere(watch, None if audits else auditing),
                *self._unasked,
            ],
            lost=watch.lost,
            scheduler_lost=watch.scheduler_lost,
            held=held,
            strict=self._settings.strict,
        )
        problems = judge_fleet(judged)
        return FleetResult(
            command=command,
            scheduler=str(self._connection.address),
            run=self._id,
            started_at=began_at,
            seconds=round(time.monotonic() - self._began, 3),
            hosts=outcomes,
            problems=problems,
            exit_code=exit_code_of(
                judged,
                problems,
                audit=0 if audited is None else audited.exit_code,
                signal_number=self._stop.signal_number,
            ),
            place=self._target.place,
            held=held,
            audit=None if audited is None else audited.document,
        )

    # ------------------------------------------------------------- who takes part

    def _gather(self, own: Versions, known: Sequence[str]) -> Roster:
        """Wait for hosts that are absent, for as long as the options say."""
        deadline = time.monotonic() + self._options.wait_seconds
        while True:
            workers = connected(self._client, self._connection)
            roster = roster_of(members_of(workers), own, named=self._options.sources, known=known)
            complete = len(roster.members) >= self._options.hosts and not roster.absent
            if complete or time.monotonic() > deadline or self._stop.signal_number is not None:
                return roster
            time.sleep(_PACE)

    def _carried_out(self, command: Command, members: Iterable[Member]) -> Watch:
        watch = Watch(
            self._client,
            self._mail,
            self._stop,
            target=self._target if command == "sync" else None,
            lease_seconds=self._settings.lease_seconds,
            on_update=self._on_update,
        )
        watch.order((member, self._order(command, member)) for member in members)
        watch.see_to_the_end()
        return watch

    def _order(self, command: Command, member: Member) -> Order:
        options = self._options
        return Order(
            run=self._id,
            command=command,
            source=member.source,
            settings=dict(options.settings),
            force=options.force,
            allow_shrink=options.allow_shrink,
            adopt_source=options.adopt_source,
            repair=options.repair,
        )

    # ---------------------------------------------------------------------- outcomes

    def _held(self, outcomes: Sequence[HostOutcome]) -> Status | None:
        """How the fleet's sources stand in the target; a problem where it cannot be asked."""
        return self._asked(lambda: self._target.status([host.source for host in outcomes]))

    def _elsewhere(self, *watches: Watch | None) -> list[Problem]:
        """Hosts that did their work in another target: of this one they said nothing."""
        views = [view for watch in watches if watch is not None for view in watch.views.values()]
        reports = [view.report for view in views if view.report is not None]
        return [
            Problem(
                "target_differs",
                f"What {report.source} did is not in {self._target.place or 'this target'}: its "
                "settings name another target.",
                report.source,
                session_id=report.session_id,
                cure="Let the settings of that host and of the coordinator name one target.",
            )
            for report in self._asked(lambda: self._target.lacks(reports)) or ()
        ]

    def _asked(self, question: Callable[[], T]) -> T | None:
        """The target's answer; None, and a problem, where it cannot be asked."""
        try:
            return question()
        except SyncError as error:
            log_event(
                _LOG, logging.WARNING, "target_not_asked",
                f"The target's state could not be read: {error}", code=error.code,
            )  # fmt: skip
            self._unasked = [
                Problem(
                    "target_not_asked",
                    "The target's state after the run could not be read.",
                    detail=error.code,
                    cure="Run `rubix-token-sync status` once it answers again.",
                )
            ]
            return None

    def _problems(self, roster: Roster, watch: Watch, *, audits: bool) -> list[Problem]:
        found = list(roster.notes)
        if not audits:
            found += roster.left_out.values()
        if len(roster.members) < self._options.hosts:
            there = counted(len(roster.members), "host")
            found.append(
                Problem(
                    "hosts_missing",
                    f"{there} could be used, of the {self._options.hosts:,} that must take part.",
                    count=self._options.hosts - len(roster.members),
                    cure="Start `cluster worker` on the others; their logs say why they are not "
                    "connected.",
                )
            )
        for view in watch.views.values():
            if view.report is not None:
                found += view.report.problems
        return found

    # ------------------------------------------------------------------------- audit

    def _audit_after(
        self, members: Sequence[Member], outcomes: Sequence[HostOutcome]
    ) -> Watch | None:
        """The audit that follows a sync of all hosts; None: there is none."""
        wanted = self._options.command == "sync" and self._options.audit
        if not (wanted and outcomes and all(host.exit_code == 0 for host in outcomes)):
            return None
        return self._carried_out("audit", members[:1])

    def _of_audit(self, audited: HostReport | None) -> list[Problem]:
        """What is wrong with the audit that was to follow a sync."""
        if not self._options.audit:
            return []
        if audited is not None and audited.status == "COMPLETED":
            return list(audited.problems)
        why = "not every host completed, or the one that was to audit was lost"
        if audited is not None and audited.message is not None:
            why = audited.message.removesuffix(".")
        return [
            Problem(
                "audit_failed",
                f"The target was not audited: {why}.",
                detail=None if audited is None else audited.code,
                cure="Run `rubix-token-sync cluster audit`.",
            )
        ]


def _report_of(watch: Watch) -> HostReport | None:
    """Of the only host that was asked."""
    return next((view.report for view in watch.views.values()), None)


def _with_absent(outcomes: Iterable[HostOutcome], roster: Roster) -> list[HostOutcome]:
    """All sources of the fleet, also those of which no host took part."""
    left_out = [
        HostOutcome(source, None, None, "left_out", code=problem.code)
        for source, problem in roster.left_out.items()
    ]
    absent = [HostOutcome(source, None, None, "absent") for source in roster.absent]
    return sorted([*outcomes, *left_out, *absent], key=lambda host: host.source)
