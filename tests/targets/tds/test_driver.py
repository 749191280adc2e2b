"""What Microsoft's driver tells of an error, by every way a statement can go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest
from mssql_python import Error

from rubix_token_sync.errors import TargetUnavailable
from rubix_token_sync.records.schema import RECORDS
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.mssql import statements
from rubix_token_sync.targets.mssql.address import MssqlTarget, parse_connection_string
from rubix_token_sync.targets.mssql.bulk import BulkConnection
from rubix_token_sync.targets.mssql.driver import DriverConnection, DriverCursor
from rubix_token_sync.targets.mssql.error_numbers import RULES
from rubix_token_sync.targets.mssql.errors import read_driver_error, rule_for
from rubix_token_sync.targets.mssql.login import open_connection
from rubix_token_sync.targets.registry import open_target, parse_target

from . import runs
from .engine import SqliteEngine
from .faults import TEXTS, Action, Drop, Fault, Refuse, Stall, refusal
from .server import TdsServer


@pytest.fixture
def target(address: str) -> MssqlTarget:
    return parse_connection_string(address)


@pytest.fixture
def connection(target: MssqlTarget) -> Iterator[DriverConnection]:
    conn = open_connection(target, 10.0)
    yield conn
    conn.close()


def load(cursor: DriverCursor, over: BulkConnection, rows: pa.RecordBatch) -> None:
    if not over.is_open:
        over.open(cursor.login())
    over.call(lambda: over.load(RECORDS.staging, rows, rows.schema.names))


def execute(conn: DriverConnection) -> None:
    conn.cursor().execute("DELETE FROM SyncErrors")


def execute_with_parameters(conn: DriverConnection) -> None:
    conn.cursor().execute("DELETE FROM SyncErrors WHERE code = ?", ("x",))


def execute_many(conn: DriverConnection) -> None:
    conn.cursor().executemany("DELETE FROM SyncErrors WHERE code = ?", [("x",), ("y",)])


def bulk_copy(conn: DriverConnection) -> None:
    rows = statements.with_load(runs.rows(range(3)), 1)
    load(conn.cursor(), BulkConnection(10.0), rows)


def commit(conn: DriverConnection) -> None:
    conn.autocommit = False
    conn.cursor().execute("DELETE FROM SyncErrors")
    conn.commit()


WAYS = {
    "execute": (execute, "sql", "DELETE"),
    "parameters": (execute_with_parameters, "sql", "DELETE"),
    "many": (execute_many, "sql", "DELETE"),
    "bulk": (bulk_copy, "bulk", ""),
    "commit": (commit, "commit", ""),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_the_number_is_found_whichever_way_the_statement_went(
    way: str, server: TdsServer, target: MssqlTarget
) -> None:
    work, at, match = WAYS[way]
    for number in TEXTS:
        conn = open_connection(target, 10.0)
        server.faults[:] = [Fault(at, refusal(number), match)]
        with pytest.raises(Error) as raised:
            work(conn)
        found = read_driver_error(raised.value)
        if way == "commit":  # told by its words: the ones with the same words have one rule
            assert found.number is not None
            assert RULES[found.number] == RULES[number]
        else:
            assert found.number == number
        conn.close()


def test_a_number_that_nobody_knows_is_read_too(server: TdsServer, target: MssqlTarget) -> None:
    for work, at, match in list(WAYS.values())[:4]:
        conn = open_connection(target, 10.0)
        server.faults[:] = [Fault(at, Refuse(50_123, "Something new."), match)]
        with pytest.raises(Error) as raised:
            work(conn)
        found = read_driver_error(raised.value)
        assert found.number == 50_123
        rule = rule_for(found)
        assert rule.error.kind == "permanent"
        assert "50123" in rule.sentence
        assert "Something new." in rule.sentence
        conn.close()


@pytest.mark.parametrize("number", sorted(TEXTS))
def test_a_refused_login_is_told_by_its_words(
    number: int, server: TdsServer, target: MssqlTarget
) -> None:
    server.faults[:] = [Fault("login", refusal(number), times=2)]
    with pytest.raises(Error) as raised:
        open_connection(target, 10.0)
    found = read_driver_error(raised.value)
    assert rule_for(found).code == RULES[number].code


def always(at: str, action: Action, match: str = "") -> Callable[[TdsServer], None]:
    return lambda server: server.faults.append(Fault(at, action, match, times=99))


def nothing(_server: TdsServer) -> None:
    """The connection string alone is wrong."""


def plain(server: TdsServer) -> None:
    server.encryption = False


FIRST = "SCHEMA_NAME"  # the first statement of a connection

MISTAKES: dict[str, tuple[str, Callable[[TdsServer], None], str]] = {
    "wrong password": ("Password=wrong", nothing, "login_failed"),
    "firewall": ("", always("login", refusal(40615)), "firewall"),
    "wrong database": ("", always("login", refusal(4060)), "no_such_database"),
    "no rights": ("", always("sql", refusal(229), FIRST), "no_rights"),
    "certificate": ("TrustServerCertificate=False", nothing, "tls_refused"),
    "no encryption": ("", plain, "tls_refused"),
    "name": ("Server=no-such-server.invalid,1433", nothing, "name_not_resolved"),
    "port closed": ("Server=127.0.0.1,1", nothing, "port_closed"),
    "quota full": ("", always("sql", refusal(40544), FIRST), "quota_full"),
    "paused database": ("", always("login", refusal(40613)), "not_available_yet"),
    "time-out": ("", always("sql", Stall(), FIRST), "timed_out"),
    "login time-out": ("Connection Timeout=1", always("connect", Stall()), "login_timed_out"),
    "server hangs up": ("", always("connect", Drop()), "unreachable"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_the_likely_mistakes_say_what_happened_and_what_to_do(
    mistake: str,
    server: TdsServer,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    from rubix_token_sync.errors import TargetError

    monkeypatch.setattr("rubix_token_sync.targets.mssql.calls._GRACE_SECONDS", 0.5)
    change, prepare, code = MISTAKES[mistake]
    prepare(server)
    keyword, _, value = change.partition("=")
    text = address
    if change:
        parts = [p for p in split(address) if not p.lower().startswith(keyword.lower() + "=")]
        text = ";".join([*parts, f"{keyword}={value}"])
    store = open_target(
        parse_target(text), TargetOptions(attempts=2, call_seconds=1.0, wait_factor=0.001)
    )
    before = time.monotonic()
    with pytest.raises(TargetError) as told:
        store.schema_version()
    assert time.monotonic() - before < 15
    error = told.value
    assert error.code == code
    assert error.exit_code == 3
    assert error.message.startswith(f"{store.place}: ")
    assert error.remedy
    assert server.password not in f"{error} {error.context}"
    store.close()


def split(address: str) -> list[str]:
    """The parts of the test's connection string (its password holds a ';')."""
    import re

    return [part for part in re.findall(r'(?:[^;"]|"(?:[^"]|"")*")+', address) if part]


