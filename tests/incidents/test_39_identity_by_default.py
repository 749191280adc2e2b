"""39: a source belongs to the machine that used it first; another one touches nothing of it."""

from __future__ import annotations

from tests.incidents.conftest import Site

_RECORDS = "SELECT * FROM TokenRecords ORDER BY id"


def test_a_second_machine_with_the_same_source_is_refused(site: Site) -> None:
    site.sync()
    records = site.rows(_RECORDS)
    # The first one was another machine: containers have the same address, and nobody named one.
    site.change("UPDATE SyncSources SET machine = '0123456789abcdef/vm-a', host = 'vm-a'")
    for command in ("sync", "retry-failed"):
        refused = site.run(command, "--report", str(site.reports)).expect(2)
        assert "vm-a (0123456789abcdef/vm-a)" in refused.stderr
        assert "--source-ip" in refused.stderr
        assert "--adopt-source" in refused.stderr
    assert site.rows(_RECORDS) == records
    assert site.one("SELECT count(*) FROM SyncLeases") == 0
    assert site.one("SELECT count(*) FROM SyncSessions") == 1

    # Both pieces of advice work as they stand.
    site.source = "vm2"
    assert site.sync()["records_inserted"] == len(records)
    site.source = "vm1"
    adopted = site.run("sync", "--adopt-source", "--report", str(site.reports), "--json")
    assert adopted.expect(0, 1).document["tokens_read"] == 0
    assert site.one("SELECT count(*) FROM SyncSources WHERE machine LIKE '%vm-a'") == 0
    assert site.sync()["records_vanished"] == 0
