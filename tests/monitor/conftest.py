"""A fleet synced into every target that can be had, and the command line in this process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync import log
from rubix_token_sync.cli import _run
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget
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


@pytest.fixture
def synced(ask: Callable[..., Answer], fleet: Path, tmp_path: Path) -> Path:
    """The fleet, synced once by source ``vm1``; three of its databases cannot be processed."""
    done = ask("sync", str(fleet), "--source-ip", "vm1", "--report", str(tmp_path / "reports"))
    assert done.exit_code == 1
    return fleet


@pytest.fixture
def store(target: str) -> Iterator[SqlTarget]:
    """The target, to look at it and to change it behind the program's back."""
    store = open_target(parse_target(target), TargetOptions())
    yield store
    store.close()
