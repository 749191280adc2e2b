"""The schema: once, however many create it; exactly what the code expects; the guide's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from rubix_token_sync.errors import SchemaError, TargetError
from rubix_token_sync.records.schema import RECORDS
from rubix_token_sync.targets.base import SCHEMA_VERSION
from rubix_token_sync.targets.registry import TargetAddress
from rubix_token_sync.targets.sql.target import SqlTarget

CREATE = """
import sys
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.base import TargetOptions
store = open_target(parse_target(sys.stdin.readline().strip()), TargetOptions())
print("ready", flush=True)
sys.stdin.readline()
store.ensure_schema()
print(store.schema_version())
"""


def test_created_once_and_then_left_alone(opened: Callable[..., SqlTarget]) -> None:
    store = opened()
    assert store.schema_version() is None
    assert store.ensure_schema()
    assert not store.ensure_schema()
    assert not opened().ensure_schema()
    assert store.schema_version() == SCHEMA_VERSION


@pytest.mark.parametrize("count", [4, pytest.param(10, marks=pytest.mark.long)])
def test_processes_at_the_same_moment(
    target: TargetAddress, opened: Callable[..., SqlTarget], count: int
) -> None:
    address = target.address.get_secret_value()
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(address + "\n")
        racer.stdin.flush()
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    ends = [racer.communicate(timeout=100) for racer in racers]
    assert [out for out, _ in ends] == [f"{SCHEMA_VERSION}\n"] * count, ends
    assert not opened().ensure_schema()


def is_babelfish(store: SqlTarget) -> bool:
    """A server that only resembles SQL Server."""
    query = "SELECT SERVERPROPERTY('Babelfish')"
    return store.read(lambda conn: conn.exec_driver_sql(query).scalar()) is not None


def test_what_the_revisions_make_is_what_the_code_expects(store: SqlTarget) -> None:
    def differences(conn: sa.Connection) -> list[object]:
        options = {
            "compare_type": True,
            "compare_server_default": False,
            "include_name": lambda name, kind, _: kind != "table" or name in wanted,
        }
        context = MigrationContext.configure(conn, opts=options)
        return list(compare_metadata(context, store.tables.metadata))

    wanted = set(store.tables.metadata.tables)
    if store.kind == "mssql" and is_babelfish(store):
        # It has no REFERENTIAL_CONSTRAINTS, which the comparison asks for.
        return
    assert store.read(differences) == []


def test_every_secondary_index_of_the_guide(store: SqlTarget) -> None:
    table = store.tables.records.name
    found = store.read(lambda conn: sa.inspect(conn).get_indexes(table))
    by_name = {index["name"]: index for index in found}
    for column in RECORDS.indexed:
        if (store.kind, column) == ("mssql", "did"):  # longer than its index keys may be
            continue
        assert by_name[f"ix_tokenrecords_{column}"]["column_names"] == [column]
    assert {"token_id", "did", "node_name", "source_ip", "db_path", "ipfs_fetched"} < set(
        RECORDS.indexed
    )
    unique = by_name["ux_tokenrecords_record_key"]
    assert unique["unique"]
    assert unique["column_names"][0] == "record_key"


def test_the_guides_defaults(store: SqlTarget) -> None:
    tables = store.tables

    def work(conn: sa.Connection) -> tuple[sa.Row, sa.Row, sa.Row]:
        conn.execute(
            sa.insert(tables.records).values(
                source_ip="a",
                node_name="b",
                db_path="c",
                db_last_modified=store.now,
                record_key=b"k" * 24,
                row_digest=b"d" * 16,
            )
        )
        conn.execute(
            sa.insert(tables.databases).values(
                database_key=b"d" * 8,
                db_path="c",
                source_ip="a",
                last_modified=store.now,
                last_processed=store.now,
            )
        )
        conn.execute(
            sa.insert(tables.sessions).values(
                session_id="00000000-0000-4000-8000-000000000009", source_ip="a"
            )
        )
        return (
            conn.execute(sa.select(tables.records)).one(),
            conn.execute(sa.select(tables.databases)).one(),
            conn.execute(sa.select(tables.sessions)).one(),
        )

    record, database, session = store.transact(work)
    assert record.id == 1
    assert record.ipfs_fetched in (False, 0)
    now = store.read(
        lambda conn: conn.execute(
            sa.select(sa.type_coerce(sa.literal_column(store.now.text), sa.DateTime()))
        ).scalar_one()
    )
    assert abs((now - record.synced_at).total_seconds()) < 60
    assert (database.record_count, database.ipfs_success_count) == (0, 0)
    assert database.processing_duration_seconds == 0
    assert session.status == "RUNNING"
    assert session.total_sql_inserts == 0
    assert abs((now - session.start_time).total_seconds()) < 60


def test_a_session_id_comes_from_the_server_where_none_is_given(store: SqlTarget) -> None:
    if store.kind == "sqlite":
        pytest.skip("SQLite makes no UUIDs")
    sessions = store.tables.sessions

    def work(conn: sa.Connection) -> list[str]:
        for _ in range(2):
            conn.execute(sa.insert(sessions).values(source_ip="a"))
        return [str(row) for row in conn.scalars(sa.select(sessions.c.session_id))]

    first, second = store.transact(work)
    assert len(first) == len(second) == 36
    assert first != second


def test_a_newer_schema_is_refused(store: SqlTarget, opened: Callable[..., SqlTarget]) -> None:
    store.transact(
        lambda conn: conn.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    )
    with pytest.raises(SchemaError, match="newer than this program"):
        opened().ensure_schema()


def test_reading_never_creates(opened: Callable[..., SqlTarget], target: TargetAddress) -> None:
    if target.kind == "sqlite":
        with pytest.raises(TargetError) as caught:
            opened(read_only=True).ensure_schema()
        assert caught.value.code == "cannot_open"
        return
    with pytest.raises(SchemaError) as refused:
        opened(read_only=True).ensure_schema()
    assert refused.value.code == "schema_missing"


def test_the_script_for_a_dba_makes_the_same(opened: Callable[..., SqlTarget]) -> None:
    store = opened()
    if store.kind == "sqlite":
        opened().transact(lambda conn: None)  # makes the file

    def run(conn: sa.Connection) -> None:
        for statement in store.schema_script().split(";\n"):
            if statement.strip():
                conn.exec_driver_sql(statement)

    store.transact(run)
    assert not store.ensure_schema()
    test_what_the_revisions_make_is_what_the_code_expects(store)
    test_every_secondary_index_of_the_guide(store)
