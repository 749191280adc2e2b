"""Private copies: private, and gone whatever happens."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import rubix_token_sync.nodes.snapshot as snapshot_module
from rubix_token_sync.errors import SourceError
from rubix_token_sync.node_files import bounded
from rubix_token_sync.nodes.database_files import Files
from rubix_token_sync.nodes.private_copy import PrivateCopy, sweep
from rubix_token_sync.nodes.snapshot import open_snapshot
from rubix_token_sync.scratch import Scratch

from .databases import Writer, fill, read, tree

Start = Callable[..., Writer]


@pytest.fixture
def crashed(database: Path, writer: Start) -> Path:
    """A database that can only be read as a private copy."""
    fill(database, mode="wal")
    node = writer(database, "idle", "wal")
    node.line()
    node.kill()
    database.with_name("rubix.db-shm").unlink()
    return database


def test_nobody_else_can_read_a_copy(database: Path, scratch: Path) -> None:
    fill(database)
    database.chmod(0o666)
    bounded(partial(_copied, database, scratch))


def _copied(database: Path, scratch: Path) -> None:
    with Files(str(database)) as files:
        copy = PrivateCopy(files, [], Scratch(str(scratch)))
        inside = Path(copy.path)
        assert stat.S_IMODE(inside.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(inside.stat().st_mode) == 0o600
        assert inside.read_bytes() == database.read_bytes()
        assert sweep(str(scratch)) == 0  # its maker lives
        copy.remove()
        copy.remove()
    assert list(scratch.iterdir()) == []


KILLED = """
import os, sys
import rubix_token_sync.nodes.private_copy as scratch
from rubix_token_sync.nodes.snapshot import open_snapshot
def copied(fd, size, target, progress):
    open(target, "wb").close()
    os.kill(os.getpid(), 9)
scratch.copy_bytes = copied
open_snapshot(sys.argv[1], sys.argv[2])
"""


def test_the_next_run_removes_what_a_killed_one_left(crashed: Path, scratch: Path) -> None:
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(crashed), str(scratch)], check=False
        )
        assert done.returncode == -9
        assert len(list(scratch.iterdir())) == 1  # the second run removed the first one's
    other = scratch / "rubix-token-sync-of-somebody"
    other.symlink_to("/")
    (scratch / "unrelated").mkdir()
    assert len(read(crashed, scratch)) == 200
    assert sorted(path.name for path in scratch.iterdir()) == [other.name, "unrelated"]


@pytest.mark.parametrize("point", ["source.copy", "source.connect", "source.read"])
@pytest.mark.parametrize("action", ["kill", "error"])
def test_killed_or_failing_at_every_point(
    point: str, action: str, crashed: Path, scratch: Path
) -> None:
    before = tree(crashed.parent)
    program = (
        "import sys; from rubix_token_sync.nodes.snapshot import open_snapshot as o; "
        "o(*sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(crashed), str(scratch)],
        env={**os.environ, "RUBIX_SYNC_FAULT": f"{point}:1:{action}"},
        capture_output=True,
        text=True,
    )
    if action == "kill":
        assert done.returncode == -9
    else:
        assert "SourceError" in done.stderr
        assert list(scratch.iterdir()) == []
    assert tree(crashed.parent) == before
    sweep(str(scratch))
    assert list(scratch.iterdir()) == []


def test_no_room(crashed: Path, scratch: Path) -> None:
    with pytest.raises(SourceError) as caught:
        open_snapshot(str(crashed), Scratch(str(scratch), margin_bytes=2**60))
    assert caught.value.code == "no_scratch_space"
    assert str(scratch) in caught.value.message
    assert caught.value.context["needed"] > crashed.stat().st_size
    assert list(scratch.iterdir()) == []


def test_the_disk_fills_up_while_copying(crashed: Path, scratch: Path) -> None:
    """A real full disk, where one can be mounted (a limit of file size elsewhere)."""
    program = (
        "import resource, signal, sys; from rubix_token_sync.nodes.snapshot import open_snapshot\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "open_snapshot(*sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(crashed), str(scratch)], capture_output=True, text=True
    )
    assert "no_scratch_space" in done.stderr or "Set `scratch`" in done.stderr
    assert list(scratch.iterdir()) == []


def test_no_such_scratch_directory(crashed: Path, scratch: Path) -> None:
    with pytest.raises(SourceError) as caught:
        read(crashed, scratch / "missing")
    assert caught.value.code == "no_scratch_space"


def test_a_read_only_scratch_directory(crashed: Path, scratch: Path) -> None:
    user = os.geteuid()
    if user == 0:
        for parent in (crashed, scratch, *list(crashed.parents)[:-2]):
            parent.chmod(parent.stat().st_mode | 0o055)
        crashed.with_name("rubix.db-wal").chmod(0o644)
        os.seteuid(65534)
    else:
        scratch.chmod(0o500)
    try:
        with pytest.raises(SourceError) as caught:
            read(crashed, scratch)
    finally:
        os.seteuid(user)
        scratch.chmod(0o700)
    assert caught.value.code == "no_scratch_space"
    assert "permission denied" in caught.value.message


def test_a_node_that_restarts_is_not_kept_waiting(
    crashed: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, writer: Start
) -> None:
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", 10)
    with open_snapshot(str(crashed), str(scratch)) as snapshot:
        assert snapshot.way == "copy"
        node = writer(crashed, "idle", "delete")  # needs the database for itself
        assert node.line() == "ready"
        assert sum(len(batch.rows) for batch in snapshot.rows(50)) == 200
        node.finish()


def test_the_copy_stays_readable_without_its_names(
    crashed: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "HEAD_ROWS", 10)
    with open_snapshot(str(crashed), str(scratch)) as snapshot:
        shutil.rmtree(scratch)
        assert sum(len(batch.rows) for batch in snapshot.rows(50)) == 200
        assert snapshot.count == 200
