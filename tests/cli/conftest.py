"""The command line, in this process where that is the same, else in one of its own."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync import log
from rubix_token_sync.cli import main
from rubix_token_sync.testing import FleetPlan, make_fleet

PROGRAM = [sys.executable, "-m", "rubix_token_sync"]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed

    def error(self, code: int, name: str) -> dict[str, Any]:
        """The error document, having seen that it is this one and no accident."""
        assert self.code == code, self.out + self.err
        assert "Traceback" not in self.err
        error: dict[str, Any] = self.document["error"]
        assert (self.document["exit_code"], error["code"]) == (code, name)
        return error


Run = Callable[..., Ended]


def clean_environment() -> dict[str, str]:
    """This process's, without anything that the program would take for a setting."""
    guide = {"NUM_IPFS_WORKERS", "IPFS_TIMEOUT", "BATCH_SIZE", "BULK_INSERT_SIZE",
             "CONNECTION_POOL_SIZE", "RETRY_ATTEMPTS"}  # fmt: skip
    return {
        name: value
        for name, value in os.environ.items()
        if name not in guide and not name.startswith("RUBIX_SYNC_")
    }


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test works in an empty directory, with no setting from outside."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)
    yield
    log.tear_down()


def call_program(*arguments: object) -> Ended:
    """Call the program in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert isinstance(left.value.code, int)
    return Ended(left.value.code, out.getvalue(), err.getvalue())


@pytest.fixture
def run() -> Run:
    """Call the program in this process."""
    return call_program


@pytest.fixture
def start() -> Run:
    """Call the program in a process of its own."""

    def call(*arguments: object, **environment: str) -> Ended:
        ended = subprocess.run(
            [*PROGRAM, *map(str, arguments)],
            capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
            env={**clean_environment(), **environment},
        )  # fmt: skip
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return call


@pytest.fixture(scope="session")
def made_fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nodes of 60 tokens, one in ten of them without content; only to be read."""
    directory = tmp_path_factory.mktemp("made") / "fleet"
    make_fleet(directory, FleetPlan(nodes=2, tokens_per_node=60, absent=0.1))
    return directory


@pytest.fixture
def nodes(made_fleet: Path, tmp_path: Path) -> Path:
    """A private copy of it."""
    return shutil.copytree(made_fleet, tmp_path / "nodes")


@pytest.fixture
def broken(nodes: Path) -> Path:
    """The same with a third node whose database is none."""
    path = nodes / "node003" / "Rubix" / "rubix.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database")
    return nodes
