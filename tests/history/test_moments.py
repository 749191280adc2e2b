"""Moments: how they are written, and which runs they have behind them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.history.moments import Runs, ended_runs, parse_when, runs_until
from rubix_token_sync.targets.sql.target import SqlTarget

from .fleet_made import Source, run_of


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0", Runs(0)),
        ("120", Runs(120)),
        ("120,122", Runs(120, ((122, 122),))),
        ("120,122-130,140", Runs(120, ((122, 130), (140, 140)))),
        ("2026-11-24", datetime(2026, 11, 24)),
        ("2026-11-24T06:00", datetime(2026, 11, 24, 6)),
        ("2026-11-24T06:00:00+02:00", datetime(2026, 11, 24, 4)),
        ("24h", timedelta(days=1)),
        ("120,110", None),
        ("yesterday", None),
        ("-3", None),
        ("", None),
    ],
)
def test_what_is_written(text: str, found: Runs | datetime | timedelta | None) -> None:
    assert parse_when(text) == found


_SETS = st.sets(st.integers(1, 30))


def _runs(numbers: set[int]) -> Runs:
    made = Runs(0)
    for number in numbers:
        made |= Runs(0, ((number, number),))
    return made


def _numbers(runs: Runs) -> set[int]:
    pairs = [(1, runs.upto), *runs.more]
    return {number for low, high in pairs for number in range(low, high + 1)}


@given(_SETS, _SETS, st.integers(0, 30))
def test_they_are_sets(one: set[int], other: set[int], last: int) -> None:
    runs = _runs(one)
    assert _numbers(runs) == one
    assert parse_when(str(runs)) == runs
    assert _numbers(runs | _runs(other)) == one | other
    assert _numbers(runs.cut(last)) == {number for number in one if number <= last}


def test_a_run_that_has_not_ended_is_left_out(store: SqlTarget) -> None:
    first, second = Source(store, "moments 1"), Source(store, "moments 2")
    lease = first.begin()
    open_one = run_of(store, lease)
    ended = second.run()
    tables = store.tables
    now = store.server_time()
    runs = store.read(lambda conn: ended_runs(conn, tables, now, now))
    assert {open_one, ended} & _numbers(runs) == {ended}
    store.release_lease(lease)
    now = store.server_time()
    runs = store.read(lambda conn: ended_runs(conn, tables, now, now))
    assert {open_one, ended} <= _numbers(runs)
    before = store.read(lambda conn: runs_until(conn, tables, timedelta(days=1), now))
    assert before == Runs(0)


@pytest.mark.parametrize(("when", "code"), [("soon", "not_a_moment"), (10**6, "no_such_run")])
def test_no_moment(store: SqlTarget, when: str | int, code: str) -> None:
    now = store.server_time()
    with pytest.raises(SettingsError) as refused:
        store.read(lambda conn: runs_until(conn, store.tables, when, now))
    assert refused.value.code == code
