"""kill -9 at random moments: 200 of them here, 10,000 by ``kill_many.py``."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from tests.chaos.battlefield import Battlefield, Phase
from tests.chaos.door import Door
from tests.chaos.kills import RunResult, kill_once, plan_kill

KILLS = 200
_GROUPS = 10
SEED = int(os.environ.get("RUBIX_TEST_KILL_SEED", "20250115"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("group", range(_GROUPS))
def test_random_kills(door: Door, battlefield: Battlefield, tmp_path: Path, group: int) -> None:
    seconds: dict[tuple[str, bool], float] = {}
    outcome = RunResult()
    names = itertools.count()

    def fresh(phase: Phase) -> str:
        return battlefield.fresh_sqlite(tmp_path / f"{next(names)}.db", phase)

    for number in range(group, KILLS, _GROUPS):
        kill_once(plan_kill(SEED, number), door, battlefield, fresh, seconds, outcome)
    # Moments beyond the end are part of it; most of them hit.
    assert outcome.killed > outcome.too_late / 2


def test_a_kill_can_be_replayed() -> None:
    assert plan_kill(1, 2) == plan_kill(1, 2) != plan_kill(1, 3)
    assert plan_kill(7, 0).moment == pytest.approx(plan_kill(7, 0).moment)
    kinds = {(k.phase, k.processes, k.worker) for k in (plan_kill(5, n) for n in range(200))}
    assert len(kinds) == 6
