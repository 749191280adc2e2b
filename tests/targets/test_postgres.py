"""What is PostgreSQL's own: addresses, TLS, rights, errors by their code, the pool, hangs."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pyarrow as pa
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from rubix_token_sync.errors import (
    CommitAmbiguous,
    RecordRefused,
    SettingsError,
    SyncError,
    TargetError,
    TargetOverloaded,
    TargetRefused,
    TargetUnavailable,
)
from rubix_token_sync.records.companions import TRANSACTIONS
from rubix_token_sync.targets.base import Chunk, Lease, TargetOptions
from rubix_token_sync.targets.postgresql.address import PostgresAddress
from rubix_token_sync.targets.postgresql.copy_format import KnownRows, copy_payload
from rubix_token_sync.targets.postgresql.errors import translate_error
from rubix_token_sync.targets.postgresql.indexes import missing_indexes
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.postgres_server import PostgresServer

from . import companions_made
from .records_made import DATABASE, SESSION, SOURCE, batch_of, mark

HOSTILE = "p;w}d'\"=ü @:/%\\"


def store_at(url: str, **options: object) -> SqlTarget:
    given = {"wait_factor": 0.0, **options}
    return open_target(parse_target(url), TargetOptions(**given))  # type: ignore[arg-type]


def missing(store: SqlTarget) -> list[str]:
    found = store.read(lambda conn: missing_indexes(conn, store.database))
    return [str(index.name).removeprefix("ix_tokenrecords_") for index in found]


def parameters(store: SqlTarget) -> dict[str, str]:
    return store.backend.address.parameters  # type: ignore[attr-defined]


@pytest.fixture
def url_store(postgres_url: str) -> Iterator[SqlTarget]:
    made = store_at(postgres_url)
    made.ensure_schema()
    yield made
    made.close()


def leased(store: SqlTarget) -> Lease:
    lease = Lease(SOURCE, SESSION)
    store.start_session(SESSION, SOURCE, "host", 1, "sync")
    store.acquire_lease(lease, "elsewhere|-|1|1")
    return lease


# --- addresses -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "environ", "sslmode"),
    [
        ("postgresql://u:p@db.example/x", {}, "require"),
        ("postgres://u:p@db.example/x", {}, "require"),
        ("postgresql://u:p@db.example/x?sslrootcert=/ca.pem", {}, "verify-full"),
        ("postgresql://u:p@db.example/x?sslmode=disable", {}, "disable"),
        ("postgresql://u:p@db.example/x", {"PGSSLMODE": "prefer"}, None),
        ("postgresql://u:p@db.example/x", {"PGSSLROOTCERT": "/ca.pem"}, "verify-full"),
        ("postgresql://u:p@localhost/x", {}, None),
        ("postgresql:///x?host=/var/run/postgresql", {}, None),
        ("postgresql:///x", {}, None),
        ("postgresql:///x", {"PGHOST": "db.example"}, "require"),
        ("postgresql://u@localhost,db.example/x", {}, "require"),
        ("postgresql:///?service=audit", {}, None),
    ],
)
def test_a_server_elsewhere_must_speak_tls_unless_told_otherwise(
    url: str, environ: dict[str, str], sslmode: str | None
) -> None:
    address = PostgresAddress.parse(SecretStr(url), environ)
    assert address.parameters.get("sslmode") == sslmode


def test_an_address_keeps_its_secret_to_itself() -> None:
    url = f"postgresql://user:{quote(HOSTILE, safe='')}@db.example:5433/audit?connect_timeout=7"
    address = PostgresAddress.parse(SecretStr(url), {})
    assert address.place == "postgresql://db.example:5433/audit"
    assert address.connection_arguments()["password"] == HOSTILE
    assert address.connection_arguments()["connect_timeout"] == "7"
    assert HOSTILE not in repr(address)
    assert "password" not in address.parameters


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:geheim@wort@db/x",
        "postgresql://u:geheim%zz@db/x",
        "postgresql://u:geheim wort@db/x",
        "postgresql://u:geheim:5432/x",
        "postgresql://u:p/geheim@db/x",
        "postgresql://u:p@db/x?geheim=1",
    ],
)
def test_a_malformed_address_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        PostgresAddress.parse(SecretStr(url), {})
    assert caught.value.code == "bad_postgresql_url"
    assert "geheim" not in f"{caught.value} {caught.value!r} {caught.value.context}"
    assert caught.value.__cause__ is None


# --- what a user does wrong ----------------------------------------------------


def failure_of(url: str, **options: object) -> TargetError:
    store = store_at(url, **options)
    try:
        with pytest.raises(TargetError) as caught:
            store.schema_version()
    finally:
        store.close()
    return caught.value


def test_the_likely_mistakes_each_have_their_sentence(postgres_server: PostgresServer) -> None:
    secret = quote(HOSTILE, safe="")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
        cases = {
            "login_failed": postgres_server.tcp_url("postgres", password=secret),
            "wrong_database": postgres_server.tcp_url("nowhere"),
            "port_closed": f"postgresql://u:{secret}@127.0.0.1:{closed}/x",
            "unknown_host": f"postgresql://u:{secret}@no-such-host.invalid/x",
            "no_tls": postgres_server.tcp_url("postgres", password=secret) + "?sslmode=require",
        }
        kinds = {"port_closed": TargetUnavailable, "unknown_host": TargetUnavailable}
        for code, url in cases.items():
            error = failure_of(url)
            assert error.code == code, error
            assert type(error) is kinds.get(code, TargetRefused)
            assert error.exit_code == 3
            assert error.remedy
            assert HOSTILE not in repr(error) + str(error) + str(error.context)
            assert secret not in repr(error) + str(error) + str(error.context)


def test_no_password_no_role(postgres_server: PostgresServer) -> None:
    assert failure_of(postgres_server.url("postgres", user="nobody_here")).code == "login_failed"
    without = f"postgresql://rubix@127.0.0.1:{postgres_server.port}/postgres"
    assert failure_of(without).code == "login_failed"


def test_a_hostile_password_that_is_right(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    literal = HOSTILE.replace("'", "''")
    postgres_server.admin(
        "DROP ROLE IF EXISTS hostile",
        f"CREATE ROLE hostile LOGIN PASSWORD '{literal}'",
    )
    database = postgres_url.split("@/")[1].split("?")[0]
    url = postgres_server.tcp_url(database, user="hostile", password=quote(HOSTILE, safe=""))
    store = store_at(url)
    assert store.schema_version() is None
    assert HOSTILE not in repr(store.engine.url) + store.place + store.describe_connection()
    store.close()


def test_a_user_without_ddl_rights_works_with_the_documented_grants(
    postgres_server: PostgresServer, url_store: SqlTarget
) -> None:
    database = url_store.place.rsplit("/", 1)[1]
    user = f"worker_{database}"
    postgres_server.admin(f"CREATE ROLE {user} LOGIN", database=database)
    store = store_at(postgres_server.url(database, user=user))
    with pytest.raises(TargetRefused) as caught:
        store.start_session(SESSION, SOURCE, "host", 1, "sync")
    assert caught.value.code == "no_rights"
    assert "TEMPORARY" in caught.value.remedy
    postgres_server.admin(
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {user}",
        f"GRANT TEMPORARY ON DATABASE {database} TO {user}",
        database=database,
    )
    lease = leased(store)
    assert not store.ensure_schema()
    store.prepare_load()
    assert store.publish(lease, Chunk(rows=batch_of(range(5)), mark=mark(5))).inserted == 5
    store.finish_load()
    assert missing(store) == []  # it cannot build them: it drops none
    store.close()
    postgres_server.admin(f"DROP OWNED BY {user}", f"DROP ROLE {user}", database=database)


# --- TLS -----------------------------------------------------------------------


class TlsFront:
    """A TLS end in front of the server, whose own build has none."""

    def __init__(self, port: int, directory: Path) -> None:
        self._port = port
        key, self.certificate = directory / "key.pem", directory / "cert.pem"
        subprocess.run(
            (
                "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=db.test"
                f" -addext subjectAltName=DNS:localhost -keyout {key} -out {self.certificate}"
            ).split(),
            check=True,
            capture_output=True,
        )
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.certificate, key)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            request = client.recv(8)
            assert request[4:] == (80877103).to_bytes(4, "big")  # SSLRequest
            client.sendall(b"S")
            with (
                self._context.wrap_socket(client, server_side=True) as secure,
                socket.create_connection(("127.0.0.1", self._port)) as server,
            ):
                back = threading.Thread(target=_pump, args=(server, secure), daemon=True)
                back.start()
                _pump(secure, server)
                server.shutdown(socket.SHUT_RDWR)
                back.join()
        except OSError:
            client.close()  # a client that does not trust us hangs up

    def close(self) -> None:
        self._listening.close()


def _pump(source: socket.socket, drain: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            drain.sendall(data)
    except OSError:
        return


@pytest.fixture
def front(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[TlsFront]:
    made = TlsFront(postgres_server.port, tmp_path)
    yield made
    made.close()


def test_tls_with_a_certificate_that_is_checked(front: TlsFront, postgres_url: str) -> None:
    database = postgres_url.split("@/")[1].split("?")[0]
    base = f"postgresql://rubix:rubix@HOST:{front.port}/{database}?hostaddr=127.0.0.1"
    trusting = base + f"&sslrootcert={front.certificate}"
    store = store_at(trusting.replace("HOST", "localhost") + "&sslmode=verify-full")
    store.ensure_schema()
    lease = leased(store)
    assert store.publish(lease, Chunk(rows=batch_of(range(500)))).inserted == 500
    store.close()
    required = store_at(base.replace("HOST", "elsewhere.test"))  # 'require' asks for no authority
    assert not required.ensure_schema()
    assert required.describe_connection().endswith(", TLS, user rubix")
    required.close()
    wrong_name = failure_of(trusting.replace("HOST", "elsewhere.test"))
    assert wrong_name.code == "bad_certificate"
    unknown = failure_of(base.replace("HOST", "localhost") + "&sslmode=verify-full")
    assert unknown.code == "bad_certificate"


# --- errors by code ------------------------------------------------------------


def made_error(state: str) -> psycopg.Error:
    kind = psycopg.errors.lookup(state)
    return kind("said by the server")


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("08006", TargetUnavailable),
        ("08P01", TargetUnavailable),
        ("57P01", TargetUnavailable),
        ("57P03", TargetUnavailable),
        ("57014", TargetUnavailable),
        ("40001", TargetUnavailable),
        ("40P01", TargetUnavailable),
        ("55P03", TargetUnavailable),
        ("53300", TargetOverloaded),
        ("53200", TargetOverloaded),
        ("53100", TargetRefused),
        ("25006", TargetRefused),
        ("28P01", TargetRefused),
        ("28000", TargetRefused),
        ("3D000", TargetRefused),
        ("42501", TargetRefused),
        ("42P01", TargetRefused),
        ("42601", TargetRefused),
        ("22001", RecordRefused),
        ("22021", RecordRefused),
        ("22P03", RecordRefused),
        ("23502", RecordRefused),
        ("23505", RecordRefused),
        ("23514", RecordRefused),
        ("54000", RecordRefused),
    ],
)
def test_every_class_of_errors_has_one_meaning(state: str, kind: type[SyncError]) -> None:
    error = translate_error(made_error(state), "place", committing=False)
    assert type(error) is kind
    assert error.context == {"sqlstate": state}


def test_a_login_refused_in_another_language_quotes_the_server() -> None:
    """Before there is a connection an error has no SQLSTATE, and lc_messages may be any."""
    text = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: FATAL:  '
    text += "Passwort-Authentifizierung für Benutzer »sync« fehlgeschlagen"
    error = translate_error(psycopg.OperationalError(text), "place", committing=False)
    assert (type(error), error.code) == (TargetUnavailable, "connection_failed")
    assert "Passwort-Authentifizierung" in error.message


def test_only_a_lost_connection_makes_a_commit_doubtful() -> None:
    doubtful = [psycopg.OperationalError("server closed the connection unexpectedly")]
    doubtful += [made_error(state) for state in ("08006", "57P01", "57P02")]
    for error in doubtful:
        found = translate_error(error, "place", committing=True)
        assert type(found) is CommitAmbiguous
        assert found.kind == "ambiguous"
    certain = [made_error(state) for state in ("40001", "40P01", "53100", "23505", "57014")]
    for error in certain:
        found = translate_error(error, "place", committing=True)
        assert type(found) is not CommitAmbiguous


def test_a_refusal_says_why_and_quotes_no_value(url_store: SqlTarget) -> None:
    with pytest.raises(RecordRefused) as caught:
        url_store.transact(
            lambda conn: conn.exec_driver_sql(
                "INSERT INTO synclealess VALUES (1)".replace("synclealess", "syncleases (holder)")
            )
        )
    assert "null value in column" in str(caught.value)


def test_a_deadlock_is_retried_until_both_are_through(url_store: SqlTarget) -> None:
    sessions = url_store.tables.sessions
    ids = [f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2)]
    for one in ids:
        url_store.start_session(one, SOURCE, "host", 1, "sync")
    barrier = threading.Barrier(2)
    met = [False, False]

    def cross(number: int) -> None:
        def work(conn: sa.Connection) -> None:
            def touch(one: str) -> None:
                conn.execute(
                    sa.update(sessions)
                    .where(sessions.c.session_id == one)
                    .values(total_sql_inserts=sessions.c.total_sql_inserts + 1)
                )

            touch(ids[number])
            if not met[number]:
                met[number] = True
                barrier.wait()
            touch(ids[1 - number])

        url_store.transact(work)

    threads = [threading.Thread(target=cross, args=(n,)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = url_store.read(
        lambda conn: conn.scalars(sa.select(sessions.c.total_sql_inserts)).all()
    )
    assert counts == [2, 2]
    assert url_store.retries >= 1  # the victim may meet the winner once more


# --- pool, lost connections, hangs ---------------------------------------------


def kick_out(server: PostgresServer, store: SqlTarget) -> None:
    database = store.place.rsplit("/", 1)[1]
    server.admin(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{database}' AND pid <> pg_backend_pid()"
    )


def test_connections_that_died_idle_are_replaced_unnoticed(
    postgres_server: PostgresServer, url_store: SqlTarget
) -> None:
    def idle_for_a_minute(_connection: object, record: Any) -> None:
        record.info["used"] -= 60

    sa.event.listen(url_store.engine, "checkin", idle_for_a_minute)
    lease = leased(url_store)
    kick_out(postgres_server, url_store)
    assert url_store.publish(lease, Chunk(rows=batch_of(range(3)))).inserted == 3
    assert url_store.retries == 0


def test_a_connection_that_died_just_now_is_found_out_by_its_first_statement(
    postgres_server: PostgresServer, url_store: SqlTarget
) -> None:
    """To ask before each transaction would cost a round trip each time."""
    lease = leased(url_store)
    kick_out(postgres_server, url_store)
    assert url_store.publish(lease, Chunk(rows=batch_of(range(3)))).inserted == 3
    assert url_store.retries == 1


def test_a_connection_that_dies_in_a_transaction_is_replaced_and_the_work_repeated(
    postgres_server: PostgresServer, url_store: SqlTarget
) -> None:
    lease = leased(url_store)
    kicked = []

    def kick_once(conn: sa.Connection) -> None:
        if not kicked:
            kicked.append(True)
            kick_out(postgres_server, url_store)

    real = url_store.publishing._write_mark

    def write_mark(conn: sa.Connection, *arguments: object) -> object:
        kick_once(conn)
        return real(conn, *arguments)  # type: ignore[arg-type]

    url_store.publishing._write_mark = write_mark  # type: ignore[method-assign,assignment]
    published = url_store.publish(lease, Chunk(rows=batch_of(range(3)), mark=mark(3)))
    assert (published.inserted, published.retries) == (3, 1)


def test_the_server_crashes_and_comes_back(tmp_path: Path) -> None:
    server = PostgresServer()
    try:
        store = store_at(server.url(server.database()))
        store.ensure_schema()
        lease = leased(store)
        server.stop(signal.SIGQUIT)
        with pytest.raises(TargetUnavailable):
            store.publish(lease, Chunk(rows=batch_of(range(3)), mark=mark(3)))
        server.start()
        published = store.publish(lease, Chunk(rows=batch_of(range(3)), mark=mark(3)))
        assert published.inserted == 3
        store.close()
    finally:
        server.close()


def test_never_more_connections_than_the_pool_may_have(url_store: SqlTarget) -> None:
    store = url_store
    small = store_at_same(store, pool_size=2, call_seconds=30)
    most = [0]
    lock = threading.Lock()

    def work(conn: sa.Connection) -> None:
        count = conn.exec_driver_sql(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pool-test'"
        ).scalar_one()
        with lock:
            most[0] = max(most[0], count)

    threads = [threading.Thread(target=lambda: small.read(work)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] in (1, 2)
    small.close()


def store_at_same(store: SqlTarget, **options: object) -> SqlTarget:
    host, port = parameters(store)["host"], parameters(store)["port"]
    database = parameters(store)["dbname"]
    return store_at(
        f"postgresql://rubix@/{database}?host={host}&port={port}&application_name=pool-test",
        **options,
    )


def test_a_pool_that_stays_empty_says_so(url_store: SqlTarget) -> None:
    small = store_at_same(url_store, pool_size=1, call_seconds=0.2, attempts=1)
    with small.engine.connect(), pytest.raises(TargetUnavailable) as caught:
        small.schema_version()
    assert caught.value.code == "pool_exhausted"
    small.close()


def test_a_statement_that_takes_too_long_is_cancelled_by_the_server(
    url_store: SqlTarget,
) -> None:
    hasty = store_at_same(url_store, call_seconds=0.2, attempts=2)
    with pytest.raises(TargetUnavailable) as caught:
        hasty.read(lambda conn: conn.exec_driver_sql("SELECT pg_sleep(30)"))
    assert caught.value.code == "timed_out"
    assert hasty.retries == 1
    hasty.close()


def test_a_server_that_stops_answering_is_left_by_our_own_clock(
    url_store: SqlTarget,
) -> None:
    def freeze(conn: sa.Connection) -> None:
        raw = conn.connection.dbapi_connection
        assert raw is not None
        raw.call_seconds = 0.3
        pid = raw.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            conn.exec_driver_sql("SELECT 1")
        finally:
            os.kill(pid, signal.SIGCONT)

    once = store_at_same(url_store, attempts=1)
    with pytest.raises(TargetUnavailable) as caught:
        once.read(freeze)
    assert caught.value.code == "connect_timeout"
    assert once.schema_version() is not None
    once.close()


def test_heartbeats_do_not_wait_for_writers_nor_writers_for_each_other(
    url_store: SqlTarget,
) -> None:
    from rubix_token_sync.targets.base import SessionTotals

    lease = leased(url_store)
    other = store_at_same(url_store, call_seconds=5, attempts=1)

    def work(conn: sa.Connection) -> None:
        url_store.sessions.fence(conn, lease)
        other.heartbeat(lease, SessionTotals())
        assert other.publish(lease, Chunk(rows=batch_of(range(3)))).inserted == 3

    url_store.transact(work)
    other.close()


def test_reading_stores_cannot_write(url_store: SqlTarget) -> None:
    reader = store_at_same(url_store, read_only=True)
    assert reader.schema_version() is not None
    with pytest.raises(TargetRefused) as caught:
        reader.start_session(SESSION, SOURCE, "host", 1, "sync")
    assert caught.value.code == "read_only"
    reader.close()


def test_what_only_reads_cannot_write(url_store: SqlTarget) -> None:
    """Its statements are transactions of their own: nobody would take a change back."""
    for refused in ("DELETE FROM alembic_version", "CREATE TABLE other (x int)"):
        with pytest.raises(TargetRefused) as caught:
            url_store.read(lambda conn, sql=refused: conn.exec_driver_sql(sql))  # type: ignore[misc]
        assert caught.value.code == "read_only"
    assert url_store.schema_version() is not None


def test_nothing_stays_open_or_set_behind_a_read(url_store: SqlTarget) -> None:
    asked = "SHOW transaction_read_only"

    def state(conn: sa.Connection) -> tuple[object, ...]:
        within = conn.exec_driver_sql(asked).scalar_one()
        raw: Any = conn.connection.dbapi_connection
        behind = psycopg.Cursor(raw).execute(asked).fetchone()  # without what goes ahead
        return within, behind, raw.info.transaction_status

    assert url_store.read(state) == ("on", ("off",), psycopg.pq.TransactionStatus.IDLE)


def test_a_libpq_without_pipelines_sends_one_after_the_other(
    url_store: SqlTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psycopg.Pipeline, "is_supported", classmethod(lambda _cls: False))
    lease = leased(url_store)
    assert url_store.publish(lease, Chunk(rows=batch_of(range(3)), mark=mark(3))).inserted == 3
    assert url_store.publish(lease, Chunk(rows=batch_of(range(5)), mark=mark(5))).inserted == 2
    assert url_store.retire_database(lease, DATABASE) == 5
    assert len(url_store.known_rows(DATABASE)[0]) == 0


# --- COPY ----------------------------------------------------------------------


def test_binary_copy_is_what_the_format_says() -> None:
    rows = pa.record_batch(
        {
            "key": pa.array([b"ab", b"cd"], pa.binary(2)),
            "text": pa.array(["é", None]),
            "time": pa.array([0, None], pa.timestamp("us")),
            "flag": pa.array([None, True]),
        }
    )
    data = b"".join(bytes(part) for part in copy_payload(rows, 1))
    since_2000 = (-946_684_800_000_000).to_bytes(8, "big", signed=True)
    null = b"\xff\xff\xff\xff"
    assert data == (
        b"PGCOPY\n\xff\r\n\x00" + bytes(8)
        + b"\x00\x04" + b"\x00\x00\x00\x02ab" + b"\x00\x00\x00\x02\xc3\xa9"
        + b"\x00\x00\x00\x08" + since_2000 + null
        + b"\x00\x04" + b"\x00\x00\x00\x02cd" + null + null + b"\x00\x00\x00\x01\x01"
        + b"\xff\xff"
    )  # fmt: skip
    with pytest.raises(TypeError, match="no binary form"):
        list(copy_payload(pa.record_batch({"n": pa.array([1.5])}), 10))


def test_known_rows_in_pieces_and_of_a_strange_form() -> None:
    rows = batch_of(range(3)).select(["record_key", "row_digest"])
    data = b"".join(bytes(part) for part in copy_payload(rows, 10))
    known = KnownRows()
    for start in range(0, len(data), 7):
        known.feed(data[start : start + 7])
    keys, digests = known.columns()
    assert keys == b"".join(rows.column(0).to_pylist())
    assert digests == b"".join(rows.column(1).to_pylist())
    for strange in (b"", b"hello", data[:-2]):
        known = KnownRows()
        known.feed(strange)
        with pytest.raises(ValueError, match="unknown form"):
            known.columns()


# --- indexes -------------------------------------------------------------------


def test_a_half_built_index_is_built_anew(url_store: SqlTarget) -> None:
    lease = leased(url_store)
    url_store.prepare_load()
    url_store.publish(lease, Chunk(rows=batch_of(range(3))))
    url_store.finish_load()
    database = url_store.place.rsplit("/", 1)[1]
    assert re.fullmatch(r"t\d+", database)
    spoil = (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_tokenrecords_did'::regclass"
    )
    host = parameters(url_store)["host"]
    port = parameters(url_store)["port"]
    with psycopg.connect(f"postgresql://postgres@/{database}?host={host}&port={port}") as conn:
        conn.execute(spoil)
    assert missing(url_store) == ["did"]
    url_store.prepare_load()
    assert missing(url_store) == []


def test_a_first_load_leaves_statistics_of_all_that_it_loaded(url_store: SqlTarget) -> None:
    """An audit that comes before the server's own next look would join them blindly, for hours."""
    lease = leased(url_store)
    url_store.prepare_load()
    rows = companions_made.batch(TRANSACTIONS, range(3))
    url_store.publish(lease, Chunk(rows, table=TRANSACTIONS.name, new=True))
    url_store.publish(lease, Chunk(batch_of(range(3)), mark=mark(3)))
    url_store.finish_load()
    asked = "SELECT relname, reltuples FROM pg_class WHERE reltuples > 0 AND relkind = 'r'"
    counted = url_store.read(lambda conn: conn.exec_driver_sql(asked).fetchall())
    assert {("tokenrecords", 3.0), (TRANSACTIONS.name.lower(), 3.0)} <= set(map(tuple, counted))


