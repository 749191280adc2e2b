"""A fleet synced into every target that can be had, and the command line in this process."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rubix_token_sync import log
from rubix_token_sync.cli import _run
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.chaos.door import Door
from tests.postgres_server import PostgresServer
from tests.targets.conftest import named_server


@dataclass
class Answer:
    """What a command gave back."""

    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its one document."""
        return json.loads(self.out)


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Answer]]:
    """Runs the command line as a user does, in this process."""
    for name in list(os.environ):
        if name.startswith("RUBIX_SYNC_"):
            monkeypatch.delenv(name)

    def run_it(*arguments: str) -> Answer:
        capsys.readouterr()
        exit_code = _run(list(arguments))
        captured = capsys.readouterr()
        return Answer(exit_code, captured.out, captured.err)

    yield run_it
    log.tear_down()


@pytest.fixture(params=["sqlite", "postgresql", "mssql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty target."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/target.db"
    if request.param == "mssql":
        if named_server() is None:
            pytest.skip("RUBIX_TEST_MSSQL names no server")
        return os.environ["RUBIX_TEST_MSSQL"]
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def ask(run: Callable[..., Answer], target: str) -> Callable[..., Answer]:
    """Runs a command on the target."""
    return lambda command, *arguments: run(command, "--target", target, *arguments)


def _sync(door: Door, fleet: Path, target: str, home: Path) -> None:
    """The fleet, synced once by source ``vm1``; three of its databases cannot be processed."""
    more = ("--source-ip", "vm1", "--report", str(home / "reports"))
    door.run("sync", str(fleet), "--target", target, *more).expect(1)


@pytest.fixture(scope="session")
def synced_file(door: Door, unpacked_fleet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite target with the fleet in it, to be copied."""
    home = tmp_path_factory.mktemp("synced")
    _sync(door, unpacked_fleet, f"sqlite:///{home}/target.db", home)
    return home / "target.db"


@pytest.fixture(scope="session")
def synced_database(
    door: Door,
    unpacked_fleet: Path,
    postgres_server: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """The name of a PostgreSQL database with the fleet in it, to be copied."""
    name = postgres_server.database()
    _sync(door, unpacked_fleet, postgres_server.url(name), tmp_path_factory.mktemp("synced"))
    return name


@pytest.fixture
def synced(
    request: pytest.FixtureRequest, target: str, unpacked_fleet: Path, tmp_path: Path
) -> Path:
    """The target holds the fleet, which is only to be read."""
    if target.startswith("sqlite"):
        shutil.copy(request.getfixturevalue("synced_file"), tmp_path / "target.db")
    elif target.startswith("postgresql"):
        server: PostgresServer = request.getfixturevalue("postgres_server")
        name = urlsplit(target).path.removeprefix("/")
        template = request.getfixturevalue("synced_database")
        server.admin(
            f"DROP DATABASE {name}", f"CREATE DATABASE {name} OWNER rubix TEMPLATE {template}"
        )
    else:
        _sync(request.getfixturevalue("door"), unpacked_fleet, target, tmp_path)
    return unpacked_fleet


@pytest.fixture
def store(target: str) -> Iterator[SqlTarget]:
    """The target, to look at it and to change it behind the program's back."""
    store = open_target(parse_target(target), TargetOptions())
    yield store
    store.close()
