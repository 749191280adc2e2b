"""Moving an older system: exact, resumable, without a write to the source."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from rubix_token_sync.errors import SchemaError, SettingsError
from rubix_token_sync.migrate import MigrateOptions, MigrationReport, migrate
from rubix_token_sync.records.schema import database_key
from rubix_token_sync.targets.base import Chunk, Lease, SessionTotals, TargetOptions
from rubix_token_sync.targets.registry import TargetAddress, open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.postgres_server import PostgresServer
from tests.targets.records_made import (
    DATABASE,
    DB_PATH,
    SESSION,
    SOURCE,
    batch,
    batch_of,
    mark,
    record,
)

from .exact import is_exact
from .older_system import TABLES

ROWS = 3_000


def moved(source: TargetAddress, target: TargetAddress, **options: Any) -> MigrationReport:
    return migrate(MigrateOptions(source, target, **options))


def rows_of(target: TargetAddress, table: str) -> list[dict[str, Any]]:
    store = open_target(target, TargetOptions(read_only=True))
    try:
        found = getattr(store.tables, table)
        query = sa.select(found).order_by(*found.primary_key)
        return [dict(row._mapping) for row in store.read(lambda conn: conn.execute(query).all())]
    finally:
        store.close()


@pytest.mark.parametrize("latin1", [True, False])
def test_every_row_is_accounted_for_on_every_target(
    older: Callable[..., TargetAddress], target: TargetAddress, latin1: bool
) -> None:
    source = older(ROWS, latin1=latin1)
    report = moved(source, target)
    assert report.complete
    assert report.exit_code == 1  # rows that name no source or path cannot be stored
    assert report.databases_without_rows == ["/mnt/d/empty/Rubix/rubix.db"]
    is_exact(target, report, ROWS, latin1=latin1)
    assert all(one.digest == one.target_digest for one in report.databases)
    assert report.total("rows_changed") > 0
    assert report.total("contents_refused") > 0
    assert report.total("rows_read") + report.rows_without_database == ROWS
    json.dumps(report.document())


def test_again_changes_nothing_and_verify_agrees(
    older: Callable[..., TargetAddress], target: TargetAddress
) -> None:
    source = older(ROWS)
    first = moved(source, target)
    before = {name: rows_of(target, name) for name in ("records", "set_aside", "databases")}
    again = moved(source, target)
    assert {one.state for one in again.databases} == {"unchanged"}
    assert again.migration_id == first.migration_id
    assert again.complete
    proof = moved(source, target, verify_only=True)
    assert {one.state for one in proof.databases} == {"verified"}
    assert proof.exit_code == 0
    assert before == {name: rows_of(target, name) for name in before}
    assert {s["command"] for s in rows_of(target, "sessions")} == {"migrate"}


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE {records} SET token_status = 'tampered' WHERE id = 7",
        "UPDATE {records} SET ipfs_data = 'x' WHERE id = (SELECT min(id) FROM {records}"
        " WHERE ipfs_data IS NOT NULL)",
        "DELETE FROM {records} WHERE id = 9",
        "DELETE FROM {aside} WHERE id = (SELECT min(id) FROM {aside} WHERE reason = 'duplicate')",
        'UPDATE {aside} SET original_row = \'{{"id": "1"}}\' WHERE id = (SELECT min(id)'
        " FROM {aside} WHERE reason = 'changed')",
    ],
)
def test_verify_finds_any_change(
    older: Callable[..., TargetAddress],
    target: TargetAddress,
    opened: Callable[..., SqlTarget],
    tamper: str,
) -> None:
    source = older(600)
    moved(source, target)
    store = opened()
    statement = tamper.format(records=store.tables.records.name, aside=store.tables.set_aside.name)
    changed = store.transact(lambda conn: conn.exec_driver_sql(statement).rowcount)
    assert changed == 1
    proof = moved(source, target, verify_only=True)
    assert proof.different == 1
    assert proof.exit_code == 5


def test_the_source_is_only_read(
    postgres_server: PostgresServer, older: Callable[..., TargetAddress], tmp_path: Path
) -> None:
    source = older(300)
    url = source.address.get_secret_value()
    database = url.split("@/")[1].split("?")[0]
    reader = f"reader_{database}"
    postgres_server.admin(
        f"CREATE ROLE {reader} LOGIN",
        f"GRANT SELECT ON tokenrecords, processeddatabases TO {reader}",
        database=database,
    )
    try:
        target = parse_target(f"sqlite:///{tmp_path}/t.db")
        report = moved(parse_target(postgres_server.url(database, user=reader)), target)
        assert report.complete
    finally:
        postgres_server.admin(f"DROP OWNED BY {reader}", f"DROP ROLE {reader}", database=database)


def test_a_dry_run_tells_the_same_and_writes_nothing(
    older: Callable[..., TargetAddress], tmp_path: Path
) -> None:
    source = older(ROWS)
    target = parse_target(f"sqlite:///{tmp_path}/t.db")
    dry = moved(source, target, dry_run=True)
    assert list(tmp_path.iterdir()) == []
    real = moved(source, target)
    assert {one.state for one in dry.databases} == {"would_move"}
    for name in ("rows_read", "rows_stored", "contents_adopted", "duplicates_merged"):
        assert dry.total(name) == real.total(name) > 0
    assert [one.digest for one in dry.databases] == [one.digest for one in real.databases]
    assert dry.rows_without_database == real.rows_without_database


def test_a_sample_first_and_then_the_rest(
    older: Callable[..., TargetAddress], target: TargetAddress
) -> None:
    source = older(ROWS)
    sample = moved(source, target, only=("*/node000/*",))
    assert not sample.complete
    assert {one.db_path for one in sample.databases} == {"/mnt/d/node000/Rubix/rubix.db"}
    rest = moved(source, target)
    assert [one.state for one in rest.databases].count("unchanged") == len(sample.databases)
    assert rest.complete
    is_exact(target, rest, ROWS)


def test_rows_that_the_source_got_meanwhile_are_moved_by_the_next_call(
    older: Callable[..., TargetAddress], target: TargetAddress
) -> None:
    source = older(600)
    moved(source, target)
    with psycopg.connect(source.address.get_secret_value()) as conn:
        conn.execute(
            "INSERT INTO tokenrecords (source_ip, db_path, node_name, token_id, token_status)"
            " VALUES ('10.0.0.1', '/mnt/d/node000/Rubix/rubix.db', 'n', 'Qmnew', '3')"
        )
        conn.execute("DELETE FROM tokenrecords WHERE db_path LIKE '%node001%' AND id % 2 = 0")
    again = moved(source, target)
    states = {one.db_path.split("/")[3]: one.state for one in again.databases}
    assert "moved" in states.values()
    assert any(one.state == "unchanged" for one in again.databases)
    assert again.complete
    assert moved(source, target, verify_only=True).exit_code == 0


def test_another_source_or_timezone_is_refused_until_one_starts_over(
    older: Callable[..., TargetAddress], fresh_postgres: Callable[..., str], target: TargetAddress
) -> None:
    source, other = older(300), older(200)
    moved(source, target, only=("*/node000/*",), source_timezone="Europe/Berlin")
    with pytest.raises(SettingsError) as caught:
        moved(other, target)
    assert caught.value.code == "another_source"
    with pytest.raises(SettingsError) as caught:
        moved(source, target, source_timezone="UTC")
    assert caught.value.code == "another_timezone"
    goes_on = moved(source, target)
    assert (goes_on.complete, goes_on.source_timezone) == (True, "Europe/Berlin")
    second = moved(other, target)  # the first one is finished: nothing is in the way
    assert second.migration_id != goes_on.migration_id
    assert {one.state for one in second.databases} == {"kept"}


def test_an_unfinished_migration_can_be_given_up(
    older: Callable[..., TargetAddress], target: TargetAddress
) -> None:
    source, other = older(300), older(200)
    moved(source, target, only=("*/node000/*",))
    report = moved(other, target, start_over=True)
    assert report.complete
    assert sorted(row["status"] for row in rows_of(target, "migrations")) == [
        "ABANDONED",
        "COMPLETED",
    ]


def test_a_target_that_was_copied_is_refused(
    older: Callable[..., TargetAddress], tmp_path: Path
) -> None:
    source = older(300)
    moved(source, parse_target(f"sqlite:///{tmp_path}/a.db"), only=("*/node000/*",))
    (tmp_path / "b.db").write_bytes((tmp_path / "a.db").read_bytes())
    with pytest.raises(SettingsError) as caught:
        moved(source, parse_target(f"sqlite:///{tmp_path}/b.db"))
    assert caught.value.code == "another_target"


def test_source_and_target_must_be_two_databases(older: Callable[..., TargetAddress]) -> None:
    source = older(50)
    url = source.address.get_secret_value()
    for same in (url, url + "&application_name=x"):
        with pytest.raises(SettingsError) as caught:
            moved(source, parse_target(same))
        assert caught.value.code == "same_database"
    with psycopg.connect(url) as conn:  # it was not upgraded in place by accident
        assert conn.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,)


def test_nothing_to_migrate_says_so(postgres_url: str, tmp_path: Path) -> None:
    target = parse_target(f"sqlite:///{tmp_path}/t.db")
    with pytest.raises(SchemaError) as caught:
        moved(parse_target(postgres_url), target)
    assert caught.value.code == "nothing_to_migrate"
    with psycopg.connect(postgres_url) as conn:
        conn.execute("CREATE TABLE tokenrecords (id int, token_id text)")
    with pytest.raises(SchemaError) as caught:
        moved(parse_target(postgres_url), target)
    assert caught.value.code == "unknown_schema"
    with pytest.raises(SettingsError) as refused:
        moved(older_table(postgres_url, []), target, verify_only=True)
    assert refused.value.code == "no_migration"
    assert moved(parse_target(postgres_url), target).complete  # an empty table, too


def older_table(url: str, rows: list[dict[str, Any]], tables: str = TABLES) -> TargetAddress:
    with psycopg.connect(url) as conn:
        conn.execute("DROP TABLE IF EXISTS tokenrecords, processeddatabases")
        for statement in tables.split(";"):
            conn.execute(statement.encode())
        for row in rows:
            names = ", ".join(row)
            marks = ", ".join(["%s"] * len(row))
            conn.execute(
                f"INSERT INTO tokenrecords ({names}) VALUES ({marks})".encode(),
                list(row.values()),
            )
    return parse_target(url)


def test_times_become_utc_from_the_zone_they_were_written_in(
    postgres_url: str, tmp_path: Path
) -> None:
    row = {"source_ip": "a", "db_path": "/p", "node_name": "n", "token_id": "t"}
    source = older_table(
        postgres_url,
        [
            {
                **row,
                "created_at": "2026-07-01 12:00:00",
                "updated_at": "2026-01-01 00:30:00.123456",
                "db_last_modified": "2026-12-31 23:59:59",
            }
        ],
    )
    target = parse_target(f"sqlite:///{tmp_path}/t.db")
    moved(source, target, source_timezone="Europe/Berlin")
    [found] = rows_of(target, "records")
    assert found["created_at"] == datetime(2026, 7, 1, 10)
    assert found["updated_at"] == datetime(2025, 12, 31, 23, 30, 0, 123456)
    assert found["db_last_modified"] == datetime(2026, 12, 31, 22, 59, 59)
    asked: list[int] = []

    def ask() -> str:
        asked.append(1)
        return "Asia/Kolkata"

    second = parse_target(f"sqlite:///{tmp_path}/u.db")
    for _ in range(2):  # once: the answer is kept
        report = moved(source, second, ask_timezone=ask)
        assert report.source_timezone == "Asia/Kolkata"
    assert asked == [1]
    assert rows_of(second, "records")[0]["created_at"] == datetime(2026, 7, 1, 6, 30)
    with pytest.raises(SettingsError) as caught:
        moved(
            source,
            parse_target(f"sqlite:///{tmp_path}/v.db"),
            source_timezone="Mars/Olympus",
        )
    assert caught.value.code == "unknown_timezone"


def test_of_rows_of_one_moment_the_largest_id_is_the_newest(
    source_url: str, tmp_path: Path
) -> None:
    common = {"source_ip": "a", "node_name": "n", "db_path": "/p", "token_id": "t"}
    source = older_table(
        source_url,
        [
            {**common, "id": number, "token_status": str(number), "synced_at": at}
            for number, at in ((9, "2026-01-01"), (10, "2026-01-01"), (11, None), (8, "2025-12-31"))
        ],
    )
    target = parse_target(f"sqlite:///{tmp_path}/t.db")
    moved(source, target)
    assert [row["token_status"] for row in rows_of(target, "records")] == ["10"]


def test_tables_of_other_ages_and_types(source_url: str, target: TargetAddress) -> None:
    """Columns missing, of other types, in other case; times as text and with a zone."""
    source = older_table(
        source_url,
        [
            {
                "source_ip": "a",
                "db_path": "/p",
                "token_id": "t1",
                "token_status": 4,
                "created_at": "2026-01-01T00:00:00+02:00",
                "updated_at": "1767225600",
                "token_value": 1.5,
                "extra": "kept nowhere",
            },
            {"source_ip": "a", "db_path": "/p", "token_id": "t1", "token_status": 5},
        ],
        'CREATE TABLE "TokenRecords" (id BIGSERIAL, source_ip VARCHAR(45), db_path TEXT,'
        " token_id TEXT, token_status INTEGER, created_at TEXT, updated_at TEXT,"
        " token_value NUMERIC, extra TEXT);"
        'CREATE VIEW tokenrecords AS SELECT * FROM "TokenRecords" WHERE false;'
        'DROP VIEW tokenrecords; ALTER TABLE "TokenRecords" RENAME TO tokenrecords',
    )
    report = moved(source, target, source_timezone="America/New_York")
    assert report.exit_code == 0
    [found] = rows_of(target, "records")
    assert (found["token_status"], found["ipfs_fetched"]) == ("5", False)
    [aside] = rows_of(target, "set_aside")[:1]
    assert report.total("duplicates_merged") == 1
    assert {row["reason"] for row in rows_of(target, "set_aside")} == {"duplicate", "changed"}
    assert aside["original_row"]


def test_what_a_sync_has_written_is_left_alone(
    source_url: str, target: TargetAddress, opened: Callable[..., SqlTarget]
) -> None:
    store = opened()
    store.ensure_schema()
    lease = Lease(SOURCE, SESSION)
    store.start_session(SESSION, SOURCE, "h", 1, "sync")
    store.acquire_lease(lease, "elsewhere|-|1|1")
    store.publish(lease, Chunk(rows=batch_of(range(3), token_status="new"), mark=mark(3)))
    store.finish_session(lease, "COMPLETED", SessionTotals(), None)
    common = {"source_ip": SOURCE, "node_name": "n", "token_status": "old"}
    source = older_table(
        source_url,
        [
            {**common, "db_path": DB_PATH, "token_id": record(1)["token_id"]},
            {**common, "db_path": "/other", "token_id": "t"},
        ],
    )
    report = moved(source, target)
    assert {one.db_path: one.state for one in report.databases} == {
        DB_PATH: "kept",
        "/other": "moved",
    }
    assert report.complete
    statuses = {(r["db_path"], r["token_status"]) for r in rows_of(target, "records")}
    assert statuses == {(DB_PATH, "new"), ("/other", "old")}
    # And what a sync writes after the migration is not compared with the older system.
    other = database_key(SOURCE, "/other")
    store.acquire_lease(lease, "elsewhere|-|1|1")
    store.publish(
        lease,
        Chunk(
            rows=batch(record(5, path="/other")),
            mark=mark(2, database_key=other, db_path="/other"),
        ),
    )
    store.release_lease(lease)
    proof = moved(source, target, verify_only=True)
    assert {one.state for one in proof.databases} == {"synced"}
    assert {one.state for one in moved(source, target).databases} == {"kept", "unchanged"}


def test_a_record_that_the_target_refuses_is_set_aside_in_full(
    source_url: str, target: TargetAddress, opened: Callable[..., SqlTarget]
) -> None:
    from tests.targets.test_publish import refuse_tokens

    store = opened()
    store.ensure_schema()
    refuse_tokens(store, [2])
    common = {"source_ip": SOURCE, "db_path": DB_PATH, "token_status": "0"}
    source = older_table(
        source_url, [{**common, "token_id": record(n)["token_id"]} for n in range(5)]
    )
    report = moved(source, target)
    assert (report.exit_code, report.complete) == (1, True)
    assert (report.total("rows_stored"), report.total("rows_refused")) == (4, 1)
    refused = [row for row in rows_of(target, "set_aside") if row["reason"] == "refused"]
    assert [json.loads(row["original_row"])["token_id"] for row in refused] == [
        record(2)["token_id"]
    ]
    assert moved(source, target, verify_only=True).exit_code == 0
    [state] = store.database_states(SOURCE)
    assert (state.record_count, state.rejected_count) == (4, 1)


def known_of(store: SqlTarget) -> dict[bytes, bytes]:
    """Digests by key; the order is nobody's promise."""
    keys, digests = store.known_rows(DATABASE)
    return {
        keys[n * 24 : n * 24 + 24]: digests[n * 16 : n * 16 + 16] for n in range(len(keys) // 24)
    }


def test_from_target_to_target_and_back(
    target: TargetAddress, tmp_path: Path, opened: Callable[..., SqlTarget]
) -> None:
    """Roll-back: records, keys, digests, vanished ones and fingerprints arrive unchanged."""
    store = opened()
    store.ensure_schema()
    lease = Lease(SOURCE, SESSION)
    store.start_session(SESSION, SOURCE, "h", 1, "sync")
    store.acquire_lease(lease, "elsewhere|-|1|1")
    odd = record(50, token_id=None, ipfs_data=None, ipfs_fetched=False, node_name="ñ 🪙")
    gone = record(3)["record_key"] + record(4)["record_key"]
    store.publish(lease, Chunk(rows=batch(*(record(n) for n in range(20)), odd)))
    store.publish(lease, Chunk(rows=batch_of([]), vanished=gone, mark=mark(19)))
    elsewhere = "/empty/rubix.db"
    empty = mark(0, database_key=database_key(SOURCE, elsewhere), db_path=elsewhere)
    store.publish(lease, Chunk(rows=batch_of([]), mark=empty))
    with pytest.raises(Exception, match="is writing to") as busy:
        moved(target, parse_target(f"sqlite:///{tmp_path}/x.db"))
    assert getattr(busy.value, "exit_code", None) == 4
    store.release_lease(lease)

    there = parse_target(f"sqlite:///{tmp_path}/there.db")
    report = moved(target, there)
    assert (report.exit_code, report.complete) == (0, True)
    assert report.total("rows_stored") == 21
    back = parse_target(f"sqlite:///{tmp_path}/back.db")
    assert moved(there, back).complete
    assert moved(there, back, verify_only=True).exit_code == 0
    for one in (there, back):
        copy = open_target(one, TargetOptions(read_only=True))
        try:
            assert known_of(copy) == known_of(store)
            assert [s.fingerprint for s in copy.database_states(SOURCE)] == ["f1", "f1"]
            rows = {r["record_key"]: r for r in rows_of(one, "records")}
            assert len(rows) == 21
            assert rows[odd["record_key"]]["node_name"] == "ñ 🪙"
            vanished = {k for k, r in rows.items() if r["source_deleted_at"] is not None}
            assert vanished == {gone[:24], gone[24:]}
        finally:
            copy.close()
    again = moved(target, there)
    assert {row.state for row in again.databases} == {"unchanged"}


def test_a_path_longer_than_the_column_goes_both_ways(postgres_url: str, tmp_path: Path) -> None:
    first, second = "/x" * 300 + "/a", "/x" * 300 + "/b"
    common = {"source_ip": "a", "node_name": "n", "token_id": "t"}
    source = older_table(
        postgres_url, [{**common, "db_path": first}, {**common, "db_path": second}]
    )
    middle = parse_target(f"sqlite:///{tmp_path}/m.db")
    assert moved(source, middle).total("rows_changed") == 2
    end = parse_target(f"sqlite:///{tmp_path}/e.db")
    report = moved(middle, end)
    assert [one.rows_stored for one in report.databases] == [1, 1]
    keys = {bytes(row["record_key"])[:8] for row in rows_of(end, "records")}
    assert keys == {database_key("a", first), database_key("a", second)}
