"""How a fleet's run ended: host by host, in sum, and the exit code.  No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal

from rubix_token_sync.cluster.messages import HostReport
from rubix_token_sync.monitor.health import Status
from rubix_token_sync.monitor.problems import Problem, worst
from rubix_token_sync.monitor.runs import RunRow

__all__ = ["FleetResult", "HostOutcome", "Judged", "exit_code_of", "judge_fleet"]

_DIFFERENT: Final = 5
_CURE_LOST: Final = (
    "Look at that machine and its `cluster worker`; the next `cluster sync` goes on from what is "
    "stored."
)


@dataclass(frozen=True)
class HostOutcome:
    """What became of one source of the fleet."""

    source: str
    host: str | None
    """Name of its machine; None: no host of this source was connected."""
    address: str | None
    state: str
    """``completed``, ``failed``, ``interrupted``, ``equal``, ``different``; ``lost`` (its end is
    not known), ``absent``, ``left_out``."""
    read_from: Literal["host", "target"] | None = None
    """Who said so; ``target``: the host's own report was lost."""
    exit_code: int | None = None
    """As the host's own command would have ended."""
    session_id: str | None = None
    seconds: float | None = None
    databases: int = 0
    databases_unchanged: int = 0
    databases_failed: int = 0
    records: int = 0
    inserted: int = 0
    updated: int = 0
    vanished: int = 0
    differences: int = 0
    code: str | None = None
    message: str | None = None
    report_file: str | None = None
    """On that host."""

    @classmethod
    def of_report(cls, report: HostReport, host: str, address: str) -> HostOutcome:
        """As the host reported it."""
        same = (
            "source", "exit_code", "session_id", "seconds", "databases", "databases_unchanged",
            "databases_failed", "records", "inserted", "updated", "vanished", "differences",
            "code", "message", "report_file",
        )  # fmt: skip
        return cls(
            host=report.host or host,
            address=address,
            state=report.status.lower(),
            read_from="host",
            **{name: getattr(report, name) for name in same},
        )

    @classmethod
    def of_run(cls, run: RunRow, host: str, address: str) -> HostOutcome:
        """As the target has it, where the report was lost."""
        codes = {"COMPLETED": 0, "INTERRUPTED": 143}
        return cls(
            source=run.source_ip,
            host=run.host or host,
            address=address,
            state=run.status.lower(),
            read_from="target",
            exit_code=codes.get(run.status, 1),
            session_id=run.session_id,
            seconds=run.duration_seconds,
            databases=run.total_databases_processed,
            databases_unchanged=run.total_databases_found - run.total_databases_processed,
            records=run.total_records_processed,
            inserted=run.total_sql_inserts,
            message=run.error_summary,
        )


@dataclass(frozen=True)
class Judged:
    """What the coordinator knows when all has ended."""

    command: str
    hosts: Sequence[HostOutcome]
    problems: Sequence[Problem]
    """Of the hosts and the roster, beside what stands in the target."""
    lost: Mapping[str, str] = field(default_factory=dict)
    """Source → how its host was lost."""
    scheduler_lost: str | None = None
    held: Status | None = None
    """What the target holds of the fleet's sources, after a sync."""
    strict: bool = False


@dataclass(frozen=True)
class FleetResult:
    """How it ended."""

    command: str
    scheduler: str
    run: str
    """A UUID."""
    started_at: datetime
    """UTC without a zone, by this machine's clock."""
    seconds: float
    hosts: list[HostOutcome]
    problems: list[Problem]
    exit_code: int
    place: str = ""
    """The target."""
    held: Status | None = None
    audit: Mapping[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """Everything was done and nothing is wrong; there may be warnings in ``problems``."""
        return self.exit_code == 0


def judge_fleet(judged: Judged) -> list[Problem]:
    """Everything that somebody must look at, the worst first.

    What stands in the target is judged as everywhere (`monitor.problems`); here comes what
    only a fleet knows: hosts that were lost, absent, or failed before they reached the target.
    """
    in_target = [] if judged.held is None else list(judged.held.problems)
    known = {host.source: host for host in judged.hosts}
    problems = list(judged.problems)
    if judged.scheduler_lost is not None:
        problems.append(
            Problem(
                "scheduler_lost",
                f"The connection to the scheduler was lost: {judged.scheduler_lost}. What became "
                "of each host was read from the target.",
                severity="error" if any(h.state == "lost" for h in judged.hosts) else "warning",
                cure="Look at the scheduler's log; hosts join again by themselves when it runs.",
            )
        )
    for source, how in judged.lost.items():
        problems.append(_lost(known[source], how))
    for host in judged.hosts:
        if host.state == "absent":
            problems.append(
                Problem(
                    "host_absent",
                    f"No host of the source {host.source} is connected, and the target or the "
                    "command names it.",
                    host.source,
                    cure="Start `cluster worker` there, or name the sources that are meant by "
                    "--source.",
                )
            )
        elif host.state == "interrupted" and host.read_from == "host":
            problems.append(
                Problem(
                    "host_interrupted",
                    f"{host.source} was asked to end before it was done.",
                    host.source,
                    session_id=host.session_id,
                    cure="Run the command again; it goes on from what is stored.",
                )
            )
        elif host.state == "failed" and not _told(in_target, host.source):
            problems.append(
                Problem(
                    "host_failed",
                    f"{host.source}: {host.message}",
                    host.source,
                    session_id=host.session_id,
                    detail=host.code,
                    cure=f"`rubix-token-sync explain {host.code}`." if host.code else "",
                )
            )
    if judged.strict:
        problems = [replace(problem, severity="error") for problem in problems]
    return sorted([*problems, *in_target], key=lambda problem: problem.severity != "error")


def _told(in_target: Iterable[Problem], source: str) -> bool:
    return any(p.source_ip == source and p.code == "last_run_failed" for p in in_target)


def _lost(host: HostOutcome, how: str) -> Problem:
    """A host whose run completed in the target all the same lost its connection, nothing else."""
    if host.state == "completed":
        return Problem(
            "host_lost",
            f"{host.source} was lost ({how}), and its run completed in the target.",
            host.source,
            session_id=host.session_id,
            severity="warning",
            cure="Look at its connection to the scheduler.",
        )
    there = "" if host.session_id is None else f"; in the target its run is {host.state}"
    return Problem(
        "host_lost",
        f"{host.source} was lost ({how}){there}.",
        host.source,
        session_id=host.session_id,
        cure=_CURE_LOST,
    )


def exit_code_of(
    judged: Judged, problems: Iterable[Problem], *, audit: int = 0, signal_number: int | None = None
) -> int:
    """The fleet's exit code, from the hosts' own and the problems.

    128 + signal, where the coordinator was stopped; `verify`: 5 where a host differs; the hosts'
    code where all that failed have the same and nothing else is wrong; else 1 where anything is;
    the audit's where nothing else is.
    """
    if signal_number is not None:
        return 128 + signal_number
    codes = {host.exit_code or 0 for host in judged.hosts} - {0}
    if judged.command == "verify" and _DIFFERENT in codes:
        return _DIFFERENT
    unreported = any(host.exit_code is None for host in judged.hosts)
    if len(codes) == 1 and not unreported:
        return min(max(codes), 127) if max(codes) < 128 else 1
    return 1 if codes or unreported or worst(problems) else audit
