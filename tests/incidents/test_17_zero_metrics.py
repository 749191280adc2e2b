"""17: the report's numbers are the target's, and a mismatch is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.incidents.conftest import Site
from tests.incidents.nodes import execute

_TARGETS_OWN = """
    SELECT count(*), sum(ipfs_fetched), sum(NOT ipfs_fetched), count(validation_errors)
    FROM TokenRecords WHERE source_deleted_at IS NULL
"""


def _reported(report: dict[str, Any]) -> tuple[int, ...]:
    return tuple(
        report[name]
        for name in (
            "total_records_processed",
            "total_ipfs_success",
            "total_ipfs_failures",
            "total_validation_errors",
        )
    )


def test_report_session_and_target_agree(site: Site) -> None:
    report = site.sync()
    (counted,) = site.rows(_TARGETS_OWN)
    assert counted[0] == 373
    assert _reported(report) == counted
    session = site.rows(
        "SELECT total_records_processed, total_ipfs_success, total_ipfs_failures,"
        " total_validation_errors, total_sql_inserts, total_sql_errors FROM SyncSessions"
    )
    assert session == [(*counted, report["records_inserted"], report["total_sql_errors"])]
    marks = site.rows(
        "SELECT sum(record_count), sum(ipfs_success_count), sum(ipfs_fail_count),"
        " sum(validation_error_count) FROM ProcessedDatabases"
    )
    assert marks == [counted]
    for where in ("report_file", "page_file"):
        report.pop(where)
    assert site.latest_report() == report


def test_numbers_of_a_changing_run_are_right(site: Site) -> None:
    site.sync()
    path = Path(site.fleet, "node032/Rubix/rubix.db")
    execute(
        path,
        "DELETE FROM TokensTable WHERE rowid % 10 = 0",
        "UPDATE TokensTable SET token_status = token_status + 1 WHERE rowid % 10 = 1",
    )
    report = site.sync()
    gone = site.one("SELECT count(*) FROM TokenRecords WHERE source_deleted_at IS NOT NULL")
    assert (report["records_vanished"], report["records_updated"]) == (gone, 12)
    assert gone == 12
    assert report["total_records_processed"] == 108


def test_a_mismatch_is_an_error(site: Site) -> None:
    site.door.run("schema", "upgrade", "--target", site.url).expect(0)
    site.change(
        "CREATE TRIGGER forget AFTER INSERT ON ProcessedDatabases BEGIN"
        " UPDATE ProcessedDatabases SET record_count = 0, ipfs_success_count = 0"
        " WHERE database_key = new.database_key; END"
    )
    wrong = site.run("sync", "--report", str(site.reports)).expect(1)
    assert "the run counted" in wrong.stderr
    assert site.rows("SELECT status FROM SyncSessions") == [("FAILED",)]
