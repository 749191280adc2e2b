"""As of every run, the target says what the source was then."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from rubix_token_sync import failpoints
from rubix_token_sync.targets.base import Chunk
from rubix_token_sync.targets.sql.target import SqlTarget

from .fleet_made import Source, run_of


def _source(store: SqlTarget, **more: Any) -> Source:
    """With a name of its own."""
    return Source(store, next(_NAMES), **more)


_NAMES = (f"10.9.{n // 250}.{n % 250}" for n in itertools.count())

# What becomes of one token before a run; None: nothing.
_TURN = st.fixed_dictionaries(
    {},
    optional={
        number: st.sampled_from(
            [None, {}, {"did": "B"}, {"token_status": "4"}, {"did": "B", "token_status": "7"}]
        )
        for number in range(5)
    },
)
_RUN = st.tuples(_TURN, st.sampled_from(["once", "twice", "replaced", "lost", "killed", "new"]))


def _turn(source: Source, turn: dict[int, dict[str, Any] | None]) -> None:
    for number, token in turn.items():
        if token is None:
            source.tokens.pop(number, None)
        else:
            source.tokens[number] = token


def _play(source: Source, runs: list[tuple[dict[int, Any], str]]) -> None:
    for turn, how in runs:
        _turn(source, turn)
        lease = source.begin()
        chunk = source.chunk(replace=how == "replaced", new=how == "new")
        if how == "killed":  # after half of its rows, and another run takes over
            half = Chunk(chunk.rows.slice(0, chunk.rows.num_rows // 2))
            source.store.publish(lease, half)
            source.store.release_lease(lease)
            lease = source.begin()
        if how == "lost":
            failpoints.arm("store.commit.after:1:error")
            try:
                source.publish(lease)
            finally:
                failpoints.arm("")
        else:
            source.store.publish(lease, chunk)
            source.publish(lease)
        if how == "twice":
            source.store.publish(lease, chunk)
        source.end(lease)


@settings(max_examples=20, deadline=None)
@given(runs=st.lists(_RUN, min_size=2, max_size=6))
def test_every_run_is_as_it_was(store: SqlTarget, runs: list[tuple[dict[int, Any], str]]) -> None:
    if store.kind != "sqlite":
        pytest.skip("the long form")
    source = _source(store)
    _play(source, runs)
    source.is_exact()


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(runs=st.lists(_RUN, min_size=2, max_size=10))
def test_every_run_of_many(store: SqlTarget, runs: list[tuple[dict[int, Any], str]]) -> None:
    source = _source(store)
    _play(source, runs)
    source.is_exact()


def test_four_versions_and_back_to_the_first(store: SqlTarget) -> None:
    source = _source(store, tokens={1: {}, 2: {}})
    first = source.run()
    runs = [
        source.run(lambda token=token: source.tokens.update({1: token}))  # type: ignore[misc]
        for token in ({"did": "B"}, {"token_status": "4"}, {"did": "B"}, {})
    ]
    assert source.versions(1) == [
        (first, runs[0], "did"),
        (runs[0], runs[1], "did,token_status"),
        (runs[1], runs[2], "did,token_status"),
        (runs[2], runs[3], "did"),
    ]
    assert source.versions(2) == []
    source.is_exact()


def test_gone_and_back(store: SqlTarget) -> None:
    source = _source(store, tokens={1: {}, 2: {}})
    first = source.run()
    gone = source.run(lambda: source.tokens.pop(1))
    back = source.run(lambda: source.tokens.update({1: {"did": "B"}}), new=True)
    assert source.versions(1) == [
        (first, gone, "source_deleted_at"),
        (gone, back, "did,source_deleted_at"),
    ]
    source.is_exact()


def test_a_database_that_is_retired(store: SqlTarget) -> None:
    source = _source(store, tokens={1: {}, 2: {}})
    first = source.run()
    lease = source.begin()
    store.retire_database(lease, source.database_key)
    source.tokens.clear()
    number = source.end(lease)
    assert source.versions(2) == [(first, number, "source_deleted_at")]
    source.is_exact()


def test_what_is_new_or_as_it_was_costs_no_row(store: SqlTarget) -> None:
    source = _source(store, tokens={n: {} for n in range(30)})
    source.run(new=True, bulk=True)
    for more in ({}, {"new": True}):
        lease = source.begin()
        store.publish(lease, Chunk(source.rows(range(30)), **more))  # type: ignore[arg-type]
        source.end(lease)
    assert [source.versions(n) for n in range(30)] == [[]] * 30
    source.is_exact()


def test_a_run_that_changes_a_record_twice_ends_one_version(store: SqlTarget) -> None:
    source = _source(store, tokens={1: {}})
    first = source.run()
    lease = source.begin()
    for token in ({"did": "B"}, {"did": "C"}):
        source.tokens[1] = token
        source.publish(lease)
    number = source.end(lease)
    assert source.versions(1) == [(first, number, "did")]
    source.is_exact()


def test_content_that_arrives(store: SqlTarget) -> None:
    source = _source(store)
    missing = {"ipfs_data": None, "ipfs_fetched": False, "ipfs_error": "not_found: nowhere"}
    first = source.run(lambda: source.tokens.update({1: missing}))
    second = source.run(lambda: source.tokens.update({1: {}}))
    columns = ("ipfs_fetched", "ipfs_error", "ipfs_data")
    for number in (first, second):
        assert source.as_of(number, columns) == source.said(number, columns)
    assert source.versions(1) == [(first, second, "ipfs_fetched,ipfs_error")]


def test_two_sources_at_once_wait_for_nobody(
    store: SqlTarget, opened: Callable[..., SqlTarget]
) -> None:
    """Their numbers are their own, whichever ends first."""
    one, other = _source(store, tokens={1: {}}), _source(opened(), tokens={1: {}})
    one.run()
    other.run()
    first, second = one.begin(), other.begin()
    one.tokens[1], other.tokens[1] = {"did": "B"}, {"did": "C"}
    other.publish(second)
    one.publish(first)
    numbers = other.end(second), one.end(first)
    assert numbers[0] > numbers[1]
    for source in (one, other):
        source.is_exact()


def test_a_run_that_another_one_has_overtaken(store: SqlTarget) -> None:
    """An audit may judge a record anew while a sync with a lower number is about to change it."""
    source = _source(store, tokens={1: {}})
    first = source.run()
    lease = source.begin()
    other = _source(store).begin()
    judged = {"verdict": "disputed"}
    store.publish(other, Chunk(Source(store, source.name, tokens={1: judged}).rows([1])))
    store.release_lease(other)
    source.tokens[1] = {**judged, "did": "B"}
    source.publish(lease)
    number = source.end(lease)
    later = run_of(store, other)
    assert later > number
    assert source.versions(1) == [(first, later, "verdict")]
    source.states[later] = source.states.pop(number)  # known from then on
    source.is_exact()


def test_a_repaired_record_leaves_the_version_that_it_replaced(store: SqlTarget) -> None:
    source = _source(store, tokens={1: {}, 2: {}})
    first = source.run()
    repaired = source.run(lambda: source.tokens.update({1: {"did": "B"}}), replace=True)
    assert source.versions(1) == [(first, repaired, "did")]
    source.is_exact()


def test_what_is_removed_for_good_leaves_nothing(store: SqlTarget) -> None:
    source = _source(store, tokens={1: {}})
    source.run()
    source.run(lambda: source.tokens.update({1: {"did": "B"}}))
    lease = source.begin()
    store.remove_records(lease, source.database_key)
    store.release_lease(lease)
    assert source.versions(1) == []


def test_the_view_says_the_same(store: SqlTarget) -> None:
    source = _source(store, tokens={1: {}, 2: {}})
    runs = [source.run()]
    runs.append(source.run(lambda: source.tokens.update({1: {"did": "B"}})))
    runs.append(source.run(lambda: source.tokens.pop(2)))
    query = sa.text(
        "SELECT token_id, did, token_status FROM TokenRecordVersions"
        " WHERE source_ip = :source AND source_deleted_at IS NULL"
        " AND since_run <= :run AND (ended_run > :run OR ended_run IS NULL)"
    )
    for run in runs:
        asked = {"run": run, "source": source.name}
        found = store.read(lambda conn, a=asked: conn.execute(query, a).all())  # type: ignore[misc]
        assert {row[0]: tuple(row[1:]) for row in found} == source.said(run)


def test_runs_say_what_they_replaced(store: SqlTarget) -> None:
    source = _source(store, tokens={n: {} for n in range(6)})
    source.run()

    def change() -> None:
        del source.tokens[0]
        source.tokens.update({1: {"did": "B"}, 2: {"did": "B", "token_status": "4"}, 9: {}})

    number = source.run(change)
    runs = store.tables.runs
    query = sa.select(runs).where(runs.c.number == number)
    row = store.read(lambda conn: conn.execute(query).one())
    assert row.ended_at >= row.began_at
    assert (row.records_changed, row.owners_changed, row.statuses_changed) == (2, 2, 1)
    assert (row.records_vanished, row.records_returned) == (1, 0)
    ids = store.tables.records.c
    newest = sa.select(ids.token_id).where(ids.id > row.last_record_id)
    assert len(store.read(lambda conn: conn.execute(newest).all())) == 1


def test_a_target_of_the_edition_before_keeps_its_first_change(
    store: SqlTarget, opened: Callable[[], SqlTarget]
) -> None:
    """All that it holds is known: run 0 is before history began."""
    source = _source(store, tokens={1: {}, 2: {}})
    source.run()
    store.transact(_taken_back)
    upgraded = opened()
    assert upgraded.schema_version() == "0003"
    assert upgraded.ensure_schema()
    source.states = {0: dict(source.tokens)}
    number = source.run(lambda: source.tokens.update({1: {"did": "B"}}))
    assert source.versions(1) == [(0, number, "did")]
    source.is_exact()


def _taken_back(conn: sa.Connection) -> None:
    for statement in (
        "DROP VIEW TokenRecordVersions",
        "DROP TABLE TokenRecordHistory",
        "DROP TABLE SyncRuns",
        "ALTER TABLE TokenRecords DROP COLUMN since_run",
        "ALTER TABLE SyncLeases DROP COLUMN run_number",
        "UPDATE alembic_version SET version_num = '0003'",
    ):
        conn.exec_driver_sql(statement)
