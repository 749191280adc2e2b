"""Every side effect fails or is killed, the first, second, … n-th time, until none is left.

After the disturbed run and one undisturbed one the target equals that of a run
that nothing ever disturbed, and nothing of the disturbed one is left behind.

RUBIX_TEST_THOROUGH=1 tries every n; without it the first, one in the middle and the
last one (of worker processes and servers the first and the last), then that which no
fault is left for.
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
from tests.chaos.target_state import content_of, error_repeats, leftovers

_FAILED = (BROKEN, 3)  # a database, a worker, the report; the target
_KILLED = -9
_ENDLESS = 400

# Points that a sync of the battlefield passes, in one phase or the other.
_OF_A_SYNC = sorted(
    POINTS.keys()
    - {name for name in POINTS if name.startswith("migrate.")}
    - {"store.clean", "store.insert", "store.publish.rows"}  # of other targets
    - {"store.heartbeat", "store.records", "worker.emit"}  # of time, of verify, of processes
)
_IN_WORKERS = sorted(
    name
    for name in POINTS
    if name.split(".")[0] in ("content", "source", "worker")
    or name in ("store.connect", "store.content", "store.known", "store.open")
)

Fresh = Callable[[Phase], str]
"""Makes a target as a phase starts from; gives its URL."""


def _numbers(usual: int, *, ends: bool) -> Iterator[int]:
    """The n to try for a point that is usually passed so often; ``ends``: first and last only."""
    if os.environ.get("RUBIX_TEST_THOROUGH") == "1":
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
    processes: bool = False,
    ends: bool = False,
) -> int:
    """Raise n for ``fault`` (point, action) until it does not hit; gives the last n that did.

    ``ends``: without RUBIX_TEST_THOROUGH only the first and the last n.
    """
    point, action = fault
    last = 0
    for n in _numbers(phase.points[point], ends=ends):
        url = fresh(phase)
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
            told = f"{what}\n{disturbed.stderr}"
            assert content_of(url).difference(phase.content) == "", told
            return last
        last = n
        if action == "kill" and not (processes and disturbed.code == 1):
            assert disturbed.code == _KILLED, f"{what}: {disturbed}"
        else:
            disturbed.expect(*_FAILED)
        door.run(*field.arguments(url), env=SETTINGS).expect(BROKEN)
        assert content_of(url).difference(phase.content) == "", what
        assert leftovers(url) == [], what
        assert error_repeats(url) == [], what
    raise AssertionError(f"{point} is passed without end")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("phase", ["first", "change"])
@pytest.mark.parametrize("action", ["error", "kill"])
@pytest.mark.parametrize("point", _OF_A_SYNC)
def test_sqlite(
    door: Door, battlefield: Battlefield, tmp_path: Path, point: str, action: str, phase: str
) -> None:
    numbers = itertools.count()

    def fresh(start: Phase) -> str:
        return battlefield.fresh_sqlite(tmp_path / f"{next(numbers)}.db", start)

    start = battlefield.phase(phase)
    if not start.points[point]:
        other = battlefield.phase("change" if phase == "first" else "first")
        assert other.points[point], "no phase passes this point"
        pytest.skip(f"not passed in phase {phase}")
    hits = sweep(door, battlefield, fresh, (point, action), start, tmp_path / "fired")
    assert hits >= start.points[point] > 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("phase", ["first", "change"])
@pytest.mark.parametrize("action", ["error", "kill"])
@pytest.mark.parametrize("point", _IN_WORKERS)
def test_worker_processes(
    door: Door, battlefield: Battlefield, tmp_path: Path, point: str, action: str, phase: str
) -> None:
    """The same where workers are processes: one of them fails or dies, not the run itself."""
    numbers = itertools.count()

    def fresh(start: Phase) -> str:
        return battlefield.fresh_sqlite(tmp_path / f"{next(numbers)}.db", start)

    start = battlefield.phase(phase)
    if not start.points[point] and point != "worker.emit":
        pytest.skip(f"not passed in phase {phase}")
    hits = sweep(
        door, battlefield, fresh, (point, action), start, tmp_path / "fired",
        processes=True, ends=True,
    )  # fmt: skip
    assert hits > 0
