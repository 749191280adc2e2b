"""Fixtures of the chaos tests: the field that faults are tried on, and its server's databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rubix_token_sync.installation import LEVELDB
from tests.chaos.battlefield import Battlefield
from tests.chaos.door import Door
from tests.chaos.server_states import ServerStates
from tests.postgres_server import PostgresServer


@pytest.fixture(scope="session")
def battlefield(door: Door, tmp_path_factory: pytest.TempPathFactory) -> Battlefield:
    """The small fleet and what undisturbed runs make of it; only to be read."""
    return Battlefield.make(tmp_path_factory.mktemp("field"), door)


@pytest.fixture(scope="session")
def chained_field(door: Door, tmp_path_factory: pytest.TempPathFactory) -> Battlefield:
    """A smaller fleet whose chains are read as well; only to be read."""
    pytest.importorskip(LEVELDB)
    return Battlefield.make_chained(tmp_path_factory.mktemp("chained"), door)


@pytest.fixture(scope="session")
def _states(postgres_server: PostgresServer, battlefield: Battlefield) -> ServerStates:
    return ServerStates(postgres_server, battlefield)


@pytest.fixture
def states(_states: ServerStates) -> Iterator[ServerStates]:
    """PostgreSQL databases as the phases start from; they end with the test."""
    yield _states
    _states.drop_all()
