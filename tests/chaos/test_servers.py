"""What a server alone can do to a run: it crashes and is back, or stays away."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import psycopg
import pytest

from tests.chaos.battlefield import BROKEN, SETTINGS, Battlefield
from tests.chaos.door import Door
from tests.chaos.target_state import content_of, error_repeats, leftovers
from tests.postgres_server import PostgresServer


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
