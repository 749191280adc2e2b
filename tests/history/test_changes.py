"""The feed of changes: applied one after the other, they make what the source was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from rubix_token_sync import failpoints
from rubix_token_sync.errors import SettingsError, TargetUnavailable
from rubix_token_sync.history import changes
from rubix_token_sync.history.prune import prune_history
from rubix_token_sync.library.history import PastReader
from rubix_token_sync.targets.base import Lease
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.audit.fleets import BEGAN, put_database

from .test_versions import _RUN, _play, _source


class Reader(PastReader):
    """The library's, over a store that is open."""

    def __init__(self, store: SqlTarget) -> None:
        self._store = store


def _newest(store: SqlTarget) -> int:
    runs = store.tables.runs
    return (
        store.read(lambda conn: conn.execute(sa.select(sa.func.max(runs.c.number))).scalar()) or 0
    )


@settings(max_examples=8, deadline=None)
@given(runs=st.lists(_RUN, min_size=2, max_size=5), splits=st.sets(st.integers(0, 4)))
def test_nothing_is_missed_and_nothing_comes_twice(
    store: SqlTarget, runs: list[tuple[dict[int, Any], str]], splits: set[int]
) -> None:
    """Whoever takes the cursor up again, wherever that is, gets every change once."""
    if store.kind != "sqlite":
        pytest.skip("the long form")
    _follow(store, runs, splits)


@pytest.mark.long
@settings(max_examples=30, deadline=None)
@given(runs=st.lists(_RUN, min_size=2, max_size=8), splits=st.sets(st.integers(0, 7)))
def test_every_change_once_in_many_runs(
    store: SqlTarget, runs: list[tuple[dict[int, Any], str]], splits: set[int]
) -> None:
    _follow(store, runs, splits)


def _follow(store: SqlTarget, runs: list[tuple[dict[int, Any], str]], splits: set[int]) -> None:
    source, reader = _source(store), Reader(store)
    cursor: Any = _newest(store)
    gone: dict[str, Any] = {}
    state: dict[str, Any] = {}
    for number, run in enumerate(runs):
        _play(source, [run])
        if number in splits:
            feed = reader.changes(cursor, sources=[source.name])
            _take(state, gone, feed)
            cursor = feed.cursor
    _take(state, gone, reader.changes(cursor, sources=[source.name]))
    assert state == source.said(max(source.states))


def _take(state: dict[str, Any], gone: dict[str, Any], feed: Any) -> None:
    counted = {"new": 0, "changed": 0, "vanished": 0, "returned": 0}
    for change in feed:
        counted[change.what] += 1
        token = change.token_id
        if change.what == "new":
            assert token not in state
            assert token not in gone
            state[token] = (change.new["did"], change.new["token_status"])
            continue
        if change.what == "vanished":
            gone[token] = state.pop(token)
            continue
        before = gone.pop(token) if change.what == "returned" else state[token]
        names = ("did", "token_status")
        held = dict(zip(names, before, strict=True))
        for name in set(names) & set(change.columns):
            assert change.old[name] == held[name]
            held[name] = change.new[name]
        state[token] = (held["did"], held["token_status"])
    _first(feed, 3)
    with mock.patch.object(changes, "_MOST_SORTED", 1):
        assert _by_key(feed.first(10_000)) == _by_key(list(feed))
    told = feed.counts()
    assert {what: sum(getattr(one, what) for one in told) for what in counted} == counted


def _first(feed: Any, number: int) -> None:
    """It gives so many, each once, of the first runs."""
    found, every = feed.first(number), list(feed)
    assert [one.run for one in found] == [one.run for one in every[:number]]
    assert len({(one.run, one.token_id) for one in found}) == len(found)
    assert all(one in every for one in found)


def _by_key(found: list[Any]) -> list[Any]:
    """In the order of runs, where a run's own are in none."""
    assert [one.run for one in found] == sorted(one.run for one in found)
    return sorted(found, key=lambda one: (one.run, one.token_id))


def test_a_run_under_way_is_left_to_the_next_one(store: SqlTarget) -> None:
    one, other, reader = _source(store), _source(store), Reader(store)
    start = _newest(store)
    lease = one.begin()
    one.tokens[1] = {}
    one.publish(lease)
    other.run(lambda: other.tokens.update({1: {}}))
    names = [one.name, other.name]
    feed = reader.changes(start, sources=names)
    assert [change.source_ip for change in feed] == [other.name]
    assert "," in feed.cursor
    one.end(lease)
    after = reader.changes(feed.cursor, sources=names)
    assert [change.source_ip for change in after] == [one.name]
    assert "," not in after.cursor
    assert list(reader.changes(after.cursor, sources=names)) == []


@contextlib.contextmanager
def _asked(store: SqlTarget) -> Iterator[list[str]]:
    """The statements that look for changes, once the context has ended."""
    asked: list[str] = []

    def note(_conn: Any, statement: Any, *_more: Any) -> None:
        if "ended_run" in str(statement):
            asked.append(str(statement))

    sa.event.listen(store.engine, "before_execute", note)
    try:
        yield asked
    finally:
        sa.event.remove(store.engine, "before_execute", note)


def test_many_runs_are_few_statements_in_the_order_of_runs(store: SqlTarget) -> None:
    source, reader = _source(store, tokens={1: {}}), Reader(store)
    start = source.run()
    runs = [source.run(lambda n=n: source.tokens.update({1: {"did": f"{n}"}})) for n in range(15)]
    with _asked(store) as asked:
        found = [change.run for change in reader.changes(start, sources=[source.name])]
    assert found == runs
    assert len(asked) == 4, "of 1, 2, 4 and 8 runs"


