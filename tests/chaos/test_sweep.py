"""Every side effect fails or is killed; the run after it puts everything right.

After the disturbed run and one undisturbed one the target equals that of a run
that nothing ever disturbed, and nothing of the disturbed one is left behind.

The short form tries each point once, with an error or a kill by turns; the long one at the
first, a middle and the last time that it is passed (of worker processes and servers the first
and the last), and then that which no fault is left for: an error in one phase and a kill in
the other, by turns.  RUBIX_TEST_THOROUGH=1 tries every time, with both in both.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rubix_token_sync.failpoints import POINTS
from tests.chaos.battlefield import BROKEN, SETTINGS, Battlefield, Phase
from tests.chaos.door import Door
from tests.chaos.server_states import ServerStates
from tests.chaos.target_state import content_of, error_repeats, leftovers

_FAILED = (BROKEN, 3)  # a database, a worker, the report; the target
_KILLED = -9
_ENDLESS = 400

# Points that a sync of the battlefield passes, in one phase or the other.
_OF_A_SYNC = sorted(
    POINTS.keys()
    - {name for name in POINTS if name.startswith(("audit.", "evidence.", "history.", "migrate."))}
    - {"store.clean", "store.insert", "store.publish.rows"}  # of other targets
    - {"chains.copy", "chains.read"}  # only where chains are read: below
    - {"store.source.adopt"}  # only where it is asked for
    - {"store.heartbeat", "store.records", "worker.emit"}  # of time, of verify, of processes
)
_OF_CHAINS = ("chains.copy", "chains.read", "store.publish", "store.stage", "store.mark")
"""Of a run that reads chains: its own, and those at which chains are written."""
_IN_WORKERS = sorted({*_OF_A_SYNC, "worker.emit"} & POINTS.keys())
_THOROUGH = os.environ.get("RUBIX_TEST_THOROUGH") == "1"
_ON_A_SERVER = sorted(
    {name for name in POINTS if name.startswith("store.")}
    - {"store.clean", "store.insert", "store.heartbeat", "store.records", "store.source.adopt"}
)


def _by_turns(points: list[str]) -> list[tuple[str, str, str]]:
    """Each point (point, action, phase) with an error in one phase and a kill in the other."""
    every = itertools.product(points, ("error", "kill"), ("first", "change"))
    return [
        (point, action, phase)
        for point, action, phase in every
        if _THOROUGH or (action == "kill") == ((phase == "first") == (points.index(point) % 2 == 0))
    ]


Fresh = Callable[[Phase], str]
"""Makes a target as a phase starts from; gives its URL."""


def hit(
    door: Door,
    field: Battlefield,
    url: str,
    fault: tuple[str, int, str],
    phase: Phase,
    fired: Path,
    *,
    processes: bool = False,
) -> bool:
    """Disturb one run by ``fault`` (point, n, action), then run again; False: it never happened."""
    point, n, action = fault
    fired.unlink(missing_ok=True)
    env = {
        **SETTINGS,
        "RUBIX_SYNC_FAULT": f"{point}:{n}:{action}",
        "RUBIX_SYNC_FAULT_ONCE": str(fired),
    }
    what = f"{point}:{n}:{action} in phase {phase.name}, processes={processes}"
    disturbed = door.run(*field.arguments(url), env=env, processes=processes)
    if not fired.exists():
        disturbed.expect(BROKEN)
        seen = f"{what}\n{disturbed.stderr}"
        assert content_of(url).difference(phase.content) == "", seen
        return False
    if action == "kill" and not (processes and disturbed.code == 1):
        assert disturbed.code == _KILLED, f"{what}: {disturbed}"
    else:
        disturbed.expect(*_FAILED)
    door.run(*field.arguments(url), env=SETTINGS).expect(BROKEN)
    assert content_of(url).difference(phase.content) == "", what
    assert leftovers(url) == [], what
    assert error_repeats(url) == [], what
    return True


def _numbers(usual: int, *, ends: bool) -> Iterator[int]:
    """The n to try for a point that is usually passed so often; ``ends``: first and last only."""
    if _THOROUGH:
        return iter(range(1, _ENDLESS))
    chosen = {1, usual} if ends else {1, (usual + 1) // 2, usual}
    return iter([*sorted(chosen - {0}), *range(usual + 1, _ENDLESS)])


def sweep(
    door: Door,
    field: Battlefield,
    fresh: Fresh,
    fault: tuple[str, str],
    phase: Phase,
    fired: Path,
    *,
    usual: int,
    processes: bool = False,
    ends: bool = False,
) -> int:
    """Raise n for ``fault`` (point, action) until it does not hit; gives the last n that did.

    ``usual``: how often an undisturbed run passes the point.
    ``ends``: without RUBIX_TEST_THOROUGH only the first and the last n.
    """
    last = 0
    for n in _numbers(usual, ends=ends):
        if not hit(door, field, fresh(phase), (fault[0], n, fault[1]), phase, fired,
                   processes=processes):  # fmt: skip
            return last
        last = n
    raise AssertionError(f"{fault[0]} is passed without end")


@pytest.fixture
def fresh(battlefield: Battlefield, tmp_path: Path) -> Fresh:
    """Makes SQLite targets."""
    numbers = itertools.count()
    return lambda start: battlefield.fresh_sqlite(tmp_path / f"{next(numbers)}.db", start)


@pytest.fixture
def fresh_on_server(states: ServerStates) -> Fresh:
    """Makes PostgreSQL targets, one at a time."""

    def make(start: Phase) -> str:
        states.drop_all()
        return states.fresh(start)

    return make


# ------------------------------------------------------------------ each point once


@pytest.mark.parametrize(
    ("point", "action"), list(zip(_OF_A_SYNC, itertools.cycle(["error", "kill"]), strict=False))
)
def test_each_point_once(
    door: Door, battlefield: Battlefield, fresh: Fresh, tmp_path: Path, point: str, action: str
) -> None:
    phase = battlefield.change if battlefield.change.points[point] else battlefield.first
    middle = (phase.points[point] + 1) // 2
    assert hit(door, battlefield, fresh(phase), (point, middle, action), phase, tmp_path / "fired")


@pytest.mark.parametrize("point", _IN_WORKERS)
def test_each_point_of_workers_once(
    door: Door, battlefield: Battlefield, fresh: Fresh, tmp_path: Path, point: str
) -> None:
    """One worker process is killed, not the run itself."""
    phase = battlefield.change if battlefield.change.in_workers[point] else battlefield.first
    if not phase.in_workers[point] or phase.in_run[point]:
        pytest.skip("not passed by worker processes, or by the run as well: in the long form")
    fault = point, 1, "kill"
    assert hit(door, battlefield, fresh(phase), fault, phase, tmp_path / "fired", processes=True)


@pytest.mark.parametrize("point", _ON_A_SERVER)
def test_each_point_on_postgresql_once(
    door: Door, battlefield: Battlefield, fresh_on_server: Fresh, tmp_path: Path, point: str
) -> None:
    phase = battlefield.change if battlefield.change.points[point] else battlefield.first
    hit(door, battlefield, fresh_on_server(phase), (point, 1, "kill"), phase, tmp_path / "fired")
    assert (tmp_path / "fired").exists()


@pytest.mark.parametrize("point", _OF_CHAINS)
def test_each_point_of_chains_once(
    door: Door, chained_field: Battlefield, tmp_path: Path, point: str
) -> None:
    """The last time that it is passed: chains come after the rows."""
    phase = chained_field.change
    url = chained_field.fresh_sqlite(tmp_path / "t.db", phase)
    fault = point, phase.points[point], "kill"
    assert hit(door, chained_field, url, fault, phase, tmp_path / "fired")


# ------------------------------------------------------------------ the long form


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("action", ["error", "kill"])
@pytest.mark.parametrize("point", _OF_CHAINS)
def test_chains(
    door: Door, chained_field: Battlefield, tmp_path: Path, point: str, action: str
) -> None:
    start, names = chained_field.change, itertools.count()
    usual = start.points[point]
    hits = sweep(
        door,
        chained_field,
        lambda phase: chained_field.fresh_sqlite(tmp_path / f"{next(names)}.db", phase),
        (point, action),
        start,
        tmp_path / "fired",
        usual=usual,
        ends=True,
    )
    assert hits >= usual > 0


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("point", "action", "phase"), _by_turns(_OF_A_SYNC))
def test_sqlite(
    door: Door,
    battlefield: Battlefield,
    fresh: Fresh,
    tmp_path: Path,
    point: str,
    action: str,
    phase: str,
) -> None:
    start = battlefield.phase(phase)
    usual = start.points[point]
    if not usual:
        other = battlefield.phase("change" if phase == "first" else "first")
        assert other.points[point], "no phase passes this point"
        pytest.skip(f"not passed in phase {phase}")
    fault = point, action
    hits = sweep(door, battlefield, fresh, fault, start, tmp_path / "fired", usual=usual)
    assert hits >= usual


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("point", "action", "phase"), _by_turns(_IN_WORKERS))
def test_worker_processes(
    door: Door,
    battlefield: Battlefield,
    fresh: Fresh,
    tmp_path: Path,
    point: str,
    action: str,
    phase: str,
) -> None:
    """The same where workers are processes: one of them fails or dies, not the run itself."""
    start = battlefield.phase(phase)
    usual = start.in_workers[point]
    if not usual:
        pytest.skip(f"not passed by workers in phase {phase}")
    hits = sweep(
        door, battlefield, fresh, (point, action), start, tmp_path / "fired",
        usual=usual, processes=True, ends=True,
    )  # fmt: skip
    assert hits > 0


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("point", "action", "phase"), _by_turns(_ON_A_SERVER))
def test_postgresql(
    door: Door,
    battlefield: Battlefield,
    fresh_on_server: Fresh,
    tmp_path: Path,
    point: str,
    action: str,
    phase: str,
) -> None:
    start = battlefield.phase(phase)
    usual = start.points[point]
    hits = sweep(
        door, battlefield, fresh_on_server, (point, action), start, tmp_path / "fired",
        usual=usual, ends=True,
    )  # fmt: skip
    if point != "store.publish.rows":  # PostgreSQL's own
        assert (hits > 0) == (usual > 0) or point == "store.analyze"
