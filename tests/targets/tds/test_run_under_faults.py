"""Every error number at every point of a run: it ends as the table says, or the next run does."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable

import pytest

from rubix_token_sync.errors import (
    CommitAmbiguous,
    LeaseHeld,
    LeaseLost,
    RecordRefused,
    SchemaError,
    TargetError,
    TargetOverloaded,
    TargetRefused,
    TargetUnavailable,
    TransactionTooLarge,
)
from rubix_token_sync.records.schema import RECORD_SCHEMA
from rubix_token_sync.targets.base import Chunk, Lease
from rubix_token_sync.targets.mssql.error_numbers import RULES
from rubix_token_sync.targets.sql.target import SqlTarget

from . import runs
from .engine import SqliteEngine
from .faults import TEXTS, Count, Drop, Fault, HalfPacket, Refuse, RefuseInside, Stall, refusal
from .server import TdsServer

POINTS = {
    "login": ("login", ""),
    "stage by parameters": ("sql", r"^INSERT INTO TokenRecordStaging"),
    "ask for the default": ("sql", r"FROM sys\.columns"),
    "hold the lease": ("sql", r"^SET XACT_ABORT ON; SET NOCOUNT ON; BEGIN TRANSACTION"),
    "insert in bulk": ("bulk", r"\[?TokenRecords\b"),
    "stage in bulk": ("bulk", "TokenRecordStaging"),
    "publish": ("sql", r"^SET NOCOUNT ON; DECLARE @inserted"),
    "mark": ("sql", r"\[ProcessedDatabases\]"),
    "commit": ("commit", ""),
    "lease": ("sql", r"UPDATE \[SyncLeases\]"),
}

STAGED_INSTEAD = ("ask for the default", "hold the lease", "insert in bulk")

# From Microsoft's lists (see `error_numbers`): what each number must be taken for.
TRANSIENT = {
    926, 4060, 4221, 615, 40143, 40197, 40501, 40540, 40613, 42108, 42109, 49918, 49919, 49920,
    49983, 10928, 10929, 10936, 233, 64, 20, 121, 10053, 10054, 10060, 11001, 1204, 1205, 1222,
    3961,
}  # fmt: skip
THROTTLED = {40501, 49918, 49919, 49920, 49983, 10928, 10929, 10936}
SHRINK = {40549, 40550, 40551, 40552, 40553}
REFUSED = {18456, 40615, 40914, 40544, 229, 262, 208, 3701}
DATA = {2628, 8152, 2601, 2627, 515, 8115, 242, 1946}
ONE_OF_EACH = {40613, 10053, 1205, 40501, 40552, 229, 18456, 2628}
"""Of each kind, and of each way in which it is met."""


def session() -> str:
    return str(uuid.uuid4())


def test_the_lists_are_the_ones_that_the_table_has() -> None:
    every = TRANSIENT | SHRINK | REFUSED | DATA
    assert every == set(TEXTS)
    assert every <= set(RULES)
    for number in every:
        error = RULES[number].error
        assert (error.kind == "transient") == (number in TRANSIENT | SHRINK)
        assert issubclass(error, TargetOverloaded) == (number in THROTTLED)
        assert issubclass(error, TransactionTooLarge) == (number in SHRINK)
        assert issubclass(error, RecordRefused) == (number in DATA)
        assert issubclass(error, TargetRefused | SchemaError) == (number in REFUSED)


def arm(server: TdsServer, point: str, action: object, nth: int = 1, times: int = 1) -> Fault:
    at, match = POINTS[point]
    fault = Fault(at, action, match, nth=nth, times=times)  # type: ignore[arg-type]
    server.faults[:] = [fault]
    return fault


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=() if number in ONE_OF_EACH else pytest.mark.long)
        for number in sorted(TEXTS)
    ],
)
def test_a_number_at_points_of_a_run(
    number: int, engine: SqliteEngine, server: TdsServer, opened: Callable[..., SqlTarget]
) -> None:
    """Those that stand for all others at every point, each other number at three of them."""
    points = list(POINTS) if number in ONE_OF_EACH else list(POINTS)[number % 3 :: 3]
    for point in points:
        store = opened(attempts=4)
        fault = arm(server, point, refusal(number))
        if number in REFUSED and point == "stage in bulk":
            runs.run(store, session())  # bulk copy is not for this user: by parameters, then
            assert any("bulk copy" in warning for warning in store.backend.warnings)
        elif number in REFUSED and point in STAGED_INSTEAD:
            runs.run(store, session())
        elif number in REFUSED:
            with pytest.raises(TargetError) as refused:
                runs.run(store, session())
            assert refused.value.exit_code == 3, point
            assert refused.value.context["number"] == number or point == "login", point
            assert refused.value.code == RULES[number].code, point
            assert refused.value.remedy, point
            time_passes(engine)
            runs.run(opened(), session())  # the next run
        elif number in DATA and point in ("login", "lease", "mark", "commit"):
            # No statement of these can be refused for a record's sake: once is
            # as much as it takes to fail or to be gone on bisecting.
            try:
                runs.run(store, session())
            except (TargetError, LeaseHeld) as error:  # a lease's key is another run's
                assert error.kind == "permanent", point  # noqa: PT017
                time_passes(engine)
                runs.run(opened(), session())
        else:
            runs.run(store, session())
        assert fault.fired, point
        server.faults.clear()
        runs.is_exact(engine)
        empty(engine)


def empty(engine: SqliteEngine) -> None:
    for table in engine.tables.all():
        engine.change(f"DELETE FROM {table.name}")


def time_passes(engine: SqliteEngine) -> None:
    """The lease of the run that ended grows old (its process, this one, lives on)."""
    engine.change(
        "UPDATE SyncLeases SET heartbeat_at = '2026-01-01 00:00:00.000000',"
        " expires_at = '2026-01-01 00:01:00.000000'"
    )


@pytest.mark.parametrize("point", [point for point in POINTS if point != "login"])
@pytest.mark.parametrize(
    "action",
    [
        pytest.param(Drop(), id="before"),
        pytest.param(Drop(after=True), id="after"),
        pytest.param(HalfPacket(), id="half", marks=pytest.mark.long),
    ],
)
def test_a_connection_that_ends_at_every_point(
    point: str,
    action: object,
    engine: SqliteEngine,
    server: TdsServer,
    opened: Callable[..., SqlTarget],
) -> None:
    for nth in (1, 2):
        fault = arm(server, point, action, nth)
        runs.run(opened(), session())
        assert fault.fired or nth == 2
        runs.is_exact(engine)
        empty(engine)


def test_acknowledgements_lost_at_every_commit(
    engine: SqliteEngine, server: TdsServer, opened: Callable[..., SqlTarget]
) -> None:
    for at, match, least in ("commit", "", 8), ("sql", r"^SET NOCOUNT ON; DELETE TOP", 4):
        lost = 0
        while True:
            fault = Fault(at, Drop(after=True), match, nth=lost + 1)
            server.faults[:] = [fault]
            total = runs.run(opened(), session())
            assert total.inserted == runs.BULK + runs.MORE
            runs.is_exact(engine)
            empty(engine)
            if not fault.fired:
                break
            lost += 1
        assert lost >= least, at


def test_commits_whose_acknowledgements_never_come_end_the_run_and_the_next_is_exact(
    engine: SqliteEngine, server: TdsServer, opened: Callable[..., SqlTarget]
) -> None:
    arm(server, "commit", Drop(after=True), nth=8, times=100)
    with pytest.raises((CommitAmbiguous, TargetUnavailable)) as ended:
        runs.run(opened(), session())
    assert ended.value.exit_code == 3
    server.faults.clear()
    time_passes(engine)
    runs.run(opened(), session())
    runs.is_exact(engine)


@pytest.mark.parametrize("point", list(POINTS))
def test_silence_is_bounded_by_our_own_clock(
    point: str,
    engine: SqliteEngine,
    server: TdsServer,
    opened: Callable[..., SqlTarget],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rubix_token_sync.targets.mssql.calls._GRACE_SECONDS", 0.5)
    fault = arm(server, point, Stall())
    runs.run(opened(call_seconds=1.0), session())
    assert fault.fired
    runs.is_exact(engine)


def test_what_fails_behind_the_first_result_is_seen(
    engine: SqliteEngine, server: TdsServer, opened: Callable[..., SqlTarget]
) -> None:
    fault = arm(server, "lease", RefuseInside(1205, TEXTS[1205]))
    runs.run(opened(), session())
    assert fault.fired
    runs.is_exact(engine)


def test_new_records_go_straight_into_the_table(
    engine: SqliteEngine, server: TdsServer, opened: Callable[..., SqlTarget]
) -> None:
    total = runs.run(opened(), session())
    runs.is_exact(engine)
    assert total.inserted == runs.BULK + runs.MORE
    loads = [sql.split()[2].strip("[]") for sql in server.log if sql.startswith("INSERT BULK")]
    tables = [name.rpartition(".")[2].strip("[]") for name in loads]
    assert tables == ["TokenRecordStaging", "TokenRecords", "TokenRecordStaging"]  # a try first
    (times,) = engine.query("SELECT count(DISTINCT synced_at) FROM TokenRecords")
    assert times[0] > 1  # the server's, not the client's
    runs.run(opened(), session())  # they are there already: staged, nothing doubled
    runs.is_exact(engine)


def test_columns_without_a_value_do_not_travel(
    server: TdsServer, opened: Callable[..., SqlTarget]
) -> None:
    runs.run(opened(), session())
    (told,) = (sql for sql in server.log if re.match(r"INSERT BULK \S*TokenRecords\b", sql))
    columns = set(re.findall(r"\w+", told)) & set(RECORD_SCHEMA.names)
    nothing = {name for name, value in runs.record(0).items() if value is None}
    assert columns == set(RECORD_SCHEMA.names) - nothing


def test_no_record_is_left_without_its_time(
    engine: SqliteEngine, server: TdsServer, opened: Callable[..., SqlTarget]
) -> None:
    """Where somebody took the default of ``synced_at`` away, new records are staged."""
    engine.has_default = False
    total = runs.run(opened(), session())
    assert total.inserted == runs.BULK + runs.MORE
    runs.is_exact(engine)
    assert not any(re.match(r"INSERT BULK \S*TokenRecords\b", sql) for sql in server.log)
    assert any(re.match(r"INSERT BULK \S*TokenRecordStaging\b", sql) for sql in server.log)


def test_new_records_of_a_run_without_its_lease_are_not_inserted(
    engine: SqliteEngine, server: TdsServer, opened: Callable[..., SqlTarget]
) -> None:
    store, mine = opened(), Lease(runs.SOURCE, session())
    store.start_session(mine.session_id, runs.SOURCE, "host", 1, "sync")
    store.acquire_lease(mine, "elsewhere|-|1|1")
    new = Chunk(rows=runs.rows(range(100)), bulk=True, new=True)
    engine.change(f"UPDATE SyncLeases SET session_id = '{session()}'")
    with pytest.raises(LeaseLost):
        store.publish(mine, new)
    assert any("BEGIN TRANSACTION" in sql for sql in server.log)
    assert engine.query("SELECT count(*) FROM TokenRecords") == [(0,)]
    assert engine.query("SELECT count(*) FROM TokenRecordStaging") == [(0,)]


def test_the_drivers_count_of_a_bulk_load_is_not_believed(
    engine: SqliteEngine, server: TdsServer, opened: Callable[..., SqlTarget]
) -> None:
    fault = arm(server, "stage in bulk", Count(7), nth=2)
    total = runs.run(opened(), session())
    assert fault.fired
    assert total.inserted == runs.BULK + runs.MORE
    runs.is_exact(engine)


def test_throttling_slows_the_run_down_and_lets_it_recover(
    engine: SqliteEngine, server: TdsServer, opened: Callable[..., SqlTarget]
) -> None:
    store = opened()
    full = store.backend.pace.rows
    arm(server, "publish", refusal(40501), times=2)
    runs.run(store, session())
    runs.is_exact(engine)
    assert store.backend.pace.rows == full // 4
    for _ in range(100):
        store.backend.pace.went_well()
    assert store.backend.pace.rows == full


def test_a_server_without_bulk_copy_is_loaded_by_parameters(
    engine: SqliteEngine, server: TdsServer, opened: Callable[..., SqlTarget]
) -> None:
    engine.bulk = False
    store = opened()
    total = runs.run(store, session())
    runs.is_exact(engine)
    assert total.bulk_loads == 0
    assert any("bulk copy" in warning for warning in store.backend.warnings)


def test_a_kept_bulk_connection_that_is_refused_is_replaced(
    engine: SqliteEngine, server: TdsServer, opened: Callable[..., SqlTarget]
) -> None:
    # The first bulk load is the probe's, on a connection that is kept.
    refused = Fault("bulk", Refuse(50_123, "The protocol stream is incorrect."), nth=2)
    server.faults.append(refused)
    store = opened()
    total = runs.run(store, session())
    assert refused.fired == 1
    runs.is_exact(engine)
    assert total.bulk_loads > 0


def test_never_more_connections_than_the_pool_may_have(
    engine: SqliteEngine, server: TdsServer, opened: Callable[..., SqlTarget]
) -> None:
    for size in (1, 2, 3):
        until = time.monotonic() + 10
        while server.open and time.monotonic() < until:
            os.sched_yield()  # until the server has seen the others end
        server.most_open = 0
        store = opened(pool_size=size)
        runs.run(store, session())
        store.close()
        runs.is_exact(engine)
        empty(engine)
        assert server.most_open <= size


def test_bad_records_are_found_by_halving(
    engine: SqliteEngine, store: SqlTarget, server: TdsServer
) -> None:
    lease = Lease(runs.SOURCE, session())
    store.start_session(lease.session_id, runs.SOURCE, "host", 1, "sync")
    store.acquire_lease(lease, "elsewhere|-|1|1")
    good = runs.rows(range(600)).to_pylist()
    good[5]["token_status"] = "x" * 51
    good[577]["token_status"] = "y" * 51
    import pyarrow as pa

    batch = pa.RecordBatch.from_pylist(good, schema=runs.rows(range(1)).schema)
    published = store.publish(lease, Chunk(rows=batch, bulk=True, mark=runs.mark(600)))
    assert published.inserted == 598
    assert sorted(r.token_id or "" for r in published.rejected) == [
        good[5]["token_id"],
        good[577]["token_id"],
    ]
    assert all("longer than its column" in r.reason for r in published.rejected)
    assert engine.query("SELECT record_count FROM ProcessedDatabases") == [(598,)]
    assert engine.query("SELECT count(*) FROM TokenRecordStaging") == [(0,)]


def test_an_unavailable_server_ends_the_run_after_its_attempts(
    server: TdsServer, opened: Callable[..., SqlTarget]
) -> None:
    fault = arm(server, "login", refusal(40613), times=1000)
    with pytest.raises(TargetUnavailable) as ended:
        runs.run(opened(attempts=3), session())
    assert fault.fired == 3
    assert ended.value.code == "not_available_yet"
    assert "paused" in ended.value.message
