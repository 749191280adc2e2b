"""Random kills in any number: ``python tests/chaos/kill_many.py --kills 2000 --seed 1``.

Prints its seed first and the figures last; ``--only N`` replays one kill.  Ends
with 1 at the first kill after which a run does not reach the right end.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.chaos.battlefield import Battlefield, Phase
from tests.chaos.door import Door
from tests.chaos.kills import Clock, Tally, Targets, kill_once, plan_kill
from tests.chaos.server_states import ServerStates
from tests.chaos.tds_states import TdsStates
from tests.postgres_server import PostgresServer


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--only", type=int, help="replay this kill of the seed")
    parser.add_argument("--target", choices=("sqlite", "postgresql", "mssql"), default="sqlite")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--directory", help="where to work; a memory file system is fastest")
    return parser.parse_args()


class _Lane:
    """What one thread works with: its own targets, its own clock."""

    def __init__(self, targets: Targets) -> None:
        self.fresh, self.committed = targets
        self.clocks: dict[tuple[str, bool], Clock] = {}
        self.tally = Tally()


def _targets(kind: str, field: Battlefield, stack: ExitStack) -> Callable[[Path], Targets]:
    """Makes the targets of a lane, which works in a directory of its own."""
    if kind == "mssql":

        def behind_tds(place: Path) -> Targets:
            states = stack.enter_context(TdsStates(place, field))
            return states.fresh, states.committed

        return behind_tds
    if kind == "sqlite":
        return lambda place: (partial(field.fresh_sqlite, place / "target.db"), str)
    server = PostgresServer()
    stack.callback(server.close)
    states = ServerStates(server, field)
    return lambda _place: (partial(_one_at_a_time, states, []), str)


def _one_at_a_time(states: ServerStates, made: list[str], phase: Phase) -> str:
    """A target as the phase starts from; the one before is gone."""
    while made:
        states.drop(made.pop())
    made.append(states.fresh(phase))
    return made[-1]


def main() -> int:
    """Kill; gives the exit code."""
    asked = _parse()
    print(f"seed {asked.seed}", flush=True)
    numbers = [asked.only] if asked.only is not None else range(asked.kills)
    started = time.monotonic()
    with ExitStack() as stack:
        home = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=asked.directory, prefix="kills-"))
        )
        door = stack.enter_context(Door())
        field = Battlefield.make(home, door)
        targets = _targets(asked.target, field, stack)
        lanes: list[_Lane] = []
        here = threading.local()
        lane_numbers = itertools.count()

        def enter() -> None:
            place = home / f"lane{next(lane_numbers)}"
            place.mkdir()
            here.lane = _Lane(targets(place))
            lanes.append(here.lane)

        def one(number: int) -> None:
            lane: _Lane = here.lane
            kill = plan_kill(asked.seed, number)
            kill_once(kill, door, field, lane.fresh, lane.clocks, lane.tally, lane.committed)

        with ThreadPoolExecutor(asked.jobs, initializer=enter) as pool:
            futures = [pool.submit(one, number) for number in numbers]
            for done, future in enumerate(futures, 1):
                try:
                    future.result()
                except AssertionError as error:
                    pool.shutdown(cancel_futures=True)
                    print(f"FAILED {error}", flush=True)
                    return 1
                if done % 100 == 0:
                    print(f"{done} after {time.monotonic() - started:.0f} s", flush=True)
        killed = sum(lane.tally.killed for lane in lanes)
        late = sum(lane.tally.too_late for lane in lanes)
    seconds = time.monotonic() - started
    print(
        f"{killed + late} runs into {asked.target}, {killed} killed under way, {late} too late to "
        f"be killed, 0 wrong ends; {seconds:.0f} s, {(killed + late) / seconds * 60:.0f} a minute; "
        f"seed {asked.seed}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