def test_a_payload_that_fills_packets_exactly_arrives(
    engine: SqliteEngine, server: TdsServer, target: MssqlTarget
) -> None:
    from dataclasses import replace

    small = replace(target, packet_bytes=4096)
    conn = open_connection(small, 10.0)
    cursor = conn.cursor()
    for length in range(4088 // 2 * 2 - 300, 4088 // 2 * 2 + 8):
        cursor.execute("SELECT ?", ("ü" * length,))
        assert cursor.fetchone()[0] == "ü" * length
    sizes = [n * 4088 + more for n in (1, 2, 3) for more in (-1, 0, 1)]
    batch = pa.RecordBatch.from_pylist(
        [runs.record(n, ipfs_data="x" * size) for n, size in enumerate(sizes)],
        schema=runs.rows(range(1)).schema,
    )
    for number in range(batch.num_rows):
        rows = statements.with_load(batch.slice(number, 1), 1)
        load(cursor, BulkConnection(10.0), rows)
    stored = engine.query("SELECT length(ipfs_data) FROM TokenRecordStaging ORDER BY 1")
    assert [row[0] for row in stored] == sorted(sizes)
    conn.close()


def test_bulk_loads_share_a_login_until_one_fails(
    engine: SqliteEngine, server: TdsServer, connection: DriverConnection
) -> None:
    over, before = BulkConnection(10.0), len(server.logins)

    def load_some(number: int) -> None:
        load(connection.cursor(), over, statements.with_load(runs.rows(range(3)), number))

    for number in range(5):
        load_some(number)
    assert len(server.logins) == before + 1
    server.faults.append(Fault("bulk", Refuse(50_123, "Something new.")))
    with pytest.raises(Error):
        load_some(5)
    load_some(5)
    assert len(server.logins) == before + 2
    over.close()
    assert engine.query("SELECT count(*) FROM TokenRecordStaging") == [(18,)]


def test_nulls_that_come_late_are_stored(
    engine: SqliteEngine, server: TdsServer, connection: DriverConnection
) -> None:
    some = [runs.record(n, did=None if n > 20 else "d", updated_at=None) for n in range(40)]
    batch = pa.RecordBatch.from_pylist(some, schema=runs.rows(range(1)).schema)
    cursor = connection.cursor()
    for types, values in statements.Parameters(batch, 5).blocks(100):
        cursor.setinputsizes(types)
        cursor.executemany(statements.Statements(RECORDS).stage_row, values)
    connection.commit()
    assert engine.query("SELECT count(*), count(did) FROM TokenRecordStaging") == [(40, 21)]


def test_blocks_have_no_more_rows_than_the_driver_has_room_for() -> None:
    """It gives each row's text the room of the longest."""
    long = [runs.record(n, ipfs_data="x" * 1_000_000 if n == 5 else "y" * 3_000) for n in range(90)]
    short = [runs.record(n) for n in range(90, 200)]
    batch = pa.RecordBatch.from_pylist(long + short, schema=runs.rows(range(1)).schema)
    blocks = [values for _types, values in statements.Parameters(batch, 5).blocks(1_000)]
    assert [len(values) for values in blocks] == [110] + [16] * 5 + [10]
    token_ids = {value for values in blocks for row in values for value in row}
    assert token_ids >= set(batch.column("token_id").to_pylist())


def test_a_hung_call_leaves_the_interpreter_free_and_its_connection_unused(
    server: TdsServer, target: MssqlTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rubix_token_sync.targets.mssql.calls._GRACE_SECONDS", 0.3)
    conn = open_connection(target, 1.0)
    server.faults.append(Fault("sql", Stall(), "DELETE"))
    ticks = 0
    stop = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.wait(0.01):
            ticks += 1

    ticking = threading.Thread(target=tick)
    ticking.start()
    before = time.monotonic()
    with pytest.raises(Error) as hung:
        execute(conn)
    took = time.monotonic() - before
    stop.set()
    ticking.join()
    assert took < 5
    assert ticks > 20
    assert rule_for(read_driver_error(hung.value)).code == "timed_out"
    with pytest.raises(Error, match="hung"):
        conn.commit()
    conn.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("", "TLS, any certificate"),
        ("Encrypt=no;", "no TLS"),
    ],
)
def test_the_encryption_is_what_the_connection_string_demands(
    change: str, said: str, server: TdsServer, address: str
) -> None:
    """The driver logs in with it or not at all: see "no encryption" above."""
    if change:
        server.encryption = False
    store = open_target(parse_target(f"{change}{address}"), TargetOptions(call_seconds=10.0))
    assert said in store.describe_connection()
    store.close()


def test_the_command_timeout_of_a_connection_string_is_kept(
    server: TdsServer, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was parsed and ignored (incident 30)."""
    monkeypatch.setattr("rubix_token_sync.targets.mssql.calls._GRACE_SECONDS", 0.5)
    options = TargetOptions(attempts=1, call_seconds=60.0)
    store = open_target(parse_target(f"{address};Command Timeout=1"), options)
    assert store.schema_version() is not None
    server.faults.append(Fault("sql", Stall(), "ProcessedDatabases"))
    before = time.monotonic()
    with pytest.raises(TargetUnavailable) as caught:
        store.database_states(None)
    assert caught.value.code == "timed_out"
    assert time.monotonic() - before < 20
    store.close()
