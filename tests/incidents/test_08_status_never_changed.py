"""8: a change of any column of a token reaches the target at the next run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.incidents.conftest import Site
from tests.incidents.nodes import execute

_CHANGES = {
    "token_status": ("9", "9"),
    "token_value": ("0.125", "0.125"),
    "did": ("'bafybmi" + "a" * 52 + "'", "bafybmi" + "a" * 52),
    "parent_token_id": ("'QmR' || substr(token_id, 4)", None),
    "created_at": ("'2031-02-03 04:05:06'", "2031-02-03 04:05:06.000000"),
    "updated_at": ("'2032-02-03T04:05:06Z'", "2032-02-03 04:05:06.000000"),
}


@pytest.mark.parametrize("column", _CHANGES)
def test_every_column_is_watched(site: Site, column: str) -> None:
    path = Path(site.fleet, "pool/a/node035/Rubix/rubix.db")  # a fork's table, with times
    site.sync()
    token = site.one("SELECT min(token_id) FROM TokenRecords WHERE db_path = ? AND"
                     " token_id LIKE 'Qm%' AND ipfs_fetched", str(path))  # fmt: skip
    others = "SELECT * FROM TokenRecords WHERE NOT (db_path = ? AND token_id = ?) ORDER BY id"
    before = site.rows(others, str(path), token)
    value, expected = _CHANGES[column]
    execute(path, f"UPDATE TokensTable SET {column} = {value} WHERE token_id = '{token}'")
    report = site.sync()
    assert (report["records_updated"], report["records_inserted"]) == (1, 0)
    stored = site.one(
        f"SELECT {column} FROM TokenRecords WHERE db_path = ? AND token_id = ?", str(path), token
    )
    assert stored == (expected or "QmR" + token[3:])
    assert site.rows(others, str(path), token) == before


def test_a_table_without_times_is_watched_too(site: Site) -> None:
    path = Path(site.fleet, "node032/Rubix/rubix.db")
    site.sync()
    execute(path, "UPDATE TokensTable SET token_status = token_status + 1")
    report = site.sync()
    assert report["records_updated"] == 120
    assert report["tokens_read"] == 120
