"""15: the console stays readable; the detail is in the target and the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.incidents.conftest import Site

_TOKENS = 2_000


@pytest.mark.parametrize("verbosity", [[], ["--verbose"]])
def test_failed_tokens_do_not_fill_the_console(
    site: Site, tmp_path: Path, verbosity: list[str]
) -> None:
    site.fleet = tmp_path / "bare"
    fleet = make_fleet(site.fleet, FleetPlan(nodes=2, tokens_per_node=_TOKENS, absent=1.0))
    run = site.run("sync", "--report", str(site.reports), *verbosity)
    run.expect(0)  # absent content is data, not a failure
    assert len(run.stderr.splitlines()) < 40
    assert len(run.stdout.splitlines()) < 20
    assert "not_in_repository" in run.stdout
    stored = site.one("SELECT count(*) FROM TokenRecords WHERE ipfs_error LIKE 'not_in_repo%'")
    assert stored == fleet.tokens == site.latest_report()["content_failures"]["not_in_repository"]
    errors = site.rows("SELECT occurrences FROM SyncErrors WHERE code = 'not_in_repository'")
    assert errors == [(_TOKENS,), (_TOKENS,)]
