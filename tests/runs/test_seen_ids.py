"""Repeated ids are found exactly, whatever their types and however they are spread."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.records.schema import SqliteValue
from rubix_token_sync.runs.seen_ids import EXACT_IDS, SeenIds

values = st.one_of(
    st.none(), st.integers(0, 9), st.sampled_from([0.0, 1.0, 2.5]), st.text("ab", max_size=2),
    st.binary(max_size=1), st.sampled_from(["\udc80", "1"]),
)  # fmt: skip


@given(st.lists(st.lists(values, max_size=30), max_size=6))
def test_as_a_set_of_typed_values_finds_them(batches: list[list[SqliteValue]]) -> None:
    seen, truth = SeenIds(), set()
    for ids in batches:
        expected = []
        for at, value in enumerate(ids):
            key = (type(value), value)
            if value is not None and key in truth:
                expected.append(at)
            truth.add(key)
        assert seen.repeated(ids) == expected
        assert seen.nulls is (None in ids)


def test_many() -> None:
    seen = SeenIds()
    ids = [f"token{number}" for number in range(120_000)]
    assert all(
        seen.repeated(ids[start : start + 7_000]) == [] for start in range(0, 120_000, 7_000)
    )
    assert seen.repeated([*ids[:10], "new", "new"]) == [*range(10), 11]


def test_a_promise_that_is_broken_late() -> None:
    seen = SeenIds(promised=True)
    ids = [f"token{number}" for number in range(EXACT_IDS)]
    assert seen.repeated(ids) == []
    assert seen.repeated(["x", "y", "x"]) == [2]
    assert seen.repeated(["z", "token7"]) == []
    assert seen.broken_promises() == 1
    assert seen.repeated(["x"]) == []
    assert seen.broken_promises() == 2
