"""A session holds its lease, tells that it lives, and notices when it may no longer write."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from rubix_token_sync import node_files
from rubix_token_sync.errors import (
    LeaseHeld,
    LeaseLost,
    SyncError,
    TargetRefused,
    TargetUnavailable,
)
from rubix_token_sync.runs.session import Session
from rubix_token_sync.targets.base import Lease, SessionTotals, Target

LONG = 20.0


class FakeStore:
    """Notes what is called; a test says what a call raises."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.raises: dict[str, Exception] = {}
        self.beats: Iterator[Exception | None] = iter(())
        self.beaten = threading.Semaphore(0)

    def _note(self, name: str) -> None:
        self.calls.append(name)
        if name in self.raises:
            raise self.raises[name]

    def acquire_lease(self, lease: Lease, holder: str, machine: object = None) -> None:
        assert holder.count("|") == 3
        self._note("acquire")

    def start_session(self, session: str, source: str, host: str, pid: int, command: str) -> int:
        self._note("start")
        return 2

    def heartbeat(self, lease: Lease, totals: SessionTotals) -> None:
        error = next(self.beats, None)
        self.beaten.release()
        if error is not None:
            raise error

    def finish_session(self, lease: Lease, status: str, totals: SessionTotals, why: str) -> None:
        self._note(f"finish {status}")

    def release_lease(self, lease: Lease) -> None:
        self._note("release")


def _session(store: FakeStore, *, pause: float = 0.001, patience: float = LONG) -> Session:
    return Session(
        cast(Target, store), "10.0.0.4", "sync",
        totals=SessionTotals, heartbeat_seconds=pause, lease_seconds=patience,
    )  # fmt: skip


def test_a_heartbeat_vouches_for_progress(caplog: pytest.LogCaptureFixture) -> None:
    """A run that hangs where nobody looked is stuck, however lively its threads are."""
    store = FakeStore()
    session = Session(
        cast(Target, store), "10.0.0.4", "sync", totals=SessionTotals,
        heartbeat_seconds=0.001, lease_seconds=LONG, stall_seconds=0.2,
    )  # fmt: skip

    def beats_within(seconds: float) -> bool:
        while store.beaten.acquire(blocking=False):
            pass  # those before
        return store.beaten.acquire(timeout=seconds)

    def falls_silent() -> None:
        until = time.monotonic() + LONG
        while beats_within(0.3):
            assert time.monotonic() < until

    with session, caplog.at_level("ERROR"):
        session.start()
        assert beats_within(LONG)
        falls_silent()
        assert [record.getMessage() for record in caplog.records] == [
            "Nothing has moved for 0.2 s; the lease is not renewed."
        ]
        session.touch()
        assert beats_within(LONG)
        falls_silent()
        with session.occupied():
            assert beats_within(LONG)
        falls_silent()
        node_files.stat(".")  # a node's file system that answers is progress, too
        assert beats_within(LONG)


def _beat_until(store: FakeStore, session: Session, wanted: Callable[[], bool]) -> None:
    for _ in range(1000):
        if wanted():
            return
        store.beaten.acquire(timeout=0.05)
    pytest.fail("the heartbeat never came to it")


def test_lease_first_and_given_back_last() -> None:
    store = FakeStore()
    with _session(store) as session:
        assert session.start() == 2
        assert store.beaten.acquire(timeout=LONG)
        session.finish("COMPLETED", SessionTotals(), None)
        assert session._thread is None or not session._thread.is_alive()
    assert store.calls == ["acquire", "start", "finish COMPLETED"]
    assert session.error is None


def test_a_lease_that_is_held_leaves_no_trace() -> None:
    store = FakeStore()
    store.raises = {"acquire": LeaseHeld("held", code="lease_held")}
    with _session(store) as session, pytest.raises(LeaseHeld):
        session.start()
    assert store.calls == ["acquire"]


def test_a_start_that_fails_gives_the_lease_back() -> None:
    store = FakeStore()
    error = TargetRefused("no", code="no")
    store.raises = {"start": error, "release": TargetUnavailable("gone", code="gone")}
    with _session(store) as session, pytest.raises(TargetRefused) as raised:
        session.start()
    assert raised.value is error  # not what came of giving the lease back
    assert store.calls[-1] == "release"
    assert session._thread is None or not session._thread.is_alive()


def test_a_lost_lease_is_noticed_and_ends_the_heartbeat() -> None:
    store = FakeStore()
    lost = LeaseLost("lost", code="lease_lost")
    store.beats = iter([None, lost])
    with _session(store) as session:
        session.start()
        session._thread.join(LONG)
        assert session._thread is None or not session._thread.is_alive()
        assert session.error is lost


def test_a_target_that_is_silent_for_a_moment_is_no_matter() -> None:
    store = FakeStore()
    gone = TargetUnavailable("gone", code="gone")
    store.beats = iter([gone, None, gone, gone, None])
    with _session(store) as session:
        session.start()
        for _ in range(6):
            assert store.beaten.acquire(timeout=LONG)
        assert session.error is None


def test_a_target_that_is_silent_for_longer_than_a_lease_ends_the_run() -> None:
    store = FakeStore()
    gone = TargetUnavailable("gone", code="gone")
    store.beats = iter([gone] * 1000)
    with _session(store, patience=0.0) as session:
        session.start()
        _beat_until(store, session, lambda: session.error is not None)
        assert session.error is gone


def test_a_bug_in_the_heartbeat_is_not_swallowed() -> None:
    store = FakeStore()
    store.beats = iter([ZeroDivisionError("oops")])
    with _session(store) as session:
        session.start()
        session._thread.join(LONG)
        assert isinstance(session.error, SyncError)
        assert session.error.code == "heartbeat_crashed"
        assert "ZeroDivisionError: oops" in str(session.error)


def test_the_heartbeat_ends_with_the_block_whatever_happens() -> None:
    store = FakeStore()
    session = _session(store)

    def run() -> None:
        with session:
            session.start()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert session._thread is None or not session._thread.is_alive()
