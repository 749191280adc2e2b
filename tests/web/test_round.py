"""The round under way: which machines work, and who has ended since, from the target alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from rubix_token_sync.monitor.rounds import round_of
from rubix_token_sync.monitor.runs import RunRow
from rubix_token_sync.targets.base import Lease, SessionTotals, TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.web.conftest import Opener, Site

NOW = datetime(2026, 12, 1, 12)


def run(
    source: str, status: str, began: float, ended: float | None = None, *, stuck: bool = False
) -> RunRow:
    """``began`` and ``ended`` are minutes before now."""
    zeros = {f.name: 0 for f in dataclasses.fields(RunRow) if f.name.startswith("total_")}
    empty = {f.name: None for f in dataclasses.fields(RunRow)}
    given = {
        "session_id": f"{source} {began}",
        "source_ip": source,
        "status": status,
        "stuck": stuck,
        "start_time": NOW - timedelta(minutes=began),
        "end_time": None if ended is None else NOW - timedelta(minutes=ended),
    }
    return RunRow(**{**empty, **zeros, **given})  # type: ignore[arg-type]


def test_what_overlaps_belongs_together() -> None:
    runs = [
        run("a", "RUNNING", 10),
        run("b", "COMPLETED", 20, 5),  # while a ran
        run("c", "FAILED", 40, 15),  # while b did
        run("d", "COMPLETED", 90, 41),  # before any of them
        run("b", "COMPLETED", 35, 25),  # an earlier one of b
    ]
    found = round_of(runs, NOW)
    assert found is not None
    assert [(r.source_ip, r.status) for r in found.runs] == [
        ("a", "RUNNING"), ("c", "FAILED"), ("b", "COMPLETED"),
    ]  # fmt: skip
    assert found.began_at == NOW - timedelta(minutes=40)
    assert dict(found.states) == {"RUNNING": 1, "FAILED": 1, "COMPLETED": 1}


def test_nobody_works() -> None:
    assert round_of([run("a", "COMPLETED", 10, 1)], NOW) is None
    assert round_of([], NOW) is None


def test_a_run_that_died_long_ago_takes_nothing_in() -> None:
    runs = [
        run("dead", "RUNNING", 50_000, stuck=True),
        run("a", "RUNNING", 10),
        run("b", "COMPLETED", 900, 800),
    ]
    found = round_of(runs, NOW)
    assert found is not None
    assert [r.source_ip for r in found.runs] == ["dead", "a"], "who needs a look comes first"
    assert found.began_at == NOW - timedelta(minutes=10)
    assert found.states["STUCK"] == 1
    alone = round_of(runs[:1], NOW)
    assert alone is not None
    assert (len(alone.runs), alone.began_at) == (1, NOW)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlTarget]:
    made = open_target(parse_target(f"sqlite:///{tmp_path}/t.db"), TargetOptions())
    made.ensure_schema()
    yield made
    made.close()


@pytest.fixture
def fleet(store: SqlTarget, tmp_path: Path, opened: Opener) -> Site:
    """Two machines work, one has completed since they began, one is silent, one rests."""

    def begin(source: str, number: int) -> Lease:
        lease = Lease(source, f"00000000-0000-4000-8000-{number:012}")
        store.acquire_lease(lease, f"host-{source}|-|1|-")
        store.start_session(lease.session_id, source, f"host-{source}", 1, "sync")
        return lease

    rests = begin("vm0", 1)
    store.finish_session(rests, "COMPLETED", SessionTotals(), None)
    silent = begin("vm1", 2)
    leases = {name: begin(name, number) for number, name in enumerate(("vm2", "vm3", "vm4"), 3)}
    for name, share in (("vm2", 25.0), ("vm3", 50.0)):
        store.heartbeat(
            leases[name],
            SessionTotals(4, 1, total_records_processed=1000, progress_percent=share),
        )
    store.finish_session(
        leases["vm4"],
        "COMPLETED",
        SessionTotals(2, 2, total_records_processed=345, progress_percent=100.0),
        None,
    )
    sessions = store.tables.sessions
    now = store.server_time()

    def age(conn: sa.Connection) -> None:
        for lease, hours in ((rests, 30), (silent, 3)):
            then = now - timedelta(hours=hours)
            conn.execute(
                sa.update(sessions)
                .where(sessions.c.session_id == lease.session_id)
                .values(
                    start_time=then,
                    heartbeat_at=then,
                    end_time=then if lease is rests else None,
                )
            )

    store.transact(age)
    return opened(target=f"sqlite:///{tmp_path}/t.db")


def test_the_page_shows_who_works_and_how_far(fleet: Site) -> None:
    found = fleet.json("/fleet.json")["round"]
    assert [(r["source_ip"], r["status"], r["stuck"]) for r in found["runs"]] == [
        ("vm1", "RUNNING", True),
        ("vm2", "RUNNING", False),
        ("vm3", "RUNNING", False),
        ("vm4", "COMPLETED", False),
    ]
    page = fleet.page("/fleet")
    for said in ("host-vm1", "host-vm2", "25 %", "50 %", "STUCK", "1/4", "2/2", "1,000"):
        assert said in page.words, said
    assert "4 machines since" in page.words
    assert "1 silent, 2 working, 1 completed; 2,345 records so far" in page.words
    assert "No run under way or ended since then:" in page.words
    assert "vm0" in page.words


def test_when_all_have_ended_there_is_no_round(fleet: Site, store: SqlTarget) -> None:
    sessions, now = store.tables.sessions, store.server_time()
    store.transact(
        lambda conn: conn.execute(
            sa.update(sessions)
            .where(sessions.c.status == "RUNNING")
            .values(status="COMPLETED", end_time=now)
        )
    )
    answer = fleet.client.get("/fleet.json").json()
    assert answer["round"] is None
    assert "Under way" not in fleet.page("/fleet").words


def test_every_run_under_way_is_in_the_pulse(fleet: Site, store: SqlTarget) -> None:
    """However many began after it: a page of a large fleet stays fresh."""
    for number in range(100, 135):
        lease = Lease(f"later{number}", f"00000000-0000-4000-8000-{number:012}")
        store.acquire_lease(lease, "h|-|1|-")
        store.start_session(lease.session_id, lease.source, "h", 1, "sync")
        store.finish_session(lease, "COMPLETED", SessionTotals(), None)
    told = fleet.client.get("/live.json").json()
    assert "00000000-0000-4000-8000-000000000003" in {run[0] for run in told["runs"]}
