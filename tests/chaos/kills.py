"""Random kills: one is a number, so that any of them can be replayed."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.chaos.battlefield import BROKEN, SETTINGS, Battlefield, Phase
from tests.chaos.door import Door, Running
from tests.chaos.target_state import content_of, error_repeats, leftovers

__all__ = ["Clock", "Kill", "Tally", "Targets", "Victim", "kill_once", "plan_kill"]

Targets = tuple[Callable[[Phase], str], Callable[[str], str]]
"""``fresh`` and ``committed`` of `kill_once`."""

Victim = Literal["run", "worker", "writer", "first", "all"]
"""The run itself; a worker process; one that is in a transaction; the process that forks the
others; every process of the run at once."""

_VICTIMS: tuple[Victim | None, ...] = (
    "run", None, "worker", None, "writer", None, None, "first", None, None, "all", None,
)  # fmt: skip
"""By turns; None is a run without worker processes."""
_LATEST = 1.05
"""Kills come at a moment up to this share of an undisturbed run's time."""
_ORPHAN_SECONDS = 20.0


@dataclass(frozen=True)
class Kill:
    """One run to kill.

    Attributes:
        processes: the run has worker processes.
        at_work: ``moment`` counts from when the first worker begins, not from the start.
        moment: the share of an undisturbed run's time after which it happens.
        again: the moment at which the run after it is killed as well (None: it is not).
    """

    number: int
    seed: int
    phase: str
    processes: bool
    victim: Victim
    at_work: bool
    moment: float
    again: float | None

    def __str__(self) -> str:
        since = "its work" if self.at_work else "its time"
        return (
            f"kill {self.number} of seed {self.seed}: {self.victim} at {self.moment:.3f} of "
            f"{since}, phase {self.phase}, processes={self.processes}, again={self.again}"
        )


@dataclass
class Tally:
    """What kills met."""

    killed: int = 0
    too_late: int = 0
    """The victim had ended before, or never was there."""


@dataclass
class Clock:
    """How long an undisturbed run takes, in seconds, and its work alone."""

    whole: float
    work: float


def plan_kill(seed: int, number: int) -> Kill:
    """The ``number``-th kill of a seed; the same in every Python version."""
    chance = random.Random(f"{seed} {number}")
    victim = _VICTIMS[number % len(_VICTIMS)]
    processes = victim is not None
    return Kill(
        number=number,
        seed=seed,
        phase=chance.choice(("first", "change")),
        processes=processes,
        victim=victim or "run",
        # Half of such a run's time goes into loading, where there is nothing to lose.
        at_work=processes and (victim in ("worker", "writer") or chance.random() < 0.8),
        moment=chance.random() * _LATEST,
        again=chance.random() if chance.random() < 0.25 else None,
    )


def kill_once(
    kill: Kill,
    door: Door,
    field: Battlefield,
    fresh: Callable[[Phase], str],
    clocks: dict[tuple[str, bool], Clock],
    tally: Tally,
    committed: Callable[[str], str] = str,
) -> None:
    """Kill, run once more undisturbed, and compare with what nothing ever disturbed.

    ``clocks`` holds what undisturbed runs take; it is filled here.  What an address
    of ``fresh`` holds is read at the address that ``committed`` makes of it.

    Raises:
        AssertionError: the second run did not reach the right end.
    """
    phase = field.phase(kill.phase)
    for processes in {kill.processes, False}:
        if (kill.phase, processes) not in clocks:
            clocks[kill.phase, processes] = _measure(door, field, fresh(phase), processes)
    url = fresh(phase)
    killed = _disturb(kill, door, field, url, clocks[kill.phase, kill.processes], tally)
    if kill.again is not None:
        running = door.start(*field.arguments(url), env=SETTINGS)
        running.ended_within(kill.again * clocks[kill.phase, False].whole)
        running.signal(signal.SIGKILL)
        running.wait()
    door.run(*field.arguments(url), env=SETTINGS).expect(BROKEN)
    held = committed(url)
    assert content_of(held).difference(phase.content) == "", kill
    assert leftovers(held) == [], kill
    assert error_repeats(held) == [], kill
    _all_gone(killed, kill)


def _measure(door: Door, field: Battlefield, url: str, processes: bool) -> Clock:
    running = door.start(*field.arguments(url), env=SETTINGS, processes=processes, watched=True)
    started = time.monotonic()
    _wait_for(running, running.workers if processes else running.points)
    begun = time.monotonic() - started
    whole = running.wait().expect(BROKEN).seconds
    return Clock(whole, max(0.0, whole - begun))


def _wait_for(running: Running, seen: Callable[[], list[int] | list[tuple[int, str]]]) -> list[int]:
    """Wait until there are some, or the run has ended; gives them."""
    while not (found := seen()) and not running.ended_within(0.001):
        pass
    return [one for one in found if isinstance(one, int)]


def _disturb(
    kill: Kill, door: Door, field: Battlefield, url: str, clock: Clock, tally: Tally
) -> Running:
    running = door.start(
        *field.arguments(url), env=SETTINGS, processes=kill.processes, watched=kill.processes
    )
    if kill.at_work:
        _wait_for(running, running.workers)
    running.ended_within(kill.moment * (clock.work if kill.at_work else clock.whole))
    chance = random.Random(kill.number)
    if kill.victim in ("run", "all"):
        others = running.children() if kill.victim == "all" else []
        chance.shuffle(others)
        running.signal(signal.SIGKILL)
        for pid in others:
            running.signal_other(pid, signal.SIGKILL)
        finished = running.wait()
        hit = finished.code == -signal.SIGKILL
    else:
        victims = {
            "worker": running.workers,
            "writer": lambda: _wait_for(running, running.writing),
            "first": running.first_children,
        }[kill.victim]()
        hit = bool(victims) and running.signal_other(chance.choice(victims), signal.SIGKILL)
        finished = running.wait().expect(BROKEN)
    tally.killed += hit
    tally.too_late += not hit
    if not hit:  # it was faster than the first one: aim better from now on
        clock.work = max(0.0, clock.work - max(0.0, clock.whole - finished.seconds))
        clock.whole = min(clock.whole, finished.seconds)
    return running


def _all_gone(running: Running, kill: Kill) -> None:
    """No process outlives its run."""
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while left := running.children():
        assert time.monotonic() < deadline, f"{kill}: {left} live on"
        time.sleep(0.01)  # polling the kernel, nothing else tells
