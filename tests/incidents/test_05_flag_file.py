"""5: no flag files; runs are kept apart by a lease that a dead run loses by itself."""

from __future__ import annotations

import os
import signal

from tests.incidents.conftest import Site


def _names(site: Site) -> set[str]:
    fleet = str(site.fleet)
    return {
        os.path.relpath(os.path.join(directory, name), site.home)
        for directory, _, names in os.walk(site.home)
        if not directory.startswith(fleet)
        for name in names
    }


def test_a_run_leaves_no_file_but_target_and_report(site: Site) -> None:
    scratch = site.home / "tmp"
    scratch.mkdir()
    site.sync(env={"TMPDIR": str(scratch)}, cwd=site.home)
    reports = {os.path.relpath(path, site.home) for path in site.reports.iterdir()}
    assert sorted(os.path.splitext(name)[1] for name in reports) == [".html", ".json"]
    assert _names(site) <= {"target.db", "target.db-wal", "target.db-shm", *reports}


def test_the_next_run_need_not_wait(site: Site) -> None:
    for _ in range(3):
        site.run("sync", "--report", str(site.reports)).expect(1)  # one database is broken
    assert site.one("SELECT count(*) FROM SyncSessions WHERE status = 'COMPLETED'") == 3


def test_a_dead_run_loses_its_lease_at_once(site: Site) -> None:
    fired = site.home / "fired"
    env = {
        "RUBIX_SYNC_FAULT": "store.publish:3:stall",
        "RUBIX_SYNC_FAULT_ONCE": str(fired),
        "BATCH_SIZE": "20",
        "BULK_INSERT_SIZE": "40",
    }
    stuck = site.door.start(*site.arguments("sync", "--report", str(site.reports)), env=env)
    while not fired.exists():
        assert not stuck.ended_within(0.01)
    stuck.signal(signal.SIGKILL)
    assert stuck.wait().code == -signal.SIGKILL
    assert site.one("SELECT count(*) FROM SyncLeases") == 1
    report = site.sync()
    assert report["dead_sessions_found"] == 1
    assert site.one("SELECT count(*) FROM SyncLeases") == 0
    states = site.rows("SELECT status, count(*) FROM SyncSessions GROUP BY 1 ORDER BY 1")
    assert states == [("COMPLETED", 1), ("INTERRUPTED", 1)]
