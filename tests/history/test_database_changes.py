"""Counts of one database, and of the newest runs: those of the plain statement, for less work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from rubix_token_sync.history.change_counts import (
    ChangeCounts,
    count_changes,
    count_newest_changes,
)
from rubix_token_sync.history.changes import read_changes
from rubix_token_sync.history.database_changes import DatabaseName, count_database_changes
from rubix_token_sync.history.moments import Runs
from rubix_token_sync.history.parts import SPARE_IDS, ChangeFilters
from rubix_token_sync.records.schema import RECORDS
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.plans import plans_of

from .fleet_made import Source
from .test_versions import _RUN, _play, _source

NODE = "node001"


def _newest(store: SqlTarget) -> int:
    query = sa.select(sa.func.max(store.tables.runs.c.number))
    return store.read(lambda conn: conn.execute(query).scalar()) or 0


def _plain(store: SqlTarget, source: Source, since: Runs, until: Runs) -> list[ChangeCounts]:
    """Every record and old version of the target is looked at."""
    filters = ChangeFilters(sources=(source.name,), databases=(source.path,))
    return store.read(
        lambda conn: count_changes(conn, store.tables, since, until, filters, by_run=True)
    )


def _from(counts: Sequence[ChangeCounts], run: int) -> list[dict[str, Any]]:
    return [asdict(one) for one in counts if (one.run or 0) >= run]


def _agree(store: SqlTarget, runs: list[tuple[dict[int, Any], str]], most: int) -> None:
    """Two databases of one machine change by turns; each is counted as if it were alone."""
    start = _newest(store)
    one = _source(store)
    other = Source(store, one.name, "/mnt/other/rubix.db")
    for run in runs:
        _play(one, [run])
        _play(other, [run])
    end = _newest(store)
    for since in sorted({start, (start + end) // 2, end}):
        for until in sorted({(since + end) // 2, end}):
            span = Runs(since), Runs(until)
            plain = _plain(store, one, *span)
            name = DatabaseName(one.name, NODE, one.path)
            whole, part = (
                store.read(
                    partial(
                        count_database_changes,
                        tables=store.tables,
                        databases=[name],
                        since=span[0],
                        until=span[1],
                        most=n,
                    )
                )
                for n in (100_000, most)
            )
            assert whole.counted_from == 0
            assert _from(whole.counts, 0) == _from(plain, 0)
            assert _from(part.counts, 0) == _from(plain, part.counted_from)


_RUNS = st.lists(_RUN, min_size=2, max_size=5)


@settings(max_examples=8, deadline=None)
@given(runs=_RUNS, most=st.integers(0, 6))
def test_a_database_is_counted_as_if_it_were_alone(
    store: SqlTarget, runs: list[tuple[dict[int, Any], str]], most: int
) -> None:
    if store.kind != "sqlite":
        pytest.skip("the long form")
    _agree(store, runs, most)


@pytest.mark.long
@settings(max_examples=30, deadline=None)
@given(runs=_RUNS, most=st.integers(0, 6))
def test_a_database_is_counted_alone_in_many_runs(
    store: SqlTarget, runs: list[tuple[dict[int, Any], str]], most: int
) -> None:
    _agree(store, runs, most)


def _life(store: SqlTarget) -> tuple[Source, list[int]]:
    """Three runs that added, changed, and lost records of one database."""
    source = _source(store, tokens={n: {} for n in range(12)})
    first = source.run()
    second = source.run(lambda: source.tokens.update({0: {"did": "B"}, 20: {}, 21: {}}))
    third = source.run(lambda: [source.tokens.pop(n) for n in (1, 2, 20)])
    return source, [first, second, third]


def test_what_changed_much_is_left_out_and_said(store: SqlTarget) -> None:
    source = _source(store, path="/mnt/busy/rubix.db", tokens={n: {} for n in range(12)})
    runs = [source.run()]
    for did in "ABCD":
        changed = {n: {"did": did} for n in range(12)}
        runs.append(source.run(lambda changed=changed: source.tokens.update(changed)))
    span = Runs(runs[0] - 1), Runs(runs[-1])
    name = DatabaseName(source.name, NODE, source.path)

    def counted(most: int) -> Any:
        found = store.read(
            lambda conn: count_database_changes(conn, store.tables, [name], *span, most=most)
        )
        return found.counted_from, [(one.run, one.new, one.changed) for one in found.counts]

    all_of_them = [(runs[0], 12, 0), *((run, 0, 12) for run in runs[1:])]
    assert counted(48) == (0, all_of_them)
    assert counted(30) == (runs[3], all_of_them[3:])
    assert counted(12) == (runs[4], all_of_them[4:])
    assert counted(11) == (runs[4] + 1, [])


def test_the_newest_runs_are_counted_by_node(store: SqlTarget) -> None:
    source, (first, _, third) = _life(store)
    span = Runs(first - 1), Runs(third)
    filters = ChangeFilters(sources=(source.name,))

    def plain(since: Runs) -> Any:
        return store.read(lambda conn: count_changes(conn, store.tables, since, span[1], filters))

    for most in (0, 2, 3, 100 + SPARE_IDS):
        found = store.read(
            lambda conn, most=most: count_newest_changes(  # type: ignore[misc]
                conn, store.tables, *span, filters, most=most
            )
        )
        since = Runs(found.counted_from - 1) if found.counted_from else span[0]
        assert found.counts == plain(since)
        assert (found.counted_from == 0) == (most > 3)
    nothing = store.read(
        lambda conn: count_newest_changes(conn, store.tables, span[1], span[1], filters)
    )
    assert nothing.counts == []


def test_no_other_databases_rows_are_looked_at(store: SqlTarget) -> None:
    if store.kind != "sqlite":
        pytest.skip("the plan is SQLite's")
    source, (first, _, third) = _life(store)
    name = DatabaseName(source.name, NODE, source.path)
    for most in (100_000, 2):
        with plans_of(store.engine) as steps:
            store.read(
                lambda conn, most=most: count_database_changes(  # type: ignore[misc]
                    conn, store.tables, [name], Runs(first - 1), Runs(third), most=most
                )
            )
        history = RECORDS.history
        looked = [step for step in steps if "TokenRecords" in step or history in step]
        assert looked
        for step in looked:
            assert step.startswith("SEARCH"), step
            assert "db_path=?" in step or "record_key" in step, step


def test_the_first_changes_are_there_before_the_last(store: SqlTarget) -> None:
    """Nothing is put into order first: a page of a million new records is shown at once."""
    if store.kind != "sqlite":
        pytest.skip("the plan is SQLite's")
    source, (first, _, third) = _life(store)
    filters = ChangeFilters(sources=(source.name,))
    with plans_of(store.engine) as steps, store.view() as conn:
        changes = read_changes(conn, store.tables, Runs(first - 1), Runs(third), filters)
        assert next(changes).run == first
        changes.close()  # type: ignore[attr-defined]
    assert not [step for step in steps if "ORDER BY" in step]