def test_the_first_changes_wait_for_no_large_run(
    store: SqlTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of them: many changes are not put into order first, other machines' not looked at."""
    other, source = _source(store), _source(store)
    start = other.run(lambda: other.tokens.update({1: {}}))
    runs = []
    for low in (10, 20, 30, 40):
        runs.append(
            source.run(lambda low=low: source.tokens.update({n: {} for n in range(low, low + 10)}))
        )
        other.run(lambda low=low: other.tokens.update({low: {}}))
    store.transact(lambda conn: put_database(conn, store.tables, "n", BEGAN, source=other.name))
    reader = Reader(store)
    every = reader.changes(start, sources=[source.name])
    one = reader.changes(start, sources=[source.name], databases=[source.path])
    for feed, most, number, ordered in ((every, 9, 4, 0), (every, 1_000, 3, 1), (one, 9, 1, 1)):
        monkeypatch.setattr(changes, "_MOST_SORTED", most)
        with _asked(store) as asked:
            found = feed.first(1_000)
        assert [change.run for change in found] == [run for run in runs for _ in range(10)]
        assert len(asked) == number
        assert sum("ORDER BY" in statement for statement in asked) == ordered
        _first(feed, 11)


def test_one_column_only(store: SqlTarget) -> None:
    source, reader = _source(store, tokens={1: {}, 2: {}, 3: {}}), Reader(store)
    start = source.run()
    source.run(lambda: source.tokens.update({1: {"did": "B"}, 2: {"token_status": "4"}}))
    source.run(lambda: source.tokens.pop(3))
    feed = reader.changes(start, sources=[source.name], columns=["did"])
    (change,) = feed
    assert (change.what, change.columns, change.new) == ("changed", ["did"], {"did": "B"})
    (counts,) = feed.counts()
    assert (counts.changed, counts.vanished, counts.columns) == (1, 0, {"did": 1})
    by_run = reader.changes(start, sources=[source.name]).counts(by_run=True)
    assert [(one.run, one.changed, one.vanished) for one in by_run] == [
        (start + 1, 2, 0),
        (start + 2, 0, 1),
    ]
    with pytest.raises(SettingsError, match="no column owner"):
        reader.changes(start, columns=["owner"])


def test_holders_as_of_a_run(store: SqlTarget) -> None:
    source, reader = _source(store, tokens={1: {}}), Reader(store)
    runs = [source.run()]
    runs.append(source.run(lambda: source.tokens.update({1: {"did": "B"}})))
    runs.append(source.run(lambda: source.tokens.pop(1)))
    (token,) = source.said(runs[0])
    views = [reader.token_as_of(token, run) for run in (runs[0] - 1, *runs)]
    held = [[one for one in view.holders if one.source_ip == source.name] for view in views]
    assert held[0] == []
    assert [one[0].did[:3] for one in held[1:]] == ["baf", "B", "B"]
    assert [one[0].source_deleted_at is None for one in held[1:]] == [True, True, False]
    counted = [reader.databases_as_of(run, sources=[source.name]) for run in runs]
    assert [[one.record_count for one in found] for found in counted] == [[1], [1], []]
    versions = reader.history(token, sources=[source.name])
    assert [(one.since_run, one.until_run, one.gone) for one in versions] == [
        (runs[0], runs[1], False),
        (runs[1], runs[2], False),
        (runs[2], None, True),
    ]


def test_what_was_removed_is_not_asked_for(store: SqlTarget) -> None:
    """The last test of this file: it removes what all others have left."""
    source, reader = _source(store, tokens={71: {}, 72: {}, 73: {}}), Reader(store)
    first = source.run()
    source.run(lambda: source.tokens.update({71: {"did": "B"}, 72: {"did": "B"}}))
    _find(store, source.key(72))
    assert prune_history(store, timedelta(days=1)).versions == 0
    assert source.versions(71) != []
    failpoints.arm("history.prune:1:error:forever")
    try:
        with pytest.raises(TargetUnavailable):
            prune_history(store, timedelta(0))
    finally:
        failpoints.arm("")
    # All of it is there still; but the next moment it may not be.
    assert source.versions(71) != []
    with pytest.raises(SettingsError, match="was removed"):
        reader.changes(first)
    done = prune_history(store, timedelta(0))
    assert done.versions > 0
    assert done.kept == 1
    assert (source.versions(71), len(source.versions(72))) == ([], 1)
    for ask in (lambda: reader.changes(first), lambda: reader.databases_as_of(first)):
        with pytest.raises(SettingsError, match="was removed") as refused:
            ask()
        assert refused.value.code == "history_pruned"
    newest = source.run(lambda: source.tokens.update({73: {"did": "C"}}))
    (change,) = reader.changes(newest - 1, sources=[source.name])
    assert change.columns == ["did"]
    assert prune_history(store, timedelta(days=1)).versions == 0


def _find(store: SqlTarget, record_key: bytes) -> None:
    """An open finding that rests on a record."""
    now = store.server_time()
    lease = Lease("finder", "00000000-0000-4000-8000-00000000f1dd")
    store.acquire_lease(lease, "elsewhere|-|1|1")
    values = {
        "rule": "held_twice", "token_key": record_key[8:], "token_kind": "rbt", "severity": "error",
        "state": "confirmed", "first_seen_run": 1, "first_seen_at": now, "last_seen_run": 1,
        "last_seen_at": now, "suspected_at": now, "change": "new", "changed_at": now,
    }  # fmt: skip
    store.transact(lambda conn: conn.execute(sa.insert(store.tables.audit.findings).values(values)))
    store.release_lease(lease)
