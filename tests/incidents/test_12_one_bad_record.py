"""12: a failing batch is halved until the bad records stand alone."""

from __future__ import annotations

from pathlib import Path

from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.incidents.conftest import Points, Site

_TOKENS = 1_000


def test_the_good_ones_go_in_at_bulk_speed(site: Site, points: Points, tmp_path: Path) -> None:
    site.fleet = tmp_path / "one"
    fleet = make_fleet(site.fleet, FleetPlan(nodes=1, tokens_per_node=_TOKENS))
    tokens = [token.token_id for token in fleet.truth(fleet.nodes[0])]
    bad = {tokens[17], tokens[600]}
    site.door.run("schema", "upgrade", "--target", site.url).expect(0)
    listed = ", ".join(f"'{token}'" for token in bad)
    site.change(
        f"CREATE TRIGGER refuse BEFORE INSERT ON TokenRecords WHEN new.token_id IN ({listed})"
        " BEGIN SELECT RAISE(ABORT, 'value out of range'); END"
    )
    report = site.sync(env=points.env)
    assert report["exit_code"] == 1
    assert report["records_inserted"] == _TOKENS - 2
    assert report["records_rejected"] == 2
    # Two bad ones among 1,000: each is found by some ten halvings, not by 1,000 inserts.
    assert points.passed["store.publish"] < 60
    stored = {row[0] for row in site.rows("SELECT token_id FROM TokenRecords")}
    assert stored == set(tokens) - bad
    told = site.rows(
        "SELECT token_id, message, category FROM SyncErrors WHERE code = 'record_refused'"
    )
    assert {row[0] for row in told} == bad
    assert all("value out of range" in row[1] and row[2] == "database" for row in told)
    marks = site.rows("SELECT record_count, rejected_count FROM ProcessedDatabases")
    assert marks == [(_TOKENS - 2, 2)]


def test_a_record_that_is_refused_later_is_not_kept_as_it_was(site: Site, tmp_path: Path) -> None:
    """What the target holds under its key is no longer what the node says."""
    site.fleet = tmp_path / "one"
    fleet = make_fleet(site.fleet, FleetPlan(nodes=1, tokens_per_node=50))
    site.sync()
    from rubix_token_sync.testing import change_status

    (token, *_rest) = change_status(fleet.nodes[0].db_path, 0.1)
    site.change(
        f"CREATE TRIGGER refuse BEFORE UPDATE ON TokenRecords WHEN new.token_id = '{token}'"
        " AND new.source_deleted_at IS NULL BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    assert site.sync()["records_rejected"] == 1
    gone = site.one("SELECT source_deleted_at FROM TokenRecords WHERE token_id = ?", token)
    assert gone is not None
    site.change("DROP TRIGGER refuse")
    site.sync("--force")
    back = site.one("SELECT source_deleted_at FROM TokenRecords WHERE token_id = ?", token)
    assert back is None
    site.run("verify").expect(0)
