"""The sweep and the kills on PostgreSQL; what its server alone can do to a run."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from rubix_token_sync.failpoints import POINTS
from tests.chaos.battlefield import BROKEN, SETTINGS, Battlefield, Phase
from tests.chaos.door import Door
from tests.chaos.kills import RunResult, kill_once, plan_kill
from tests.chaos.server_states import ServerStates
from tests.chaos.target_state import content_of, error_repeats, leftovers
from tests.chaos.test_sweep import sweep
from tests.postgres_server import PostgresServer

_ON_THE_SERVER = sorted(
    POINTS.keys()
    & {name for name in POINTS if name.startswith("store.")}
    - {"store.clean", "store.heartbeat", "store.records"}
)
_KILLS = 40


@pytest.fixture(scope="session")
def states(postgres_server: PostgresServer, battlefield: Battlefield) -> ServerStates:
    """Databases as the phases start from."""
    return ServerStates(postgres_server, battlefield)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("phase", ["first", "change"])
@pytest.mark.parametrize("action", ["error", "kill"])
@pytest.mark.parametrize("point", _ON_THE_SERVER)
def test_postgresql(
    door: Door,
    battlefield: Battlefield,
    states: ServerStates,
    tmp_path: Path,
    point: str,
    action: str,
    phase: str,
) -> None:
    made: list[str] = []

    def fresh(start: Phase) -> str:
        while made:
            states.drop(made.pop())
        made.append(states.fresh(start))
        return made[-1]

    start = battlefield.phase(phase)
    hits = sweep(door, battlefield, fresh, (point, action), start, tmp_path / "fired", ends=True)
    if point != "store.publish.rows":  # PostgreSQL's own
        assert (hits > 0) == (start.points[point] > 0) or point == "store.analyze"
    for url in made:
        states.drop(url)


@pytest.mark.timeout(600)
def test_random_kills(door: Door, battlefield: Battlefield, states: ServerStates) -> None:
    seconds: dict[tuple[str, bool], float] = {}
    outcome = RunResult()
    made: list[str] = []

    def fresh(phase: Phase) -> str:
        made.append(states.fresh(phase))
        return made[-1]

    for number in range(_KILLS):
        kill_once(plan_kill(4, number), door, battlefield, fresh, seconds, outcome)
        while made:
            states.drop(made.pop())
    assert outcome.killed > outcome.too_late / 2


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.mark.timeout(120)
def test_a_server_that_fails_over_in_the_middle(
    door: Door, battlefield: Battlefield, own_server: PostgresServer
) -> None:
    """It crashes during a load and is back a moment later: the run never notices for long."""
    url = own_server.url(own_server.database())
    env = {**SETTINGS, "RETRY_ATTEMPTS": "10"}
    running = door.start(*battlefield.arguments(url), env=env)
    with psycopg.connect(url, autocommit=True) as watching:
        while not _records(watching):
            assert not running.ended_within(0.01), running.stderr
    own_server.stop(how=signal.SIGQUIT)
    own_server.start()
    running.wait().expect(BROKEN)
    assert content_of(url).difference(battlefield.first.content) == ""
    assert leftovers(url) == []
    assert error_repeats(url) == []


@pytest.mark.timeout(120)
def test_a_server_that_does_not_come_back(
    door: Door, battlefield: Battlefield, own_server: PostgresServer
) -> None:
    url = own_server.url(own_server.database())
    env = {**SETTINGS, "RETRY_ATTEMPTS": "2"}
    running = door.start(*battlefield.arguments(url), env=env)
    with psycopg.connect(url, autocommit=True) as watching:
        while not _records(watching):
            assert not running.ended_within(0.01), running.stderr
    own_server.stop(how=signal.SIGQUIT)
    gone = running.wait().expect(3)
    assert "Error:" in gone.stderr
    own_server.start()
    door.run(*battlefield.arguments(url), env=SETTINGS).expect(BROKEN)
    assert content_of(url).difference(battlefield.first.content) == ""
    assert leftovers(url) == []


def _records(conn: psycopg.Connection) -> bool:
    time.sleep(0.005)  # polling another process's progress
    there = conn.execute("SELECT to_regclass('tokenrecords') IS NOT NULL").fetchone()
    if there != (True,):
        return False
    return conn.execute("SELECT 1 FROM tokenrecords LIMIT 1").fetchone() is not None
