"""Faults at every point of a store's work: the end is exact, or the next run makes it so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.errors import TargetUnavailable
from rubix_token_sync.process_identity import Machine
from rubix_token_sync.targets.base import Chunk, Lease
from rubix_token_sync.targets.registry import TargetAddress
from rubix_token_sync.targets.sql.history_view import VIEW
from rubix_token_sync.targets.sql.target import SqlTarget

from . import scenario
from .records_made import DATABASE, OTHER_SESSION, SESSION, SOURCE, batch_of, mark

POINTS = (
    "store.open",
    "store.connect",
    "store.upgrade",
    "store.session.start",
    "store.lease.acquire",
    "store.session.recover",
    "store.states",
    "store.known",
    "store.stage",
    "store.publish",
    "store.mark",
    "store.heartbeat",
    "store.commit.before",
    "store.commit.after",
    "store.session.finish",
    "store.lease.release",
)
OWN_POINTS = {
    "sqlite": ("store.indexes.drop", "store.indexes.build"),
    "postgresql": ("store.indexes.drop", "store.indexes.build", "store.publish.rows"),
    "mssql": ("store.clean", "store.insert", "store.indexes.drop", "store.indexes.build"),
}


def is_exact(store: SqlTarget) -> None:
    """The scenario's end, to the last record, index and session."""
    records, sessions = store.tables.records, store.tables.sessions

    def look(conn: sa.Connection) -> tuple[int, int, set[str], set[str | None]]:
        live = len(store.known_rows(DATABASE)[0]) // 24
        total = conn.execute(sa.select(sa.func.count()).select_from(records)).scalar_one()
        statuses = set(conn.scalars(sa.select(sessions.c.status)))
        indexes = {i["name"] for i in sa.inspect(conn).get_indexes(records.name)}
        return live, total, statuses, indexes

    live, total, statuses, indexes = store.read(look)
    assert (live, total) == (scenario.KEPT, 65)
    assert "RUNNING" not in statuses
    assert "COMPLETED" in statuses
    assert {str(index.name) for index in records.indexes} <= indexes
    assert [s.record_count for s in store.database_states(SOURCE)] == [scenario.KEPT]
    changed = sa.select(sa.func.count()).where(records.c.token_status == "4")
    assert store.read(lambda conn: conn.execute(changed).scalar_one()) == 35


@pytest.mark.parametrize("nth", [1, pytest.param(2, marks=pytest.mark.long)])
def test_one_fault_anywhere_changes_nothing(
    target: TargetAddress,
    opened: Callable[..., SqlTarget],
    nth: int,
) -> None:
    for point in (*POINTS, *OWN_POINTS[target.kind]):
        store = opened()
        failpoints.arm(f"{point}:{nth}:error")
        scenario.run(store)
        failpoints.arm("")
        is_exact(store)
        empty(store)
        store.close()


def empty(store: SqlTarget) -> None:
    def work(conn: sa.Connection) -> None:
        conn.exec_driver_sql(f"DROP VIEW IF EXISTS {VIEW}")
        for table in (*store.tables.all(), sa.table("alembic_version")):
            conn.exec_driver_sql(f"DROP TABLE {table.name}")
        if store.kind == "mssql":
            for name in sa.inspect(conn).get_table_names():
                conn.exec_driver_sql(f"DROP TABLE {name}")

    store.transact(work)


def test_a_fault_that_stays_stops_the_run_with_its_cause(store: SqlTarget, lease: Lease) -> None:
    failpoints.arm("store.publish:1:error:forever")
    with pytest.raises(TargetUnavailable) as caught:
        store.publish(lease, Chunk(rows=batch_of(range(3)), mark=mark(3)))
    assert caught.value.exit_code == 3
    assert store.retries == store.options.attempts - 1
    failpoints.arm("")
    assert store.known_rows(DATABASE) == (b"", b"")
    store.publish(lease, Chunk(rows=batch_of(range(3)), mark=mark(3)))


def test_a_lost_acknowledgement_is_replayed_without_a_trace(store: SqlTarget, lease: Lease) -> None:
    """The commit happened, its answer was lost: the replay finds everything done."""
    rows = batch_of(range(10))
    for chunk in (
        Chunk(rows=rows, mark=mark(10)),
        Chunk(rows=batch_of([3], token_status="7"), mark=mark(10)),
        Chunk(rows=batch_of([]), vanished=rows.column(0)[0].as_py(), mark=mark(9)),
    ):
        failpoints.arm("store.commit.after:1:error")
        published = store.publish(lease, chunk)
        failpoints.arm("")
        assert published.retries == 1
        assert not published.rejected
    records = store.tables.records
    total = sa.select(sa.func.count()).select_from(records)
    assert store.read(lambda conn: conn.execute(total).scalar_one()) == 10
    assert len(store.known_rows(DATABASE)[0]) == 9 * 24


def test_a_source_changes_hands_whole_or_not_at_all(store: SqlTarget, lease: Lease) -> None:
    sources = store.tables.sources

    def owners() -> list[str]:
        return store.read(lambda conn: list(conn.scalars(sa.select(sources.c.machine))))

    before = owners()
    failpoints.arm("store.source.adopt:1:error:forever")
    with pytest.raises(TargetUnavailable):
        store.adopt_source(SOURCE, Machine("another", "other-host"))
    assert owners() == before
    failpoints.arm("store.source.adopt:1:error")
    store.adopt_source(SOURCE, Machine("another", "other-host"))
    assert owners() == ["another"]


@pytest.mark.parametrize(
    "fault",
    [
        "store.publish:2",
        pytest.param("store.mark:1", marks=pytest.mark.long),
        pytest.param("store.commit.before:5", marks=pytest.mark.long),
        "store.commit.after:5",
        pytest.param("store.commit.after:8", marks=pytest.mark.long),
        pytest.param("store.indexes.drop:1", marks=pytest.mark.long),
        "store.indexes.build:4",
        pytest.param("store.session.finish:1", marks=pytest.mark.long),
    ],
)
def test_killed_and_run_again(
    target: TargetAddress, opened: Callable[..., SqlTarget], fault: str
) -> None:
    if target.kind == "mssql" and "indexes" in fault:
        pytest.skip("no index is deferred there")

    def program(session: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(Path(scenario.__file__)), session],
            input=target.address.get_secret_value() + "\n",
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    killed = program(SESSION, RUBIX_SYNC_FAULT=f"{fault}:kill")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    store = opened()
    scenario.run(store, OTHER_SESSION)  # the lease of a dead process is taken over at once
    is_exact(store)
