"""2: one record per (source, database, token id), whatever fails, retries or runs twice."""

from __future__ import annotations

import sqlite3

import pytest

from tests.incidents.conftest import Site

_REPEATED = """
    SELECT source_ip, db_path, token_id, count(*) FROM TokenRecords
    WHERE token_id IS NOT NULL GROUP BY 1, 2, 3 HAVING count(*) > 1
"""


def test_the_database_itself_refuses_a_second_record(site: Site) -> None:
    site.sync()
    columns = [row[1] for row in site.rows("PRAGMA table_info(TokenRecords)") if row[1] != "id"]
    names = ", ".join(columns)
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        site.change(f"INSERT INTO TokenRecords ({names}) SELECT {names} FROM TokenRecords LIMIT 1")


@pytest.mark.parametrize("nth", [9, 12, 15])
def test_a_commit_whose_acknowledgement_is_lost_is_not_repeated(site: Site, nth: int) -> None:
    """The earlier script's fallback inserted again what the bulk path had committed."""
    fired = site.home / "fired"
    env = {
        "RUBIX_SYNC_FAULT": f"store.commit.after:{nth}:error",
        "RUBIX_SYNC_FAULT_ONCE": str(fired),
    }
    report = site.sync(env=env)
    assert fired.exists()
    assert site.rows(_REPEATED) == []
    assert site.one("SELECT count(*) FROM TokenRecords") == 373
    assert report["records_inserted"] == 373


def test_reading_everything_again_adds_nothing(site: Site) -> None:
    site.sync()
    for _ in range(2):
        report = site.sync("--force")
        assert report["tokens_read"] == 373
        assert (report["records_inserted"], report["records_updated"]) == (0, 0)
    assert site.rows(_REPEATED) == []
    assert site.one("SELECT count(*) FROM TokenRecords") == 373
