"""File systems that do not answer, no handles left, interrupted waits."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import rubix_token_sync.nodes.snapshot as snapshot_module
from rubix_token_sync.errors import SourceError, SourceUnsettled
from rubix_token_sync.node_files import BoundedCalls
from rubix_token_sync.nodes.snapshot import fingerprint, open_snapshot

from .databases import everything, fill


@pytest.fixture
def dead_mount(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system whose server never answers (a FUSE one, without a server)."""
    where = tmp_path / "dead"
    where.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    if libc.mount(b"dead", os.fsencode(where), b"fuse", 0, options.encode()):
        os.close(device)
        pytest.skip(f"may not mount here: {errno.errorcode[ctypes.get_errno()]}")
    yield where
    os.close(device)  # whoever waits gets an error now
    assert libc.umount2(os.fsencode(where), 2) == 0  # MNT_DETACH


def test_a_dead_mount(dead_mount: Path) -> None:
    path = str(dead_mount / "node1" / "Rubix" / "rubix.db")
    for look in (fingerprint, open_snapshot):
        with pytest.raises(SourceError) as caught:
            look(path, stall_s=0.2)
        assert caught.value.code == "stalled"
        assert "0.2 s" in caught.value.message


@pytest.mark.parametrize(("point", "nth"), [("source.open", 1), ("source.read", 1)])
def test_stalls_while_opening(point: str, nth: int, database: Path) -> None:
    fill(database)
    said = _stalled(database, point, nth, "open_snapshot(path, stall_s=0.3)")
    assert said == "stalled"


def test_stalls_in_the_middle(database: Path) -> None:
    """Rows before the stall were right; the process ends although a call hangs."""
    fill(database)
    said = _stalled(
        database,
        "source.read",
        4,
        "s.HEAD_ROWS = 10; snapshot = open_snapshot(path, stall_s=0.3);"
        "[seen.extend(batch.rows) for batch in snapshot.rows(50)]",
    )
    assert said == "stalled after 110"


def _stalled(database: Path, point: str, nth: int, calls: str) -> str:
    program = f"""
import sys
import rubix_token_sync.nodes.snapshot as s
from rubix_token_sync.nodes.snapshot import open_snapshot
path = sys.argv[1]
seen = []
try:
    {calls}
except s.SourceUnsettled:
    raise
except Exception as error:
    print(error.code, f"after {{len(seen)}}" if seen else "")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(database)],
        env={**os.environ, "RUBIX_SYNC_FAULT": f"{point}:{nth}:stall"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_slow_is_not_stalled() -> None:
    calls = BoundedCalls(0.2)
    steps = iter(range(8))
    gate = threading.Event()

    def slow() -> str:
        for _ in steps:
            gate.wait(0.1)
            calls.progress()
        return "done"

    assert calls.call(slow) == "done"
    calls.close()


def test_a_late_result_is_given_back() -> None:
    calls = BoundedCalls(0.05)
    gate, given = threading.Event(), threading.Event()
    with pytest.raises(SourceError) as caught:
        calls.call(lambda: gate.wait(30), if_late=lambda _: given.set())
    assert caught.value.code == "stalled"
    with pytest.raises(SourceError):
        calls.call(lambda: None)
    last = threading.Event()
    calls.close(last.set)
    assert not last.is_set()
    gate.set()
    assert given.wait(10)
    assert last.wait(10)


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    calls = BoundedCalls()
    with pytest.raises(RuntimeError, match="can't start"):
        calls.call(lambda: 1)
    calls.close()


def test_errors_come_through() -> None:
    calls = BoundedCalls(5)
    with pytest.raises(ZeroDivisionError):
        calls.call(lambda: 1 // 0)
    assert calls.call(lambda: 7) == 7
    calls.close()


INTERRUPTED = """
import os, signal, sys, threading
import rubix_token_sync.nodes.snapshot as s
from rubix_token_sync.nodes.snapshot import open_snapshot
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
s.HEAD_ROWS = 10
started = threading.Event()
def endless(self):
    started.set()
    self._opened.connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    ).fetchall()
s.Snapshot._count_rows = endless
def kill():
    started.wait()
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=kill).start()
try:
    with open_snapshot(sys.argv[1]) as snapshot:
        snapshot.count
except KeyboardInterrupt:
    print("interrupted")
"""


def test_interrupted_in_a_long_call(database: Path) -> None:
    """Ctrl-C ends the statement under way; closing does not pull it away from under it."""
    fill(database)
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(database)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_no_handles_left(database: Path, scratch: Path) -> None:
    """Said as such, wherever it happens, and worth another try later."""
    fill(database, mode="wal")
    node = sqlite3.connect(database)
    node.execute("UPDATE TokensTable SET token_status = 1")
    node.commit()
    opened = [os.open(os.devnull, os.O_RDONLY)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    codes = set()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened[0] + 40, limits[1]))
        while True:
            try:
                opened.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        for _ in range(12):
            try:
                with open_snapshot(str(database), str(scratch), busy_s=0) as snapshot:
                    rows = everything(snapshot)
                break
            except SourceUnsettled as error:
                codes.add(error.code)
                os.close(opened.pop())
    finally:
        for fd in opened:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        node.close()
    assert codes == {"too_many_files"}
    assert len(rows) == 200
    assert list(scratch.iterdir()) == []


def test_no_handle_is_left_open(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(database)
    broken = fill(database.with_name("broken.db"), 2000)
    broken.write_bytes(broken.read_bytes()[:9000])
    count = len(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    for head in (10, 50_000):
        monkeypatch.setattr(snapshot_module, "HEAD_ROWS", head)
        for _ in range(3):
            with open_snapshot(str(database)) as snapshot:
                next(snapshot.rows(5))
            fingerprint(str(database))
            with pytest.raises(SourceError):
                open_snapshot(str(broken))
            with pytest.raises(SourceError):
                open_snapshot(str(database.with_name("missing.db")))
    assert len(os.listdir("/proc/self/fd")) == count
    assert threading.active_count() == threads
