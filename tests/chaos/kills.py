"""Random kills: one is a number, so that any of them can be replayed."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.battlefield import BROKEN, SETTINGS, Battlefield, Phase
from tests.chaos.door import Door
from tests.chaos.target_state import content_of, error_repeats, leftovers

__all__ = ["Kill", "RunResult", "kill_once", "plan_kill"]

_LATEST = 1.05
"""Kills come at a moment up to this share of an undisturbed run's time."""


@dataclass(frozen=True)
class Kill:
    """One run to kill.

    ``moment`` is the share of an undisturbed run's time after which it happens;
    ``again`` the moment at which the run after it is killed, too (None: it is not).
    ``worker``: the victim is one of the worker processes.
    """

    number: int
    seed: int
    phase: str
    processes: bool
    worker: bool
    moment: float
    again: float | None

    def __str__(self) -> str:
        how = "a worker process" if self.worker else "the run"
        return (
            f"kill {self.number} of seed {self.seed}: {how} at {self.moment:.3f} of phase "
            f"{self.phase}, processes={self.processes}, again={self.again}"
        )


@dataclass
class RunResult:
    """What kills met."""

    killed: int = 0
    too_late: int = 0
    """The victim had ended before, or was not there yet."""


def plan_kill(seed: int, number: int) -> Kill:
    """The ``number``-th kill of a seed; the same in every Python version."""
    chance = random.Random(f"{seed} {number}")
    processes = chance.random() < 0.1
    return Kill(
        number=number,
        seed=seed,
        phase=chance.choice(("first", "change")),
        processes=processes,
        worker=processes and chance.random() < 0.5,
        moment=chance.random() * _LATEST,
        again=chance.random() if chance.random() < 0.25 else None,
    )


def kill_once(
    kill: Kill,
    door: Door,
    field: Battlefield,
    fresh: Callable[[Phase], str],
    seconds: dict[tuple[str, bool], float],
    outcome: RunResult,
) -> None:
    """Kill, run once more undisturbed, and compare with what nothing ever disturbed.

    ``seconds`` holds what undisturbed runs take; it is filled here.
    """
    phase = field.phase(kill.phase)
    for processes in {kill.processes, False}:
        key = kill.phase, processes
        if key not in seconds:
            whole = door.run(*field.arguments(fresh(phase)), env=SETTINGS, processes=processes)
            seconds[key] = whole.expect(BROKEN).seconds
    url = fresh(phase)
    key = kill.phase, kill.processes
    whole = _disturb(kill, door, field, url, kill.moment * seconds[key], outcome)
    if whole is not None:  # it was faster than the first one: aim better from now on
        seconds[key] = min(seconds[key], whole)
    if kill.again is not None:
        running = door.start(*field.arguments(url), env=SETTINGS)
        running.ended_within(kill.again * seconds[kill.phase, False])
        running.signal(signal.SIGKILL)
        running.wait()
    door.run(*field.arguments(url), env=SETTINGS).expect(BROKEN)
    assert content_of(url).difference(phase.content) == "", kill
    assert leftovers(url) == [], kill
    assert error_repeats(url) == [], kill


def _disturb(
    kill: Kill, door: Door, field: Battlefield, url: str, after: float, outcome: RunResult
) -> float | None:
    """Kill; gives the seconds of a run that had ended before."""
    running = door.start(*field.arguments(url), env=SETTINGS, processes=kill.processes)
    running.ended_within(after)
    if kill.worker:
        # Workers come and go: whichever is there now, and has something to lose.
        victims = running.workers()
        hit = bool(victims) and running.signal_other(
            random.Random(kill.number).choice(victims), signal.SIGKILL
        )
        finished = running.wait().expect(BROKEN)
    else:
        running.signal(signal.SIGKILL)
        finished = running.wait()
        hit = finished.code == -signal.SIGKILL
    outcome.killed += hit
    outcome.too_late += not hit
    return None if hit else finished.seconds
