"""A running TDS server over an empty target, and stores that talk to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget

from .certificate import make_certificate
from .engine import SqliteEngine
from .server import TdsServer


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Files of a self-signed certificate for 127.0.0.1 and of its key."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def engine(tmp_path: Path) -> SqliteEngine:
    return SqliteEngine(tmp_path / "server.db")


@pytest.fixture
def server(engine: SqliteEngine, certificate: tuple[str, str]) -> Iterator[TdsServer]:
    with TdsServer(engine, *certificate) as running:
        yield running


@pytest.fixture
def address(server: TdsServer) -> str:
    """The connection string (ADO.NET) of the server, with its hostile password."""
    password = server.password.replace('"', '""')
    return (
        f"Server=tcp:127.0.0.1,{server.port};Initial Catalog=tokens;User ID={server.user};"
        f'Password="{password}";TrustServerCertificate=True;Connection Timeout=5'
    )


@pytest.fixture
def opened(address: str) -> Iterator[Callable[..., SqlTarget]]:
    """Opens stores on the server; their waits between attempts are short."""
    stores: list[SqlTarget] = []

    def open_it(**options: object) -> SqlTarget:
        given = {"call_seconds": 20.0, "wait_factor": 0.001, **options}
        stores.append(open_target(parse_target(address), TargetOptions(**given)))  # type: ignore[arg-type]
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[..., SqlTarget]) -> SqlTarget:
    return opened()
