"""Real Kubo where it is installed, and HTTP servers that behave as told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rubix_token_sync.ipfs.http.breaker import forget_breakers
from tests.ipfs.kubo import Kubo
from tests.ipfs.servers import Behaviour, Server, servers


@pytest.fixture(autouse=True)
def fresh_breakers() -> Iterator[None]:
    """No test inherits what another taught about an endpoint."""
    forget_breakers()
    yield
    forget_breakers()


@pytest.fixture
def serve() -> Iterator[Callable[[Behaviour], Server]]:
    """Start HTTP servers on this machine; they end with the test."""
    with servers() as start:
        yield start


@pytest.fixture(scope="session")
def kubo_program() -> str:
    """The real ``ipfs`` program, from RUBIX_TEST_KUBO or the search path."""
    program = os.environ.get("RUBIX_TEST_KUBO") or shutil.which("ipfs")
    if program is None:
        pytest.skip("no real Kubo: set RUBIX_TEST_KUBO to an ipfs program (CI does)")
    return os.path.abspath(program)


@pytest.fixture
def kubo(kubo_program: str, tmp_path: Path) -> Iterator[Kubo]:
    """Makes repositories and runs daemons on them; all end with the test."""
    made = Kubo(kubo_program, tmp_path)
    yield made
    made.stop()
