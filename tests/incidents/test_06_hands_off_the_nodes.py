"""6: nothing is ever written to, removed from or touched in a node's directories."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.incidents.conftest import Site
from tests.incidents.nodes import look

_COMMANDS = (
    "discover",
    "check",
    "sync",
    "sync --force",
    "verify",
    "retry-failed",
    "sync --dry-run",
)


@pytest.fixture
def guarded(site: Site) -> Iterator[Site]:
    """A live daemon's lock and API file, hot journals, WAL in every state: all as before."""
    for repository in site.fleet.rglob(".ipfs"):
        (repository / "repo.lock").touch()
        (repository / "api").write_text("/ip4/127.0.0.1/tcp/9")
    busy = Path(site.fleet, "node032/Rubix/rubix.db")
    wal = Path(site.fleet, "walnode/Rubix/rubix.db")
    wal.parent.mkdir(parents=True)
    shutil.copyfile(busy, wal)
    with closing(sqlite3.connect(wal)) as db:  # stays open: -wal and -shm exist
        db.execute("PRAGMA journal_mode=WAL")
        with db:
            db.execute("UPDATE TokensTable SET token_status = 16")
        before = look(site.fleet)
        yield site
        after = look(site.fleet)
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name] and name != f"{wal}-shm"] == []


def test_commands_leave_every_byte_and_time(guarded: Site) -> None:
    for command in _COMMANDS:
        name, *more = command.split()
        if name in ("sync", "retry-failed"):
            more += ["--report", str(guarded.reports)]
        guarded.run(name, *more, cwd=guarded.home).expect(0, 1)


@pytest.mark.parametrize("point", ["source.connect", "source.copy", "source.read", "worker.job"])
def test_a_killed_run_leaves_every_byte_and_time(guarded: Site, point: str) -> None:
    killed = guarded.run(
        "sync", "--report", str(guarded.reports), env={"RUBIX_SYNC_FAULT": f"{point}:2:kill"}
    )
    assert killed.code == -9
