"""18: two machines with the same directory layout do not touch each other's records."""

from __future__ import annotations

from pathlib import Path

from tests.incidents.conftest import Site
from tests.incidents.nodes import execute

_OF = "SELECT * FROM TokenRecords WHERE source_ip = ? ORDER BY id"
_MARKS = "SELECT * FROM ProcessedDatabases WHERE source_ip = ? ORDER BY database_key"


def test_the_source_is_part_of_every_key(site: Site) -> None:
    site.source = "10.0.0.1"
    site.sync()
    records, marks = site.rows(_OF, "10.0.0.1"), site.rows(_MARKS, "10.0.0.1")
    assert (len(records), len(marks)) == (373, 6)

    # The other machine: the same paths, other rows.
    site.source = "10.0.0.2"
    path = Path(site.fleet, "node032/Rubix/rubix.db")
    execute(
        path,
        "UPDATE TokensTable SET token_status = 16",
        "DELETE FROM TokensTable WHERE rowid > 100",
    )
    report = site.sync()
    assert report["records_inserted"] == 353
    assert site.rows(_OF, "10.0.0.1") == records
    assert site.rows(_MARKS, "10.0.0.1") == marks
    assert len(site.rows(_MARKS, "10.0.0.2")) == 6

    # Each machine's own next run finds its own progress.
    assert site.sync()["tokens_read"] == 0
    site.run("verify").expect(1)  # all equal, but three databases cannot be read
    site.source = "10.0.0.1"
    seen = site.sync()
    assert (seen["tokens_read"], seen["records_vanished"]) == (100, 20)
    assert len(site.rows(_OF, "10.0.0.2")) == 353
