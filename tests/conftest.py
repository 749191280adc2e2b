"""Fixtures that every test may use: the small fleet on disk and the truth about it."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
import tarfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from rubix_token_sync import failpoints
from rubix_token_sync.audit.judging import JudgeOptions, prepare_judge
from tests import one_result
from tests.chaos.door import Door
from tests.state import TABLES, scratch_in_memory

scratch_in_memory()

# A loaded machine makes an example slow, not wrong; each test has its own time limit.
settings.register_profile("here", deadline=None)
settings.load_profile("here")

# Compiled once: a suite that starts the program hundreds of times would compile it as often.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_configure(config: pytest.Config) -> None:
    """All tables before the first test, so that no verdict depends on the tests before."""
    one_result.watch()
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        prepare_judge(JudgeOptions(TABLES), ids=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected is kept: to look for cycles in it meanwhile takes a seventh of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


pytest_plugins = ["tests.postgres_server"]

ARCHIVE = Path(__file__).parent / "data" / "fleet.tar.gz"


_STOPS = (signal.SIGINT, signal.SIGTERM)
_HANDLERS = [signal.getsignal(number) for number in _STOPS]


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    """No fault outlives its test, nor does what is done about a stop: a child would inherit it."""
    yield
    failpoints.arm("")
    assert [signal.getsignal(number) for number in _STOPS] == _HANDLERS
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(_STOPS)


@pytest.fixture(scope="session")
def door() -> Iterator[Door]:
    """Commands in forked children of one warmed-up process: a tenth of a start's time."""
    with Door() as opened:
        yield opened


@pytest.fixture(scope="session")
def unpacked_fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fleet as unpacked once a session: only to be read (use `fleet` to change it)."""
    directory = tmp_path_factory.mktemp("fixture")
    with tarfile.open(ARCHIVE) as archive:
        # Modes matter (0600 blocks), so nothing is filtered: the archive is our own.
        archive.extractall(directory, filter="fully_trusted")
    return directory / "fleet"


@pytest.fixture
def fleet(unpacked_fleet: Path, tmp_path: Path) -> Path:
    """A fresh private copy of the fleet: bytes, modes, times and symlinks as in the archive."""
    return shutil.copytree(unpacked_fleet, tmp_path / "fleet", symlinks=True)


@pytest.fixture(scope="session")
def real_nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories of nine real nodes, unpacked once a session: only to be read."""
    directory = tmp_path_factory.mktemp("real")
    with tarfile.open(ARCHIVE.with_name("real_nodes.tar.gz")) as archive:
        archive.extractall(directory, filter="fully_trusted")
    return directory / "fixture"


@pytest.fixture(scope="session")
def expected(unpacked_fleet: Path) -> dict[str, list[dict[str, Any]]]:
    """The truth about the fleet: per database (path below the fleet), what each token has."""
    truth: dict[str, list[dict[str, Any]]] = json.loads(
        (unpacked_fleet / "expected.json").read_text(encoding="utf-8")
    )
    return truth


@pytest.fixture(scope="session")
def real_chains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directories ``Rubix`` of the real nodes, and truth.json: only to be read."""
    directory = tmp_path_factory.mktemp("chains")
    with tarfile.open(ARCHIVE.with_name("real_nodes.tar.gz")) as archive:
        wanted = [m for m in archive if "/Rubix" in m.name or m.name.endswith("truth.json")]
        archive.extractall(directory, wanted, filter="fully_trusted")
    return directory / "fixture"
