"""Two runs on one target: one source, one run; different sources side by side."""

from __future__ import annotations

import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from rubix_token_sync.process_identity import own_holder
from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.chaos.battlefield import BROKEN, SETTINGS, Battlefield
from tests.chaos.door import Door, Running
from tests.chaos.server_states import ServerStates
from tests.chaos.target_state import content_of, error_repeats, leftovers, rows_of

_WRITERS = 8


@pytest.fixture(params=["sqlite", "postgresql"])
def url(
    request: pytest.FixtureRequest, battlefield: Battlefield, states: ServerStates, tmp_path: Path
) -> str:
    """A target that holds the first state."""
    if request.param == "sqlite":
        return battlefield.fresh_sqlite(tmp_path / "target.db", battlefield.change)
    return states.fresh(battlefield.change)


def stop_inside(door: Door, field: Battlefield, url: str, fired: Path, point: str) -> Running:
    """Start a run and wait until it stands still at a point."""
    env = {
        **SETTINGS,
        "RUBIX_SYNC_FAULT": f"{point}:1:stall",
        "RUBIX_SYNC_FAULT_ONCE": str(fired),
    }
    running = door.start(*field.arguments(url), env=env)
    while not fired.exists():
        assert not running.ended_within(0.01), running.stderr
    return running


def test_the_second_run_says_who_works_since_when(
    door: Door, battlefield: Battlefield, url: str, tmp_path: Path
) -> None:
    # It stalls while it reads, so that its heartbeat goes on.
    first = stop_inside(door, battlefield, url, tmp_path / "fired", "worker.job")
    before = content_of(url)
    second = door.run(*battlefield.arguments(url), env=SETTINGS).expect(4)
    session = rows_of(url, "SELECT session_id FROM SyncLeases")[0][0]
    assert str(session) in second.stderr
    assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", second.stderr)
    assert second.stdout == ""
    assert content_of(url) == before
    assert len(rows_of(url, "SELECT 1 FROM SyncSessions WHERE status = 'RUNNING'")) == 1
    first.signal(signal.SIGKILL)
    first.wait()
    # Its process is gone: no waiting on its own machine.
    next_run = door.run(*battlefield.arguments(url), env=SETTINGS).expect(BROKEN)
    assert next_run.seconds < 30
    assert content_of(url).difference(battlefield.change.content) == ""
    assert leftovers(url) == []


def _forge_lease(url: str, holder: str, age_seconds: int) -> None:
    """A lease of another run, last heard of so many seconds ago (server time)."""
    session = "00000000-0000-4000-8000-000000000001"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db, db:
            moment = f"strftime('%Y-%m-%d %H:%M:%f000', 'now', '{-age_seconds} seconds')"
            db.execute(
                "INSERT INTO SyncLeases"
                " (source_ip, session_id, holder, acquired_at, heartbeat_at) VALUES"
                f" ('vm1', '{session}', '{holder}', {moment}, {moment})"
            )
            db.execute(
                "INSERT INTO SyncSessions (session_id, source_ip, status, start_time, heartbeat_at)"
                f" VALUES ('{session}', 'vm1', 'RUNNING', {moment}, {moment})"
            )
        return
    with psycopg.connect(url) as conn:
        moment = f"timezone('utc', now()) - interval '{age_seconds} seconds'"
        conn.execute(
            "INSERT INTO syncleases (source_ip, session_id, holder, acquired_at, heartbeat_at)"
            f" VALUES ('vm1', '{session}', '{holder}', {moment},"
            f" {moment})".encode()
        )
        conn.execute(
            "INSERT INTO syncsessions (session_id, source_ip, status, start_time, heartbeat_at)"
            f" VALUES ('{session}', 'vm1', 'RUNNING', {moment}, {moment})".encode()
        )


_OTHER_MACHINE = "elsewhere|0f0f0f0f-0000-0000-0000-000000000000:4026531836|4242|123456"


@pytest.mark.parametrize(
    ("holder", "age", "code"),
    [
        (_OTHER_MACHINE, 0, 4),
        (_OTHER_MACHINE, 50, 4),
        (_OTHER_MACHINE, 61, BROKEN),
        (_OTHER_MACHINE, 86_400, BROKEN),
        (_OTHER_MACHINE, -30, 4),  # its server's clock was put back a little
        (_OTHER_MACHINE, -3_600, BROKEN),  # … or an hour: nobody has been heard of since
        ("gone", 0, BROKEN),
        ("alive", 0, 4),
    ],
)
def test_a_dead_holder_is_told_from_a_live_one(
    door: Door, battlefield: Battlefield, url: str, holder: str, age: int, code: int
) -> None:
    own = own_holder()
    host, boot, _, _ = own.split("|")
    named = {"gone": f"{host}|{boot}|{2**22 - 7}|1", "alive": own}.get(holder, holder)
    _forge_lease(url, named, age)
    run = door.run(*battlefield.arguments(url), env=SETTINGS).expect(code)
    if code == 4:
        assert named.split("|")[0] in run.stderr
        return
    assert content_of(url).difference(battlefield.change.content) == ""
    assert leftovers(url) == []
    assert rows_of(url, "SELECT count(*) FROM SyncSessions WHERE status = 'INTERRUPTED'") == [(1,)]


