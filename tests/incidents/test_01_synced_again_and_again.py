"""1: a second run over an unchanged fleet reads no token and writes no token record."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.incidents.conftest import Points, Site

_WRITTEN = "SELECT * FROM TokenRecords ORDER BY id"


@pytest.mark.parametrize("nanoseconds", [0, 1, 999_999_999])
def test_unchanged_fleet_costs_nothing(site: Site, points: Points, nanoseconds: int) -> None:
    for path in site.fleet.rglob("rubix.db"):
        moment = 1_700_000_000 * 10**9 + nanoseconds
        os.utime(path, ns=(moment, moment))
    first = site.sync()
    assert first["tokens_read"] == first["records_inserted"] == 373
    before = site.rows(_WRITTEN)
    marks = site.rows("SELECT database_key, last_processed FROM ProcessedDatabases ORDER BY 1")
    for _ in range(2):
        again = site.sync(env=points.env)
        assert again["tokens_read"] == 0
        assert again["total_databases_unchanged"] == 6
        touched = ("records_inserted", "records_updated", "records_vanished", "records_rejected")
        assert [again[name] for name in touched] == [0, 0, 0, 0]
    assert not points.passed["source.read"]
    assert not points.passed["store.publish"]
    assert site.rows(_WRITTEN) == before  # ids and times, too
    assert marks == site.rows(
        "SELECT database_key, last_processed FROM ProcessedDatabases ORDER BY 1"
    )


def test_one_changed_database_is_read_alone(site: Site) -> None:
    site.sync()
    path = Path(site.fleet, "node032/Rubix/rubix.db")
    moment = path.stat().st_mtime_ns + 1  # by a nanosecond, as a stored second would miss
    os.utime(path, ns=(moment, moment))
    again = site.sync()
    read = {d["db_path"]: d["read"] for d in again["databases"] if d["read"]}
    assert read == {str(path): 120}
    assert (again["records_inserted"], again["records_updated"]) == (0, 0)
