"""4: processed means every record is stored, or accounted for as rejected, by count."""

from __future__ import annotations

import pytest

from tests.incidents.conftest import Site

_MARKS = "SELECT db_path, record_count, rejected_count FROM ProcessedDatabases"
_LIVE = "SELECT db_path, count(*) FROM TokenRecords WHERE source_deleted_at IS NULL GROUP BY 1"
_SMALL = {"BATCH_SIZE": "20", "BULK_INSERT_SIZE": "40", "RETRY_ATTEMPTS": "1"}


def _not_marked_too_early(site: Site) -> int:
    live = dict(site.rows(_LIVE))
    marks = site.rows(_MARKS)
    for path, stored, _ in marks:
        assert live.get(path, 0) == stored
    return len(marks)


@pytest.mark.parametrize("nth", range(1, 10, 2))
def test_a_chunk_that_fails_leaves_its_database_unmarked(site: Site, nth: int) -> None:
    env = {**_SMALL, "RUBIX_SYNC_FAULT": f"store.publish:{nth}:error:forever"}
    site.run("sync", "--report", str(site.reports), env=env).expect(3)
    assert _not_marked_too_early(site) < 6
    site.sync()
    assert _not_marked_too_early(site) == 6
    assert site.one("SELECT count(*) FROM TokenRecords") == 373


def test_rejected_records_are_accounted_for(site: Site) -> None:
    site.door.run("schema", "upgrade", "--target", site.url).expect(0)
    site.change(
        "CREATE TRIGGER refuse BEFORE INSERT ON TokenRecords WHEN new.token_id LIKE 'QmR%'"
        " BEGIN SELECT RAISE(ABORT, 'no such tokens here'); END"
    )
    report = site.sync(env=_SMALL)
    assert report["records_rejected"] > 0
    assert report["exit_code"] == 1
    assert _not_marked_too_early(site) == 6
    marked = site.one("SELECT sum(record_count) + sum(rejected_count) FROM ProcessedDatabases")
    assert marked == 373
    told = site.rows("SELECT token_id, message FROM SyncErrors WHERE code = 'record_refused'")
    assert len(told) == report["records_rejected"]
    assert all(token.startswith("QmR") and "no such tokens" in why for token, why in told)


def test_a_record_that_gets_lost_silently_is_noticed(site: Site) -> None:
    """The target says yes and does nothing: the count tells."""
    site.door.run("schema", "upgrade", "--target", site.url).expect(0)
    site.change(
        "CREATE TRIGGER swallow BEFORE INSERT ON TokenRecords"
        " WHEN new.node_name = 'node032' AND new.token_id LIKE 'QmR%'"
        " BEGIN SELECT RAISE(IGNORE); END"
    )
    failed = site.run("sync", "--report", str(site.reports)).expect(1)
    assert "records should be stored" in failed.stderr
    assert not any("node032" in path for path, _, _ in site.rows(_MARKS))
    assert _not_marked_too_early(site) < 6
