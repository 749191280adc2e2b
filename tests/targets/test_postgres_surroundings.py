"""PostgreSQL as others set it up: poolers, encodings, limits of roles, pasted addresses."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from rubix_token_sync.errors import SettingsError, TargetRefused
from rubix_token_sync.targets.base import Chunk, Lease, TargetOptions
from rubix_token_sync.targets.postgresql.address import PostgresAddress, secrets
from rubix_token_sync.targets.postgresql.forms import as_libpq
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.postgres_server import PostgresServer

from .records_made import DATABASE, OTHER_SESSION, SESSION, SOURCE, batch_of, mark


def opened(url: str, **options: Any) -> SqlTarget:
    return open_target(parse_target(url), TargetOptions(**{"wait_factor": 0.0, **options}))


def load(target: SqlTarget, session: str = SESSION, count: int = 60) -> None:
    """A first load: indexes are dropped and built again."""
    target.ensure_schema()
    lease = Lease(SOURCE, session)
    target.start_session(session, SOURCE, "host", 1, "sync")
    target.acquire_lease(lease, "elsewhere|-|1|1")
    target.prepare_load()
    target.publish(lease, Chunk(batch_of(range(count)), bulk=True, new=True))
    target.publish(lease, Chunk(batch_of(range(5), token_status="2"), mark=mark(count)))
    target.finish_load()
    target.release_lease(lease)


# --- poolers ---------------------------------------------------------------------


@pytest.fixture
def pooled(
    postgres_server: PostgresServer, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of the test's database behind PgBouncer, one server connection for all."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed: nothing is tried behind a real pooler")
    database = postgres_url.split("@/")[1].split("?")[0]
    home = Path(f"/tmp/rubix-pgb-{os.getpid()}")
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    (home / "ini").write_text(
        f"[databases]\n{database} = host={postgres_server.home} port={postgres_server.port}"
        f" dbname={database} user=rubix\n"
        f"[pgbouncer]\nlisten_port = {postgres_server.port}\nunix_socket_dir = {home}\n"
        "auth_type = any\npool_mode = transaction\ndefault_pool_size = 1\n"
    )
    nobody: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody")
        nobody = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    process = subprocess.Popen(
        [program, "-q", str(home / "ini")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **nobody,
    )
    url = f"postgresql://rubix@/{database}?host={home}&port={postgres_server.port}"
    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(url).close()
            break
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield url
    process.terminate()
    process.wait()
    shutil.rmtree(home)


def settings_of(url: str) -> dict[str, str]:
    """What another program finds on the pooler's one connection."""
    with psycopg.connect(url, autocommit=True) as conn:
        return dict(conn.execute("SELECT name, setting FROM pg_settings").fetchall())


def test_a_pooler_in_transaction_mode_notices_nothing(pooled: str) -> None:
    before = settings_of(pooled)
    target = opened(pooled)
    load(target)
    reader = opened(pooled, read_only=True)
    assert len(reader.known_rows(DATABASE)[0]) == 60 * 24
    assert sum(batch.num_rows for batch in reader.stored_records(DATABASE)) == 60
    with pytest.raises(TargetRefused) as caught:
        reader.start_session(OTHER_SESSION, SOURCE, "host", 1, "sync")
    assert caught.value.code == "read_only"
    reader.close()
    after = settings_of(pooled)
    # These two are the pooler's own to keep apart, which it does for each client.
    changed = {name for name in before if before[name] != after[name]}
    assert changed - {"application_name", "client_encoding"} == set()
    with psycopg.connect(pooled, autocommit=True) as conn:
        conn.execute("CREATE TABLE other_program (x int)")
        held = conn.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert held.fetchone() == (0,)
    missing = target.read(
        lambda conn: conn.exec_driver_sql(
            "SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'ix_tokenrecords_%%'"
        ).scalar_one()
    )
    assert missing == len(target.tables.late_indexes()) + 1  # and the one of invalid records
    target.close()


# --- limits and encodings ----------------------------------------------------------