def test_a_run_that_was_taken_for_dead_writes_nothing_more(
    door: Door, battlefield: Battlefield, url: str, tmp_path: Path
) -> None:
    """It stood still for so long that another took its lease; then it goes on."""
    first = stop_inside(door, battlefield, url, tmp_path / "fired", "content.resolve")
    first.signal(signal.SIGSTOP)
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db, db:
            db.execute(
                "UPDATE SyncLeases SET heartbeat_at = '2001-01-01 00:00:00.000000',"
                " expires_at = '2001-01-01 00:01:00.000000'"
            )
    else:
        with psycopg.connect(url) as conn:
            conn.execute(
                "UPDATE syncleases SET heartbeat_at = '2001-01-01', expires_at = '2001-01-01 00:01'"
            )
    door.run(*battlefield.arguments(url), env=SETTINGS).expect(BROKEN)
    first.signal(signal.SIGCONT)
    first.signal(signal.SIGTERM)
    ended = first.wait(90)
    assert ended.code in (1, 143), ended
    assert content_of(url).difference(battlefield.change.content) == ""
    assert leftovers(url) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_eight_writers_with_overlapping_tokens(
    door: Door, states: ServerStates, battlefield: Battlefield, tmp_path: Path, kind: str
) -> None:
    """Eight machines with the same paths and many of the same tokens, all at once."""
    fleet = make_fleet(tmp_path / "fleet", FleetPlan(nodes=3, tokens_per_node=150, shared=0.5))
    url = (
        f"sqlite:///{tmp_path / 'target.db'}"
        if kind == "sqlite"
        else states.fresh(battlefield.first)
    )
    env = {**SETTINGS, "RETRY_ATTEMPTS": "8"}

    def arguments(writer: int) -> tuple[str, ...]:
        return (
            "sync", str(fleet.directory), "--target", url, "--source-ip", f"10.0.0.{writer}",
            "--report", str(tmp_path / f"reports{writer}"), "--quiet",
        )  # fmt: skip

    runs = [door.start(*arguments(writer), env=env) for writer in range(_WRITERS)]
    for run in runs:
        run.wait(120).expect(0)
    assert leftovers(url) == []
    assert error_repeats(url) == []
    each = rows_of(url, "SELECT source_ip, count(*) FROM TokenRecords GROUP BY source_ip")
    assert sorted(each) == [(f"10.0.0.{writer}", fleet.tokens) for writer in range(_WRITERS)]
    # All of them hold the same, and it is what the nodes hold.
    told = (
        "SELECT {} FROM TokenRecords WHERE source_ip = '10.0.0.{}'"
        " ORDER BY db_path, token_id, token_status"
    )
    columns = "db_path, token_id, did, token_status, token_value, ipfs_data, ipfs_error"
    first = rows_of(url, told.format(columns, 0))
    for writer in range(1, _WRITERS):
        assert rows_of(url, told.format(columns, writer)) == first
    for writer in (0, _WRITERS - 1):
        door.run(
            "verify", str(fleet.directory), "--target", url, "--source-ip", f"10.0.0.{writer}"
        ).expect(0)
    again = [door.start(*arguments(writer), "--json", env=env) for writer in range(_WRITERS)]
    for run in again:
        assert run.wait(120).expect(0).document["tokens_read"] == 0


@pytest.fixture(scope="module")
def large_node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough for a run of many heartbeats; only to be read."""
    place = tmp_path_factory.mktemp("large") / "fleet"
    return make_fleet(place, FleetPlan(nodes=1, tokens_per_node=4_000)).directory


@pytest.mark.parametrize("action", ["error", "kill"])
def test_heartbeats_fail(
    door: Door, large_node: Path, url: str, tmp_path: Path, action: str
) -> None:
    """A heartbeat that fails is tried again; one during which the run dies is no loss."""
    arguments = [str(large_node), "--target", url, "--source-ip", "long"]
    report = ["--report", str(tmp_path / "reports")]
    fired = tmp_path / "fired"
    env = {
        **SETTINGS,
        "RUBIX_SYNC_HEARTBEAT_SECONDS": "0.1",
        "RUBIX_SYNC_FAULT": f"store.heartbeat:1:{action}",
        "RUBIX_SYNC_FAULT_ONCE": str(fired),
    }
    run = door.run("sync", *arguments, *report, env=env)
    assert fired.exists()
    assert run.code == (-signal.SIGKILL if action == "kill" else 0)
    door.run("sync", *arguments, *report, env=SETTINGS).expect(0)
    door.run("verify", *arguments, env=SETTINGS).expect(0)
    assert leftovers(url) == []


def test_a_copied_target_is_free(door: Door, battlefield: Battlefield, tmp_path: Path) -> None:
    """A target that was copied while a run held it does not wait for that run for ever."""
    url = battlefield.fresh_sqlite(tmp_path / "target.db", battlefield.change)
    first = stop_inside(door, battlefield, url, tmp_path / "fired", "worker.job")
    with closing(sqlite3.connect(tmp_path / "target.db")) as db:
        db.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
    first.signal(signal.SIGKILL)
    first.wait()
    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    door.run(*battlefield.arguments(copy), env=SETTINGS).expect(BROKEN)
    assert content_of(copy).difference(battlefield.change.content) == ""
