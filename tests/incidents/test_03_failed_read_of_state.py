"""3: a failed read of the target's state stops the run; no error becomes 'nothing there'."""

from __future__ import annotations

import pytest

from tests.incidents.conftest import Points, Site


@pytest.mark.parametrize("point", ["store.states", "store.known"])
def test_state_that_cannot_be_read_stops_the_run(site: Site, points: Points, point: str) -> None:
    site.sync()
    before = site.rows("SELECT * FROM TokenRecords ORDER BY id")
    env = {**points.env, "RUBIX_SYNC_FAULT": f"{point}:1:error:forever", "RETRY_ATTEMPTS": "2"}
    stopped = site.run("sync", "--force", "--report", str(site.reports), env=env)
    stopped.expect(3)
    assert "Error:" in stopped.stderr
    assert not points.passed["store.publish"]
    assert point == "store.known" or not points.passed["source.read"]
    assert site.rows("SELECT * FROM TokenRecords ORDER BY id") == before
    assert site.sync()["tokens_read"] == 0  # and what was known is still known


def test_a_missing_table_is_no_empty_table(site: Site) -> None:
    site.sync()
    site.change("ALTER TABLE ProcessedDatabases RENAME TO Elsewhere")
    stopped = site.run("sync", "--report", str(site.reports)).expect(3)
    assert "ProcessedDatabases" in stopped.stderr
    site.change("ALTER TABLE Elsewhere RENAME TO ProcessedDatabases")
    assert site.sync()["tokens_read"] == 0
