"""Publishing: exact counts, nothing twice, bad records alone, marks that cannot lie."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from rubix_token_sync.errors import RecordRefused, ReportMismatch
from rubix_token_sync.records.schema import RECORD_SCHEMA, database_key
from rubix_token_sync.targets.base import (
    Chunk,
    ErrorEntry,
    KnownContent,
    Lease,
    Published,
    TargetOptions,
)
from rubix_token_sync.targets.sql.target import SqlTarget

from .records_made import DATABASE, DB_PATH, SOURCE, batch, batch_of, mark, record


def counts(published: Published) -> tuple[int, int, int]:
    return published.inserted, published.updated, published.vanished


def keys(*numbers: int) -> bytes:
    return b"".join(record(number)["record_key"] for number in numbers)


def stored(store: SqlTarget, database: bytes = DATABASE) -> list[dict]:
    return pa.Table.from_batches(store.stored_records(database), RECORD_SCHEMA).to_pylist()


def row_count(store: SqlTarget, table: sa.Table) -> int:
    query = sa.select(sa.func.count()).select_from(table)
    return store.read(lambda conn: conn.execute(query).scalar_one())


def test_every_value_comes_back_as_it_went(store: SqlTarget, lease: Lease) -> None:
    odd = [
        record(1, token_value="", ipfs_data="", did=None, token_status=None),
        record(2, ipfs_data="tab\t line\n back\\slash \\. \r\n \\N NULL", node_name="ñ 節点 🪙"),
        record(3, ipfs_data="🪙" * 12_800, ipfs_error="x" * 1000),
        record(4, ipfs_data=None, ipfs_fetched=False, token_id=None, db_path="p" * 500),
        record(5, validation_errors='[{"code":"x"}]', token_id="'; DROP TABLE t; --"),
        record(6, created_at=None, updated_at=None, parent_token_id="\\."),
        record(7, ipfs_data="\ufeff\u2028\x01\x7f", token_value="10000000000000000000000.0"),
    ]
    published = store.publish(lease, Chunk(rows=batch(*odd), mark=mark(7)))
    assert counts(published) == (7, 0, 0)
    assert stored(store) == sorted(odd, key=lambda r: r["record_key"])


def test_times_come_back_to_the_microsecond(store: SqlTarget, lease: Lease) -> None:
    from datetime import datetime

    times = [
        datetime(1, 1, 1),
        datetime(1969, 12, 31, 23, 59, 59, 999999),
        datetime(2000, 1, 1),
        datetime(2026, 11, 22, 1, 2, 3, 10),
        datetime(9999, 12, 31, 23, 59, 59, 999999),
    ]
    rows = [record(i, created_at=t, updated_at=None) for i, t in enumerate(times)]
    store.publish(lease, Chunk(rows=batch(*rows)))
    assert {r["created_at"] for r in stored(store)} == set(times)


def test_insert_update_vanish_revive(store: SqlTarget, lease: Lease) -> None:
    first = store.publish(lease, Chunk(rows=batch_of(range(10)), mark=mark(10)))
    assert counts(first) == (10, 0, 0)
    again = store.publish(lease, Chunk(rows=batch_of(range(10)), mark=mark(10)))
    assert counts(again) == (0, 0, 0)
    changed = store.publish(
        lease,
        Chunk(
            rows=batch(record(1, token_status="4"), record(10)),
            vanished=keys(2, 3),
            mark=mark(9),
        ),
    )
    assert counts(changed) == (1, 1, 2)
    assert row_count(store, store.tables.records) == 11
    known, digests = store.known_rows(DATABASE)
    assert (len(known), len(digests)) == (9 * 24, 9 * 16)
    assert keys(2) not in known
    gone_again = store.publish(lease, Chunk(rows=batch_of([]), vanished=keys(2, 3), mark=mark(9)))
    assert counts(gone_again) == (0, 0, 0)
    again = record(2, did="other", node_name="renamed", ipfs_fetched=False)
    revived = store.publish(lease, Chunk(rows=batch(again), mark=mark(10), new=True))
    assert counts(revived) == (0, 1, 0)
    assert len(stored(store)) == 10
    assert again in stored(store)


def test_records_thought_new_that_are_there_are_merged(store: SqlTarget, lease: Lease) -> None:
    store.publish(lease, Chunk(batch_of(range(1, 61)), bulk=True, new=True))
    store.publish(lease, Chunk(batch_of(()), vanished=keys(1)))
    others = [record(number) for number in range(3, 62)]
    changed = batch(record(1), record(2, ipfs_data="other"), *others)
    published = store.publish(lease, Chunk(changed, bulk=True, new=True))
    assert counts(published) == (1, 2, 0)
    assert [row["ipfs_data"] == "other" for row in stored(store)].count(True) == 1
    assert len(stored(store)) == 61
    synced = store.tables.records.c.synced_at
    query = sa.select(sa.func.count()).where(synced.is_(None))
    assert store.read(lambda conn: conn.execute(query).scalar_one()) == 0


def test_new_records_with_columns_that_hold_nothing(store: SqlTarget, lease: Lease) -> None:
    """Those of one load need not have the columns of another."""
    nothing: dict[str, Any] = dict.fromkeys(("did", "ipfs_data", "ipfs_path", "token_value"))
    bare = [record(number, **nothing) for number in range(60)]
    mixed = [record(number, **nothing if number % 7 else {}) for number in range(60, 120)]
    for rows in (bare, mixed):
        published = store.publish(lease, Chunk(batch(*rows), bulk=True, new=True))
        assert counts(published) == (60, 0, 0)
    assert stored(store) == sorted(bare + mixed, key=itemgetter("record_key"))


def test_any_column_may_change_and_counts_once(store: SqlTarget, lease: Lease) -> None:
    store.publish(lease, Chunk(batch_of(range(4)), mark=mark(4)))
    other = {
        "node_name": "renamed", "did": None, "token_status": "7", "parent_token_id": "Qm",
        "token_value": "2", "ipfs_data": None, "ipfs_fetched": False, "ipfs_error": "not_found",
        "ipfs_path": None, "validation_errors": "x", "updated_at": None, "network": "test",
        "token_state_hash": "Qm", "transaction_id": None, "attributes": '{"a":"b"}',
        "verdict": "disputed", "verdict_source": "x", "token_level": None, "token_number": 2**62,
    }  # fmt: skip
    for number, change in enumerate(other.items()):
        changed = record(1, **dict([change]))
        changed["row_digest"] = bytes([number] * 16)
        assert counts(store.publish(lease, Chunk(batch(changed), mark=mark(4)))) == (0, 1, 0)
        assert changed in stored(store)
        assert len(stored(store)) == 4


def test_content_and_its_failure_are_changes_of_their_own(store: SqlTarget, lease: Lease) -> None:
    failed = record(1, ipfs_data=None, ipfs_fetched=False, ipfs_error="not_in_repository: gone")
    digest = failed["row_digest"]
    store.publish(lease, Chunk(rows=batch(failed)))
    assert store.failed_tokens(DATABASE) == {failed["record_key"]}
    assert not store.holds_content()
    healed = record(1, row_digest=digest)
    assert counts(store.publish(lease, Chunk(rows=batch(healed)))) == (0, 1, 0)
    assert store.failed_tokens(DATABASE) == set()
    assert store.holds_content()
    known = store.known_content([healed["record_key"], b"\x00" * 24])
    assert list(known) == [healed["record_key"]]
    assert known[healed["record_key"]].ipfs_data == "content 1"
    token = healed["token_id"]
    found = KnownContent("content 1", True, None)
    assert store.content_of_tokens([token, token.lower()]) == {token: found}


def test_what_is_known_of_a_contracts_files(store: SqlTarget, lease: Lease) -> None:
    said = '{"trees":{"raw_code_hash":{"size":12}}}'
    made = [record(1, token_kind=kind, attributes=said) for kind in ("contract", "data")]
    keys = [row["record_key"][:-1] + bytes([at]) for at, row in enumerate(made)]
    rows = [row | {"record_key": key} for row, key in zip(made, keys, strict=True)]
    store.publish(lease, Chunk(rows=batch(*rows)))
    known = store.known_content(keys)
    assert [known[key].attributes for key in keys] == [said, None]


def test_known_rows_are_one_databases_only(store: SqlTarget, lease: Lease) -> None:
    other = "/mnt/node002/Rubix/rubix.db"
    store.publish(lease, Chunk(rows=batch_of(range(3)), mark=mark(3)))
    store.publish(lease, Chunk(rows=batch_of(range(5), path=other)))
    assert len(store.known_rows(DATABASE)[0]) == 3 * 24
    assert len(store.known_rows(database_key(SOURCE, other))[0]) == 5 * 24
    assert store.known_rows(b"\xff" * 8) == (b"", b"")


def test_a_mark_that_does_not_count_right_is_refused_with_all_of_its_chunk(
    store: SqlTarget, lease: Lease
) -> None:
    with pytest.raises(ReportMismatch) as caught:
        store.publish(lease, Chunk(rows=batch_of(range(5)), mark=mark(6)))
    assert caught.value.context == {"expected": 6, "counted": 5}
    assert stored(store) == []
    assert store.database_states(SOURCE) == []


def test_a_mark_says_what_was_processed_and_the_next_one_replaces_it(
    store: SqlTarget, lease: Lease
) -> None:
    store.publish(lease, Chunk(rows=batch_of(range(5)), mark=mark(5)))
    [state] = store.database_states(SOURCE)
    assert (state.db_path, state.record_count, state.fingerprint) == (DB_PATH, 5, "f1")
    assert state.last_modified == mark(5).last_modified
    checked = state.content_checked_at
    assert checked is not None
    later = mark(5, fingerprint="f2", content_checked=False)
    store.publish(lease, Chunk(rows=batch_of([]), mark=later))
    [state] = store.database_states(None)
    assert (state.fingerprint, state.content_checked_at) == ("f2", checked)
    assert store.database_states("another") == []


@pytest.mark.parametrize("bad", [[0], [7], [3, 4, 9]])
def test_refused_records_stand_alone_and_the_others_go_in(
    store: SqlTarget, lease: Lease, bad: list[int]
) -> None:
    refuse_tokens(store, bad)
    rows = batch_of(range(10))
    published = store.publish(lease, Chunk(rows=rows, mark=mark(10), bulk=True))
    assert published.inserted == 10 - len(bad)
    assert sorted(r.token_id for r in published.rejected) == [record(n)["token_id"] for n in bad]
    assert all(r.reason for r in published.rejected)
    [state] = store.database_states(SOURCE)
    assert (state.record_count, state.rejected_count) == (10 - len(bad), len(bad))


def test_a_record_that_is_refused_now_is_no_longer_live(store: SqlTarget, lease: Lease) -> None:
    store.publish(lease, Chunk(rows=batch_of(range(4)), mark=mark(4)))
    refuse_tokens(store, [2], status="9")
    changed = batch_of(range(4), token_status="9")
    published = store.publish(lease, Chunk(rows=changed, mark=mark(4)))
    assert counts(published) == (0, 3, 1)
    assert [r.token_id for r in published.rejected] == [record(2)["token_id"]]


def refuse_tokens(store: SqlTarget, numbers: list[int], status: str = "0") -> None:
    """Have the target itself refuse some records."""
    tokens = ", ".join(f"'{record(n)['token_id']}'" for n in numbers)
    name = store.tables.records.name
    if store.kind == "sqlite":
        statement = (
            f"CREATE TRIGGER refuse BEFORE INSERT ON {name} WHEN NEW.token_id IN ({tokens})"
            f" AND NEW.token_status = '{status}' BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )
    else:
        statement = (
            f"ALTER TABLE {name} ADD CONSTRAINT refuse"
            f" CHECK (token_id NOT IN ({tokens}) OR token_status <> '{status}')"
        )
    store.transact(lambda conn: conn.exec_driver_sql(statement))


def test_what_no_column_can_hold_is_refused_with_its_reason(store: SqlTarget, lease: Lease) -> None:
    if store.kind == "sqlite":
        pytest.skip("SQLite's columns hold anything")
    rows = batch(record(1), record(2, token_status="9" * 51), record(3))
    published = store.publish(lease, Chunk(rows=rows, mark=mark(3)))
    assert published.inserted == 2
    [refused] = published.rejected
    assert refused.token_id == record(2)["token_id"]
    assert "9" * 51 not in refused.reason


def test_errors_are_kept_with_their_context(store: SqlTarget, lease: Lease) -> None:
    entry = ErrorEntry(
        "ipfs", "damaged", "bytes differ", token_id="t" * 600, context={"ü": 1}, occurrences=3
    )
    store.publish(lease, Chunk(rows=batch_of([1]), errors=(entry,)))
    store.record_errors(lease, [entry])
    errors = store.tables.errors
    rows = store.read(lambda conn: conn.execute(sa.select(errors)).all())
    assert [(r.category, r.code, r.occurrences, r.context) for r in rows] == [
        ("ipfs", "damaged", 3, '{"ü": 1}')
    ] * 2
    assert rows[0].token_id == "t" * 500


def test_an_empty_chunk_of_errors_that_are_refused_fails(store: SqlTarget, lease: Lease) -> None:
    if store.kind == "sqlite":
        pytest.skip("SQLite's columns hold anything")
    entry = ErrorEntry("system", "c" * 51, "too long a code")
    with pytest.raises(RecordRefused):
        store.publish(lease, Chunk(rows=batch_of([]), errors=(entry,)))


def test_records_in_several_steps_of_a_batch(
    opened: Callable[..., SqlTarget], store: SqlTarget, lease: Lease
) -> None:
    small = opened(batch_size=7)
    rows = batch_of(range(100))
    assert small.publish(lease, Chunk(rows=rows, mark=mark(100))).inserted == 100
    part = rows.slice(30, 40)  # a slice that does not start at the buffers' beginning
    assert counts(small.publish(lease, Chunk(rows=part))) == (0, 0, 0)


def test_a_first_load_ends_with_every_index(store: SqlTarget, lease: Lease) -> None:
    def names() -> set[str | None]:
        found = store.read(lambda conn: sa.inspect(conn).get_indexes(store.tables.records.name))
        return {index["name"] for index in found}

    wanted = {str(index.name) for index in store.tables.records.indexes}
    store.prepare_load()
    store.publish(lease, Chunk(rows=batch_of(range(20)), mark=mark(20)))
    store.finish_load()
    assert wanted <= names()
    store.prepare_load()  # not empty any more: nothing is dropped
    assert wanted <= names()


def test_a_first_load_that_died_goes_on_as_one(
    opened: Callable[..., SqlTarget], store: SqlTarget, lease: Lease
) -> None:
    """Without its indexes until its end, and nobody searches all of the records meanwhile."""

    def names(target: SqlTarget) -> set[str | None]:
        found = target.read(lambda conn: sa.inspect(conn).get_indexes(store.tables.records.name))
        return {index["name"] for index in found}

    late = {str(index.name) for index in store.tables.late_indexes()}
    store.prepare_load()
    store.publish(lease, Chunk(rows=batch_of(range(20))))
    next_run = opened()
    next_run.prepare_load()
    assert not late & names(next_run)
    assert not next_run.holds_content()
    next_run.publish(lease, Chunk(rows=batch_of(range(20, 40)), mark=mark(40)))
    next_run.finish_load()
    assert late <= names(next_run)
    assert next_run.holds_content()


def test_an_end_that_died_leaves_its_indexes_to_the_next_run(
    opened: Callable[..., SqlTarget], store: SqlTarget, lease: Lease
) -> None:
    """A run that changes little does not wait for its own end to have them."""
    store.publish(lease, Chunk(rows=batch_of(range(20))))
    store.finish_load()
    lost = next(i for i in store.tables.late_indexes() if str(i.name).endswith("token_id"))
    store.database.transact(lost.drop)
    next_run = opened()
    assert next_run.holds_content()
    next_run.prepare_load()
    found = next_run.read(lambda conn: sa.inspect(conn).get_indexes(store.tables.records.name))
    assert lost.name in {index["name"] for index in found}


def test_store_options_have_the_guides_values() -> None:
    options = TargetOptions()
    assert (options.batch_size, options.bulk_insert_size) == (2_000, 10_000)
    assert (options.pool_size, options.attempts) == (10, 3)


def test_a_key_that_comes_twice_is_noticed_by_the_mark(store: SqlTarget, lease: Lease) -> None:
    """As a damaged database gives it: the same on every target, and nobody else's chunk."""
    twice = batch(*(record(n) for n in (1, 2, 2, 3)))
    with pytest.raises(ReportMismatch) as caught:
        store.publish(lease, Chunk(twice, bulk=True, mark=mark(4)))
    assert caught.value.code == "count_mismatch"
    assert store.database_states(SOURCE) == []
    assert store.publish(lease, Chunk(twice, mark=mark(3))).rejected == []
    assert len(store.known_rows(DATABASE)[0]) == 3 * 24
