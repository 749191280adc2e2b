"""16: a worker's crash ends the run with that error and a non-zero exit code."""

from __future__ import annotations

import pytest

from tests.incidents.conftest import Site


@pytest.mark.parametrize("processes", [False, True])
@pytest.mark.parametrize("nth", [1, 3])
def test_what_a_worker_raises_is_told(site: Site, processes: bool, nth: int) -> None:
    crashed = site.run(
        "sync", "--report", str(site.reports),
        env={"RUBIX_SYNC_FAULT": f"worker.job:{nth}:error"}, processes=processes,
    )  # fmt: skip
    crashed.expect(1)
    assert "injected fault at worker.job" in crashed.stderr
    assert crashed.seconds < 30
    assert site.rows("SELECT status FROM SyncSessions") == [("FAILED",)]
    assert "injected fault" in site.one("SELECT error_summary FROM SyncSessions")
    assert site.one("SELECT count(*) FROM SyncLeases") == 0
    site.sync()
    assert site.one("SELECT count(*) FROM TokenRecords") == 373


@pytest.mark.parametrize("point", ["worker.job", "source.read", "content.resolve"])
def test_a_worker_that_is_killed_is_told(site: Site, point: str) -> None:
    killed = site.run(
        "sync", "--report", str(site.reports),
        env={"RUBIX_SYNC_FAULT": f"{point}:2:kill"}, processes=True,
    )  # fmt: skip
    killed.expect(1)
    assert "ended abruptly" in killed.stderr
    assert site.rows("SELECT status FROM SyncSessions") == [("FAILED",)]
    site.sync()
    assert site.one("SELECT count(*) FROM TokenRecords") == 373


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_file_tells_how_a_run_ended(site: Site, form: str) -> None:
    """Who looks at a scheduled run's log finds the error that was on its console."""
    log = site.home / "run.log"
    site.run(
        "sync", "--report", str(site.reports), "--log-file", str(log), "--log-format", form,
        env={"RUBIX_SYNC_FAULT": "store.states:1:error:forever", "RETRY_ATTEMPTS": "1"},
    ).expect(3)  # fmt: skip
    last = log.read_text(encoding="utf-8").splitlines()[-1]
    assert "ERROR" in last or '"level": "error"' in last
    assert "injected fault at store.states" in last
