"""A wish to stop is taken at safe points, and at once only where nothing is half done."""

from __future__ import annotations

import pytest

from rubix_token_sync.runs.cancel import CancelToken, Interrupted


def test_a_wish_waits_for_the_next_safe_point() -> None:
    stop = CancelToken()
    stop.check()
    stop.give(15)  # nothing is raised here, whatever is under way
    with pytest.raises(Interrupted) as raised:
        stop.check()
    assert raised.value.signal_number == 15


def test_a_stretch_is_broken_off_at_once() -> None:
    stop = CancelToken()
    after = []
    with pytest.raises(Interrupted), stop.at_once():  # noqa: PT012 - where it ends is the point
        stop.give(2)
        after.append("the stretch went on")
    assert after == []
    stop.give(2)  # after it, wishes wait again


def test_a_stretch_does_not_begin_after_the_wish() -> None:
    stop = CancelToken()
    stop.give(2)
    with pytest.raises(Interrupted), stop.at_once():
        pytest.fail("the stretch began")
    stop.give(2)


def test_after_a_stretch_wishes_wait_again() -> None:
    stop = CancelToken()
    with stop.at_once():
        pass
    stop.give(2)
    assert stop.signal_number == 2


def test_it_is_no_exception_that_somebody_catches_by_accident() -> None:
    assert not issubclass(Interrupted, Exception)
