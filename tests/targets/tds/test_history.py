"""Old versions over the wire: the statement that keeps them, and the run of a bulk load."""

from __future__ import annotations

from rubix_token_sync.targets.base import Chunk
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.history.fleet_made import Source

from .engine import SqliteEngine


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


def test_the_same_again_keeps_nothing(store: SqlTarget, engine: SqliteEngine) -> None:
    source = Source(store, "s", tokens={n: {} for n in range(60)})
    source.run()
    lease = source.begin()
    store.publish(lease, Chunk(source.rows(range(60)), bulk=True))
    source.end(lease)
    assert engine.query("SELECT count(*) FROM TokenRecordHistory") == [(0,)]
