"""One target of each kind for all of a module's tests, each of which has sources of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import TargetAddress, open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.targets.conftest import KINDS, named_server


@pytest.fixture(scope="module", params=KINDS)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TargetAddress]:
    if request.param == "sqlite":
        yield parse_target(f"sqlite:///{tmp_path_factory.mktemp('history')}/target.db")
    elif request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        name = server.database()
        yield parse_target(server.url(name))
        server.drop(name)
    else:
        named = named_server()
        if named is None:
            pytest.skip("RUBIX_TEST_MSSQL names no server")
        yield named


@pytest.fixture(scope="module")
def opened(place: TargetAddress) -> Iterator[Callable[[], SqlTarget]]:
    """Opens the target once more; it does not wait between attempts."""
    stores: list[SqlTarget] = []

    def open_it() -> SqlTarget:
        stores.append(open_target(place, TargetOptions(wait_factor=0.001)))
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()


@pytest.fixture(scope="module")
def store(opened: Callable[[], SqlTarget]) -> SqlTarget:
    """A target with its tables."""
    store = opened()
    store.ensure_schema()
    return store
