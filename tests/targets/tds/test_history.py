"""Old versions over the wire: the statement that keeps them, and the run of a bulk load."""

from __future__ import annotations

from datetime import datetime, timedelta

from rubix_token_sync.history.prune import prune_history
from rubix_token_sync.targets.base import Chunk
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.history.fleet_made import Source
from tests.history.test_changes import Reader

from .engine import SqliteEngine
from .server import TdsServer


def test_versions_of_what_is_staged(store: SqlTarget, engine: SqliteEngine) -> None:
    source = Source(store, "s", tokens={n: {} for n in range(60)})
    store.prepare_load()
    first = source.run(bulk=True, new=True)
    assert engine.query("SELECT DISTINCT since_run FROM TokenRecords") == [(first,)]

    def change() -> None:
        del source.tokens[5]
        source.tokens.update({1: {"did": "B"}, 2: {"token_status": "4"}, 100: {}})

    second = source.run(change)
    third = source.run(lambda: source.tokens.update({5: {"did": "C"}, 1: {}}), new=True)
    fourth = source.run(lambda: source.tokens.update({2: {}}), replace=True)
    assert source.versions(1) == [(first, second, "did"), (second, third, "did")]
    assert source.versions(2) == [(first, second, "token_status"), (second, fourth, "token_status")]
    assert source.versions(5) == [
        (first, second, "source_deleted_at"),
        (second, third, "did,source_deleted_at"),
    ]
    assert engine.query("SELECT count(*) FROM TokenRecordHistory") == [(6,)]
    source.is_exact()


def test_nothing_and_an_empty_text_are_two_values(store: SqlTarget, engine: SqliteEngine) -> None:
    when, later = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999)
    ways: list[tuple[str, object, object]] = [
        ("did", None, ""),
        ("did", "\u00ff", None),
        ("did", "a", "A"),
        ("attributes", "x", "x "),
        ("created_at", None, when),
        ("created_at", later, None),
        ("verdict", None, ""),
        ("token_level", None, 0),
        ("token_number", -(2**63), None),
    ]
    source = Source(store, "s", tokens={n: {name: old} for n, (name, old, _) in enumerate(ways)})
    first = source.run()
    new = {n: {name: value} for n, (name, _, value) in enumerate(ways)}
    second = source.run(lambda: source.tokens.update(new))
    for n, (name, _, _) in enumerate(ways):
        assert source.versions(n) == [(first, second, name)]
    assert engine.query("SELECT count(*) FROM TokenRecordHistory") == [(len(ways),)]
    source.is_exact()


def test_what_publishes_travels_in_one_packet(store: SqlTarget, server: TdsServer) -> None:
    """It is sent with each database's records, 60 ms away perhaps."""
    source = Source(store, "s", tokens={1: {}})
    source.run()
    lease = source.begin()
    source.tokens[1] = {"did": "B"}
    server.log.clear()
    server.packets.clear()
    source.publish(lease)
    source.end(lease)
    assert any("INSERT INTO TokenRecordHistory" in said for said in server.log)
    assert set(server.packets) == {1}


def test_the_same_again_keeps_nothing(store: SqlTarget, engine: SqliteEngine) -> None:
    source = Source(store, "s", tokens={n: {} for n in range(60)})
    source.run()
    lease = source.begin()
    store.publish(lease, Chunk(source.rows(range(60)), bulk=True))
    source.end(lease)
    assert engine.query("SELECT count(*) FROM TokenRecordHistory") == [(0,)]


def test_questions_about_the_past(store: SqlTarget) -> None:
    """The same statements as everywhere, as T-SQL."""
    source, reader = Source(store, "s", tokens={1: {}, 2: {}}), Reader(store)
    first = source.run()
    second = source.run(lambda: source.tokens.update({1: {"did": "B"}, 3: {}}))
    feed = reader.changes(first)
    assert {(change.what, change.new["did"][:3]) for change in feed} == {
        ("changed", "B"),
        ("new", "baf"),
    }
    assert (feed.since, feed.cursor) == (str(first), str(second))
    (counts,) = feed.counts()
    assert (counts.new, counts.changed, counts.columns) == (1, 1, {"did": 1})
    assert [one.run for one in feed.counts(by_run=True)] == [second]
    (token, *_) = source.said(first)
    assert [one.until_run for one in reader.history(token)] == [second, None]
    assert [one.record_count for one in reader.databases_as_of(first)] == [2]
    done = prune_history(store, timedelta(0))
    assert (done.versions, done.kept) == (1, 0)


def test_runs_under_way_are_left_out(store: SqlTarget) -> None:
    """The answer asks two questions on one connection, which reads one result at a time."""
    slow = Source(store, "slow", tokens={1: {}})
    lease = slow.begin()
    source, reader = Source(store, "s", tokens={1: {}}), Reader(store)
    last = source.run()
    feed = reader.changes(0)
    assert (feed.since, feed.cursor) == ("0", f"0,{last}")
    slow.end(lease)
    assert reader.changes(0).cursor == str(last)
