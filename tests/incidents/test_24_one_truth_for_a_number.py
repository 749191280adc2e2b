"""24: a number is the target's, wherever it is printed, also after a run that was stopped."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.chaos.door import Door
from tests.incidents.conftest import Site

NODES, TOKENS = 6, 400


@pytest.fixture
def many(door: Door, tmp_path: Path) -> Site:
    """Nodes enough to be stopped among them."""
    fleet = make_fleet(tmp_path / "fleet", FleetPlan(nodes=NODES, tokens_per_node=TOKENS))
    return Site(door, Path(fleet.directory), tmp_path)


@pytest.mark.parametrize("processes", [False, True])
def test_an_interrupted_runs_report_says_what_the_target_holds(many: Site, processes: bool) -> None:
    once = many.home / "fired"
    env = {
        "RUBIX_SYNC_FAULT": "content.resolve:11:stall",  # in the middle of a database
        "RUBIX_SYNC_FAULT_ONCE": str(once),
        "BULK_INSERT_SIZE": "200",
        "BATCH_SIZE": "100",
    }
    arguments = many.arguments("sync", "--report", str(many.reports))
    running = many.door.start(*arguments, env=env, processes=processes)
    while not once.exists():
        assert not running.ended_within(0.05)
    running.signal(signal.SIGTERM)
    ended = running.wait(60)
    assert ended.code == 143, ended.stderr
    held = many.one("SELECT count(*) FROM TokenRecords WHERE source_deleted_at IS NULL")
    report = many.latest_report()
    assert 0 < held < NODES * TOKENS
    assert report["records_inserted"] == report["total_records"] == held
    assert many.one("SELECT total_sql_inserts FROM SyncSessions") == held
    whole = many.sync()
    assert whole["records_inserted"] == NODES * TOKENS - held
    assert whole["total_records"] == NODES * TOKENS


def test_a_night_in_which_nothing_changed_says_what_there_is(many: Site) -> None:
    """25: the numbers are the target's, whether a database was read or not."""
    first, second = many.sync(), many.sync()
    assert second["tokens_read"] == 0
    for number in ("total_records", "total_records_with_content", "total_records_invalid"):
        assert second[number] == first[number] > (0 if "invalid" not in number else -1)
    assert second["total_records"] == NODES * TOKENS