def test_two_runs_that_end_a_first_load_at_once(
    url_store: SqlTarget, fresh_postgres: Callable[..., str]
) -> None:
    lease = leased(url_store)
    second = store_at_same(url_store)
    url_store.prepare_load()
    second.prepare_load()
    url_store.publish(lease, Chunk(rows=batch_of(range(50)), mark=mark(50)))
    threads = [threading.Thread(target=one.finish_load) for one in (url_store, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missing(url_store) == []
    assert len(url_store.known_rows(DATABASE)[0]) == 50 * 24
    second.close()


# --- lost acknowledgements ------------------------------------------------------


class ForgetfulFront:
    """Between client and server: every other COMMIT is done, but its answer never arrives."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._lock = threading.Lock()
        self.commits = self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            try:
                while True:
                    for ready in select.select([client, server], [], [])[0]:
                        data = ready.recv(65_536)
                        if not data:
                            return
                        (server if ready is client else client).sendall(data)
                        if ready is client and self._is_to_be_lost(data):
                            server.recv(65_536)  # it is committed now
                            return
            except OSError:
                return

    def _is_to_be_lost(self, data: bytes) -> bool:
        if b"COMMIT\x00" not in data:
            return False
        with self._lock:
            self.commits += 1
            if self.commits % 2:
                self.lost += 1
                return True
        return False

    def close(self) -> None:
        self._listening.close()


def test_acknowledgements_of_commits_that_get_lost(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """Every transaction's first COMMIT is done without a word; the replay changes nothing."""
    front = ForgetfulFront(postgres_server.port)
    database = postgres_url.split("@/")[1].split("?")[0]
    direct = store_at(postgres_url)
    direct.ensure_schema()
    store = store_at(f"postgresql://rubix:rubix@127.0.0.1:{front.port}/{database}")
    lease = leased(store)
    first = store.publish(lease, Chunk(rows=batch_of(range(50)), mark=mark(50)))
    changed = store.publish(lease, Chunk(rows=batch_of(range(40, 60), token_status="4")))
    gone = b"".join(direct.known_rows(DATABASE)[0][i : i + 24] for i in (0, 24))
    store.publish(lease, Chunk(rows=batch_of([]), vanished=gone, mark=mark(58)))
    assert front.lost >= 5
    assert store.retries == front.lost
    assert (first.retries, changed.retries) == (1, 1)
    records = store.tables.records
    total = sa.select(sa.func.count()).select_from(records)
    assert direct.read(lambda conn: conn.execute(total).scalar_one()) == 60
    assert len(direct.known_rows(DATABASE)[0]) == 58 * 24
    assert direct.database_states(SOURCE)[0].record_count == 58
    store.release_lease(lease)
    store.close()
    direct.close()
    front.close()
