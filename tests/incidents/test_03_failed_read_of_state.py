"""3: a failed read of the target's state stops the run; no error becomes 'nothing there'."""

from __future__ import annotations

import pytest

from tests.incidents.conftest import Points, Site
from tests.incidents.nodes import execute


@pytest.mark.parametrize(
    ("point", "options"),
    [("store.states", ("--force",)), ("store.records", ("--force",)), ("store.known", ())],
)
def test_state_that_cannot_be_read_stops_the_run(
    site: Site, points: Points, point: str, options: tuple[str, ...]
) -> None:
    site.sync()
    before = site.rows("SELECT * FROM TokenRecords ORDER BY id")
    if not options:  # something must be read for what is known to be asked
        execute(site.fleet / "node032/Rubix/rubix.db", "UPDATE TokensTable SET token_status = 9")
    env = {**points.env, "RUBIX_SYNC_FAULT": f"{point}:1:error:forever", "RETRY_ATTEMPTS": "2"}
    stopped = site.run("sync", *options, "--report", str(site.reports), env=env)
    stopped.expect(3)
    assert "Error:" in stopped.stderr
    assert not points.passed["store.publish"]
    assert point != "store.states" or not points.passed["source.read"]
    assert site.rows("SELECT * FROM TokenRecords ORDER BY id") == before
    again = site.sync()  # and what was known is still known
    assert again["records_inserted"] == 0
    assert again["tokens_read"] == 0 or not options


def test_a_missing_table_is_no_empty_table(site: Site) -> None:
    site.sync()
    site.change("ALTER TABLE ProcessedDatabases RENAME TO Elsewhere")
    stopped = site.run("sync", "--report", str(site.reports)).expect(3)
    assert "ProcessedDatabases" in stopped.stderr
    site.change("ALTER TABLE Elsewhere RENAME TO ProcessedDatabases")
    assert site.sync()["tokens_read"] == 0
