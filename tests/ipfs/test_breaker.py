"""Breakers and askers: when requests are kept back, tried again, and how many run at once."""

from __future__ import annotations

import threading

import pytest

from rubix_token_sync.ipfs.cid import Cid
from rubix_token_sync.ipfs.content import Failure, FailureCode
from rubix_token_sync.ipfs.http.breaker import COOL_S, LONGEST_S, THRESHOLD, Breaker, breaker_of
from rubix_token_sync.ipfs.http.retry import (
    LONGEST_PAUSE_S,
    Askers,
    PassingError,
    Persistence,
    retry_after,
)
from tests.ipfs.trees import cid_of

LATE = Failure(FailureCode.TIMED_OUT, "late")
GONE = Failure(FailureCode.DAEMON_NOT_RUNNING, "gone")
CID = cid_of(b"token")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock=clock)
    for _ in range(THRESHOLD):
        assert breaker.check() is None
        breaker.failed(LATE)
    return breaker


def test_it_opens_after_failures_in_a_row_and_tells_the_one_that_opened_it() -> None:
    breaker = Breaker(clock=Clock())
    for _ in range(3):  # successes in between keep it closed
        for _ in range(THRESHOLD - 1):
            breaker.failed(LATE)
            assert breaker.check() is None
        breaker.succeeded()
    for _ in range(THRESHOLD):
        assert not breaker.open
        breaker.failed(LATE)
    assert breaker.open
    assert breaker.check() == breaker.resting() == LATE


def test_some_failures_open_it_at_once() -> None:
    breaker = Breaker(clock=Clock())
    breaker.failed(GONE, at_once=True)
    assert breaker.check() == GONE


def test_one_probe_goes_out_when_its_time_is_over() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += COOL_S - 0.1
    assert breaker.check() == LATE
    clock.now += 0.2
    assert breaker.resting() is None
    assert breaker.check() is None
    assert breaker.check() == LATE  # the second one waits
    breaker.succeeded()
    assert breaker.check() is None
    assert not breaker.open


def test_a_failed_probe_doubles_the_rest_up_to_a_bound() -> None:
    clock = Clock()
    breaker = opened(clock)
    rest = COOL_S
    for _ in range(8):
        clock.now += rest
        assert breaker.check() is None
        breaker.failed(GONE)
        assert breaker.check() == GONE
        rest = min(rest * 2, LONGEST_S)
        clock.now += rest - 0.1
        assert breaker.check() == GONE
        clock.now += 0.1
        clock.now -= rest
    breaker.succeeded()
    for _ in range(THRESHOLD):
        breaker.failed(LATE)
    clock.now += COOL_S
    assert breaker.check() is None  # an answer made it forget the doubled rest


def test_requests_that_were_under_way_do_not_prolong_the_rest() -> None:
    clock = Clock()
    breaker = opened(clock)
    for _ in range(50):
        breaker.failed(GONE)
    assert breaker.check() == LATE
    clock.now += COOL_S
    assert breaker.check() is None


def test_a_probe_whose_outcome_is_never_told_blocks_nobody_for_ever() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += COOL_S
    assert breaker.check() is None
    clock.now += COOL_S
    assert breaker.check() is None


def test_breakers_are_shared_by_name() -> None:
    assert breaker_of("http://a") is breaker_of("http://a")
    assert breaker_of("http://a") is not breaker_of("http://b")


def test_attempts_are_counted_and_their_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    tried: list[Cid] = []

    def attempt(cid: Cid) -> bytes:
        tried.append(cid)
        raise PassingError(LATE)

    answer = Persistence(8).block(attempt, CID)
    assert answer == Failure(FailureCode.TIMED_OUT, "late (tried 8 times)")
    assert len(tried) == 8
    assert len(pauses) == 7
    assert all(
        0 <= pause <= min(0.25 * 2**index, LONGEST_PAUSE_S) for index, pause in enumerate(pauses)
    )
    assert len(set(pauses)) > 1  # at random


def test_a_pause_that_the_endpoint_asks_for_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    answers: list[bytes | None] = [None, b"block"]

    def attempt(cid: Cid) -> bytes:
        answer = answers.pop(0)
        if answer is None:
            raise PassingError(LATE, 3.5)
        return answer

    assert Persistence(2).block(attempt, CID) == b"block"
    assert pauses == [3.5]


def test_what_cannot_change_is_not_tried_again() -> None:
    tried = 0

    def attempt(cid: Cid) -> Failure:
        nonlocal tried
        tried += 1
        return GONE

    assert Persistence(5).block(attempt, CID) is GONE
    assert tried == 1
    once = Persistence(1)

    def passing(cid: Cid) -> bytes:
        raise PassingError(LATE)

    assert once.block(passing, CID) == Failure(FailureCode.TIMED_OUT, "late (tried once)")


@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_askers_keep_order_and_bound(count: int) -> None:
    lock = threading.Lock()
    busy = busiest = 0

    def work(item: int) -> int:
        nonlocal busy, busiest
        with lock:
            busy += 1
            busiest = max(busiest, busy)
        with lock:
            busy -= 1
        return item * item

    askers = Askers(count)
    assert askers.map(work, range(1000)) == [item * item for item in range(1000)]
    assert askers.map(work, []) == []
    assert askers.map(work, [3]) == [9]
    assert busiest <= count
    askers.close()


@pytest.mark.parametrize("count", [1, 4])
def test_what_work_raises_ends_the_list(count: int) -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 10:
            raise ZeroDivisionError("a mistake of ours")
        done.append(item)

    askers = Askers(count)
    with pytest.raises(ZeroDivisionError):
        askers.map(work, range(1_000_000))
    assert len(done) < 1_000_000 - 1
    askers.close()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 5 ", 5.0),
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("9" * 400, None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds
