"""9: a column that a node does not have is NULL, not a text that says so."""

from __future__ import annotations

from tests.incidents.conftest import Site


def test_missing_columns_are_null(site: Site) -> None:
    site.sync()
    absent = site.rows(
        "SELECT DISTINCT token_status, created_at, updated_at FROM TokenRecords"
        " WHERE db_path LIKE '%/node034/%'"
    )
    assert absent == [(None, None, None)]
    kinds = site.rows(
        "SELECT DISTINCT typeof(created_at), typeof(updated_at) FROM TokenRecords"
        " WHERE db_path LIKE '%/node032/%'"
    )
    assert kinds == [("null", "null")]
    columns = [row[1] for row in site.rows("PRAGMA table_info(TokenRecords)")]
    # A value of the source may say anything; these nodes' values do not say this.
    for column in columns:
        found = site.one(
            f"SELECT count(*) FROM TokenRecords WHERE {column} LIKE '%not found%'"
            " AND NOT ipfs_error LIKE 'not\\_in\\_repository%' ESCAPE '\\'"
        )
        assert found == 0, column