def test_limits_of_the_role_are_lifted_for_what_takes_long(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    database = postgres_url.split("@/")[1].split("?")[0]
    limits = ["statement_timeout", "idle_in_transaction_session_timeout"]
    limits += ["transaction_timeout"] if postgres_server.version >= 17 else []
    setup = opened(postgres_url)
    setup.ensure_schema()
    setup.close()
    user = f"hasty_{database}"
    postgres_server.admin(
        f"CREATE ROLE {user} LOGIN IN ROLE rubix",
        *(f"ALTER ROLE {user} SET {limit} = '150ms'" for limit in limits),
    )
    target = opened(postgres_server.url(database, user=user))
    load(target)
    target.transact(lambda conn: conn.exec_driver_sql("SELECT pg_sleep(0.4)"))
    target.read(lambda conn: (conn.exec_driver_sql("SELECT 1"), time.sleep(0.4)))
    assert target.retries == 0
    target.close()
    postgres_server.admin(f"DROP ROLE {user}")


@pytest.mark.parametrize(
    "setting",
    [
        "DateStyle = 'German'",
        "DateStyle = 'SQL, DMY'",
        "extra_float_digits = -5",
        "bytea_output = 'escape'",
        "standard_conforming_strings = off",
    ],
)
def test_forms_of_values_that_a_role_has_change_nothing(
    postgres_server: PostgresServer, postgres_url: str, setting: str
) -> None:
    database = postgres_url.split("@/")[1].split("?")[0]
    postgres_server.admin(f"ALTER ROLE rubix IN DATABASE {database} SET {setting}")
    target = opened(postgres_url)
    load(target)
    near = target.server_time() - datetime.now(UTC).replace(tzinfo=None)
    assert abs(near) < timedelta(minutes=5)
    (state,) = target.database_states(SOURCE)
    assert abs(state.last_processed - target.server_time()) < timedelta(minutes=5)
    number = target.read(
        lambda conn: conn.exec_driver_sql("SELECT 123456.789012345::float8").scalar_one()
    )
    assert number == 123456.789012345
    target.close()
    postgres_server.admin(f"ALTER ROLE rubix IN DATABASE {database} RESET ALL")


def test_the_server_gives_up_a_machine_that_was_cut_off(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """After 40 s in a transaction, whether it was waiting for that machine or had just answered."""
    if postgres_server.version < 12:
        pytest.skip("the server has no tcp_user_timeout")
    database = postgres_url.split("@/")[1].split("?")[0]
    postgres_server.admin("ALTER ROLE rubix PASSWORD 'rubix'")
    target = opened(f"{postgres_server.tcp_url(database)}?sslmode=disable")
    names = ("idle", "interval", "count")

    def ask(conn: sa.Connection) -> tuple[int, str]:
        idle, interval, count = (
            int(conn.exec_driver_sql(f"SHOW tcp_keepalives_{name}").scalar_one()) for name in names
        )
        unanswered = conn.exec_driver_sql("SHOW tcp_user_timeout").scalar_one()
        return idle + interval * count, unanswered

    assert target.read(ask) == (40, "40000")
    target.close()


def test_an_encoding_that_cannot_hold_everything_is_named_first(
    postgres_server: PostgresServer,
) -> None:
    postgres_server.admin(
        "DROP DATABASE IF EXISTS latin",
        "CREATE DATABASE latin OWNER rubix ENCODING 'LATIN1' TEMPLATE template0"
        " LC_COLLATE 'C' LC_CTYPE 'C'",
    )
    target = opened(postgres_server.url("latin"))
    for ask in (target.describe_connection, target.schema_version, target.ensure_schema):
        with pytest.raises(TargetRefused) as caught:
            ask()
        assert caught.value.code == "wrong_encoding"
        assert "LATIN1" in caught.value.message
        assert "UTF8" in caught.value.remedy
    target.close()
    with psycopg.connect(postgres_server.url("latin")) as conn:
        found = conn.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert found.fetchone() == (0,)
    postgres_server.admin("DROP DATABASE latin")


def test_a_search_path_that_names_no_schema_is_explained(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    database = postgres_url.split("@/")[1].split("?")[0]
    postgres_server.admin(f"ALTER ROLE rubix IN DATABASE {database} SET search_path = nosuch")
    target = opened(postgres_url)
    with pytest.raises(TargetRefused) as caught:
        target.ensure_schema()
    assert caught.value.code == "no_schema"
    assert "search_path" in caught.value.remedy
    target.close()


@pytest.mark.parametrize("pool_size", [1, 2, 3])
def test_any_pool_is_large_enough(postgres_url: str, pool_size: int) -> None:
    """A pool of one hung for minutes at the end of a load: one call waited for another."""
    target = opened(postgres_url, pool_size=pool_size, call_seconds=5.0, attempts=1)
    load(target)
    load(target, OTHER_SESSION)
    target.close()


def test_others_write_on_while_indexes_are_built(postgres_url: str) -> None:
    target = opened(postgres_url, pool_size=1, call_seconds=5.0, attempts=1)
    target.ensure_schema()
    target.acquire_lease(Lease("10.0.0.8", OTHER_SESSION), "elsewhere|-|1|1")
    load(target)
    target.close()


def long_did(number: int) -> str:
    """A text within the column's 1,000 characters that no index takes, nor compresses."""
    return "".join(
        chr(0x4E00 + (number * 7919 + n * n * 31 + n * 977) % 20_000) for n in range(999)
    )


@pytest.mark.parametrize("new", [False, True])
def test_a_value_too_long_for_an_index_costs_its_record_only(postgres_url: str, new: bool) -> None:
    target = opened(postgres_url)
    target.ensure_schema()
    lease = Lease(SOURCE, SESSION)
    target.start_session(SESSION, SOURCE, "host", 1, "sync")
    target.acquire_lease(lease, "elsewhere|-|1|1")
    target.prepare_load()  # the index is not there yet
    rows = batch_of(range(20)).to_pylist()
    rows[7]["did"] = long_did(7)
    rows[11]["did"] = "長" * 1_000  # as long, but it compresses
    batch = batch_of([]).from_pylist(rows, schema=batch_of([]).schema)
    published = target.publish(lease, Chunk(batch, bulk=True, new=new, mark=mark(20)))
    assert [one.token_id for one in published.rejected] == [rows[7]["token_id"]]
    assert "index row" in published.rejected[0].reason
    assert published.inserted == 19
    target.finish_load()
    assert [state.record_count for state in target.database_states(SOURCE)] == [19]
    target.close()


# --- addresses -----------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:x1234@db.example/tokens",
        "postgresql+psycopg://u:x1234@db.example/tokens",
        "jdbc:postgresql://db.example/tokens?user=u&password=x1234",
        "jdbc:postgresql://db.example:5432/tokens?user=u&password=x1234&ssl=true",
        "host=db.example dbname=tokens user=u password=x1234",
        "host='db.example' dbname = tokens user=u password='x1234'",
        "Host=db.example;Database=tokens;Username=u;Password=x1234",
        "Server=db.example;Port=5432;Database=tokens;User Id=u;Password=x1234;Pooling=true",
        'Host=db.example;Database=tokens;Username=u;Password="x1234";SSL Mode=Require;',
    ],
)
def test_forms_of_other_programs_mean_the_same(text: str) -> None:
    target = parse_target(text)
    assert target.kind == "postgresql"
    assert "x1234" in target.secrets()
    address = PostgresAddress.parse(target.address, {})
    arguments = address.connection_arguments()
    found = {name: arguments[name] for name in ("host", "dbname", "user", "password", "sslmode")}
    assert found == {
        "host": "db.example",
        "dbname": "tokens",
        "user": "u",
        "password": "x1234",
        "sslmode": "require",
    }
    assert "x1234" not in address.place + repr(address)


def test_hostile_passwords_in_other_forms() -> None:
    text = 'Host=h;Database=d;Username=u;Password="a;b=\'c\'""d"'
    assert (
        PostgresAddress.parse(parse_target(text).address, {}).connection_arguments()["password"]
        == "a;b='c'\"d"
    )
    jdbc = "jdbc:postgresql://h/d?user=u&password=a%26b%3Dc&currentSchema=s"
    arguments = PostgresAddress.parse(parse_target(jdbc).address, {}).connection_arguments()
    assert (arguments["password"], arguments["options"]) == ("a&b=c", "-csearch_path=s")
    assert secrets("Host=h;Nonsense=1;Password=abc")[0] == "abc"
    assert as_libpq("postgresql://h/d") == "postgresql://h/d"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("postgresql://u:x1234@h/t?sslmode=verify_full", "Did you mean verify-full?"),
        ("postgresql://u:x1234@h:99999/t", "1 to 65535"),
        ("Host=h;Databse=d;Username=u;Password=x1234", "'Databse'"),
        ("Host=h;Database=d;Username=u;Password=x1;234=y", "double quotes"),
    ],
)
def test_mistakes_are_named(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        open_target(parse_target(text), TargetOptions())
    assert caught.value.code == "bad_postgresql_url"
    assert said in str(caught.value)
    assert "x1234" not in str(caught.value)


def test_a_file_is_named_by_a_url() -> None:
    with pytest.raises(SettingsError, match=r"sqlite:///tokens\.db"):
        parse_target("tokens.db")
    assert parse_target("Server=h;Database=d;User ID=u;Password=p").kind == "mssql"
