"""kill -9 at random moments: a few of them here, thousands by ``kill_many.py``."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.battlefield import Battlefield, Phase
from tests.chaos.door import Door
from tests.chaos.kills import Clock, Tally, Targets, kill_once, plan_kill
from tests.chaos.server_states import ServerStates
from tests.chaos.tds_states import TdsStates

SEED = int(os.environ.get("RUBIX_TEST_KILL_SEED", "20250115"))
_FEW = 12
_MANY = 60
_CHAINED = 8
_GROUPS = 5


@pytest.fixture(params=["postgresql", "sqlite", "mssql"])
def targets(
    request: pytest.FixtureRequest, battlefield: Battlefield, tmp_path: Path
) -> Iterator[Targets]:
    """Targets as phases start from; SQL Server's is Microsoft's driver and our own server."""
    if request.param == "mssql":
        with TdsStates(tmp_path, battlefield) as behind_tds:
            yield behind_tds.fresh, behind_tds.committed
    elif request.param == "postgresql":
        states: ServerStates = request.getfixturevalue("states")
        yield states.fresh, str
    else:
        yield _files(battlefield, tmp_path), str


def _files(field: Battlefield, directory: Path) -> Callable[[Phase], str]:
    names = itertools.count()
    return lambda phase: field.fresh_sqlite(directory / f"{next(names)}.db", phase)


def _kill(numbers: range, door: Door, field: Battlefield, targets: Targets) -> None:
    fresh, committed = targets
    clocks: dict[tuple[str, bool], Clock] = {}
    tally = Tally()
    for number in numbers:
        kill_once(plan_kill(SEED, number), door, field, fresh, clocks, tally, committed)
    # Moments beyond the end are part of it; most of them hit.
    assert tally.killed > tally.too_late / 2


@pytest.mark.timeout(300)
def test_random_kills(door: Door, battlefield: Battlefield, targets: Targets) -> None:
    _kill(range(_FEW), door, battlefield, targets)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("group", range(_GROUPS))
def test_many_random_kills(
    door: Door, battlefield: Battlefield, targets: Targets, group: int
) -> None:
    share = _MANY // _GROUPS
    first = 1_000 + group * share
    _kill(range(first, first + share), door, battlefield, targets)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_random_kills_of_runs_that_read_chains(
    door: Door, chained_field: Battlefield, tmp_path: Path
) -> None:
    files = _files(chained_field, tmp_path)
    _kill(range(5_000, 5_000 + _CHAINED), door, chained_field, (files, str))


def test_a_kill_can_be_replayed() -> None:
    assert plan_kill(1, 2) == plan_kill(1, 2) != plan_kill(1, 3)
    assert plan_kill(7, 0).moment == pytest.approx(plan_kill(7, 0).moment)
    few = [plan_kill(SEED, number) for number in range(_FEW)]
    assert {kill.victim for kill in few} == {"run", "worker", "writer", "first", "all"}
    assert {kill.phase for kill in few} == {"first", "change"}
