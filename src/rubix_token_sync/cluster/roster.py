"""Who takes part in a fleet's run: decided from what the scheduler and the target know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rubix_token_sync.cluster.greeting import Versions
from rubix_token_sync.monitor.problems import Problem
from rubix_token_sync.text import counted

__all__ = ["Member", "Roster", "members_of", "roster_of", "sharing"]

_CLOCK_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Member:
    """A host that is connected to the scheduler, as it introduced itself."""

    source: str
    host: str
    address: str
    """Of its worker; tasks are pinned to it."""
    versions: Versions | None
    clock_ahead: float = 0.0
    """Seconds, against the scheduler's clock."""


@dataclass(frozen=True)
class Roster:
    """Who takes part, and who cannot."""

    members: dict[str, Member]
    """Source → its host."""
    absent: list[str]
    """Sources that should take part and of which no host is connected."""
    left_out: dict[str, Problem]
    """Source → why its host is not used."""
    notes: list[Problem]


def members_of(workers: Mapping[str, Mapping[str, Any]]) -> list[Member]:
    """What Dask's scheduler says of its workers; those that are not ours are nobody."""
    found = []
    for address, worker in workers.items():
        said = worker.get("rubix")
        if not isinstance(said, dict) or not isinstance(said.get("source"), str):
            continue
        ahead = said.get("clock_ahead")
        found.append(
            Member(
                said["source"][:45],
                str(said.get("host_name", ""))[:255],
                str(address),
                Versions.of(said.get("versions")),
                float(ahead) if isinstance(ahead, int | float) else 0.0,
            )
        )
    return found


def roster_of(
    connected: Iterable[Member], own: Versions, *, named: Iterable[str], known: Iterable[str]
) -> Roster:
    """Decide who takes part.

    ``named`` are the sources that were asked for; none means every one that is connected or
    that the target (``known``) holds records of: a source that is missing is not passed over.
    """
    wanted = set(named)
    hosts: dict[str, list[Member]] = {}
    for member in connected:
        if not wanted or member.source in wanted:
            hosts.setdefault(member.source, []).append(member)
    members: dict[str, Member] = {}
    left_out: dict[str, Problem] = {}
    notes: list[Problem] = []
    for source in sorted(hosts):
        several = hosts[source]
        member = several[0]
        if len(several) > 1:
            left_out[source] = _twice(source, several)
            continue
        differs = "its version is unknown"
        if member.versions is not None:
            differs = member.versions.against(own)
        if differs:
            left_out[source] = _other_version(member, differs)
            continue
        if abs(member.clock_ahead) > _CLOCK_SECONDS:
            notes.append(_clock(member))
        members[source] = member
    absent = sorted((wanted or set(known)) - hosts.keys())
    return Roster(members, absent, left_out, notes)


def sharing(
    connected: Iterable[Member], own: Versions, source: str
) -> tuple[list[Member], list[Problem]]:
    """The hosts that share a source, by name, and why others of that name cannot take part."""
    members: list[Member] = []
    left_out: list[Problem] = []
    for member in sorted(connected, key=lambda one: (one.host, one.address)):
        if member.source != source:
            continue
        differs = "its version is unknown"
        if member.versions is not None:
            differs = member.versions.against(own)
        if differs:
            left_out.append(_other_version(member, differs))
        else:
            members.append(member)
    return members, left_out


def _other_version(member: Member, differs: str) -> Problem:
    return Problem(
        "version_differs",
        f"{member.source} was left out, for it has other versions ('here' is {member.host}, "
        f"'there' the coordinator): {differs}.",
        member.source,
        cure="Install the same versions on all machines of the cluster.",
    )


def _twice(source: str, several: list[Member]) -> Problem:
    places = ", ".join(sorted(f"{member.host} ({member.address})" for member in several))
    return Problem(
        "source_twice",
        f"{source} was left out: {counted(len(several), 'host')} call themselves so: {places}.",
        source,
        count=len(several),
        cure="Give each host a source_ip of its own, or end the worker that is not wanted; hosts "
        "that see the same nodes share them by `cluster sync --shared`.",
    )


def _clock(member: Member) -> Problem:
    way = "ahead of" if member.clock_ahead > 0 else "behind"
    return Problem(
        "host_clock",
        f"The clock of {member.source} is {abs(member.clock_ahead):,.0f} s {way} the scheduler's.",
        member.source,
        severity="warning",
        cure="Set that machine's clock (NTP). Leases and times in the target are the target's "
        "own; certificates and the host's log depend on it.",
    )
