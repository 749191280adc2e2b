"""The curve of a run's rate."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.runs.curve import FINEST_SECONDS, MOST_POINTS, Curve


@given(
    steps=st.lists(
        st.tuples(st.floats(0.001, 100), st.integers(0, 10_000)), min_size=1, max_size=2000
    )
)
def test_bounded_in_order_and_ends_at_the_newest(steps: list[tuple[float, int]]) -> None:
    curve = Curve()
    seconds, tokens = 0.0, 0
    told = None
    for step, more in steps:
        seconds, tokens = seconds + step, tokens + more
        curve.note(seconds, tokens)
        if told is None or tokens != told[1]:
            told = (seconds, tokens)
    points = curve.points
    assert len(points) <= MOST_POINTS + 1
    assert points == sorted(points)
    assert points[-1] == told
    samples = curve.samples()
    assert all(sample["tokens_per_second"] >= 0 for sample in samples)
    assert samples[-1]["tokens_read"] == points[-1][1]


def test_a_long_run_is_drawn_evenly() -> None:
    curve = Curve()
    for n in range(1, 100_001):
        curve.note(n * 0.05, n * 100)
    points = curve.points
    assert MOST_POINTS / 4 < len(points) <= MOST_POINTS + 1
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(points[:-1])]
    assert max(gaps) <= 3 * min(gaps)
    assert [s["tokens_per_second"] for s in curve.samples()] == pytest.approx(
        [2000.0] * len(points), rel=1e-3
    )


def test_nothing_read_is_no_point() -> None:
    curve = Curve()
    curve.note(FINEST_SECONDS, 5)
    curve.note(FINEST_SECONDS * 9, 5)
    assert curve.points == [(FINEST_SECONDS, 5)]
    assert Curve().samples() == []
