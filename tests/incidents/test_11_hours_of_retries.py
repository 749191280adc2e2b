"""11: set-based loads; passing errors are retried with jitter, permanent ones fail at once."""

from __future__ import annotations

import math

import pytest
from tenacity import RetryCallState, Retrying

from rubix_token_sync.errors import TargetUnavailable
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from tests.incidents.conftest import Points, Site


def test_statements_do_not_grow_with_records(site: Site, points: Points) -> None:
    report = site.sync(env={**points.env, "BATCH_SIZE": "50", "BULK_INSERT_SIZE": "100"})
    chunks = sum(max(1, math.ceil(d["read"] / 100)) for d in report["databases"] if d["read"])
    assert points.passed["store.publish"] <= chunks + 1
    # A commit for each chunk and each index that is built, and a fixed number for the session.
    by_need = points.passed["store.publish"] + points.passed["store.indexes.build"]
    assert points.passed["store.commit.before"] <= by_need + 12


def test_a_passing_error_is_retried_and_told(site: Site) -> None:
    env = {
        "RUBIX_SYNC_FAULT": "store.publish:2:error",
        "RUBIX_SYNC_FAULT_ONCE": str(site.home / "f"),
    }
    report = site.sync(env=env)
    assert report["sql_retries"] == 1
    assert report["records_inserted"] == 373
    assert report["total_sql_errors"] == 0


def test_retries_end(site: Site, points: Points) -> None:
    env = {
        **points.env,
        "RUBIX_SYNC_FAULT": "store.publish:1:error:forever",
        "RETRY_ATTEMPTS": "3",
    }
    site.run("sync", "--report", str(site.reports), env=env).expect(3)
    assert points.passed["store.publish"] == 3


def test_a_permanent_error_fails_at_once(site: Site, points: Points) -> None:
    (site.home / "directory.db").mkdir()
    refused = site.door.run(
        "sync", str(site.fleet), "--target", f"sqlite:///{site.home}/directory.db", env=points.env
    ).expect(3)
    assert "Error:" in refused.stderr
    assert points.passed["store.open"] == 1  # not one attempt more


def test_pauses_grow_and_differ() -> None:
    store = open_target(parse_target("sqlite:////nowhere/x.db"), TargetOptions())
    pauses: dict[int, set[float]] = {}
    for attempt in (1, 4, 12):
        for _ in range(50):
            state = RetryCallState(Retrying(), None, (), {})
            state.attempt_number = attempt
            state.set_exception((TargetUnavailable, TargetUnavailable("x", code="x"), None))
            pauses.setdefault(attempt, set()).add(store.database._wait(state))
    store.close()
    assert all(len(seen) > 10 for seen in pauses.values()), "no jitter"
    assert max(pauses[1]) < max(pauses[4]) < max(pauses[12]) <= 60
    assert min(map(min, pauses.values())) > 0


@pytest.mark.parametrize("processes", [False, True])
def test_a_target_that_is_gone_ends_the_run_soon(site: Site, processes: bool) -> None:
    env = {"RUBIX_SYNC_FAULT": "store.connect:9:error:forever", "RETRY_ATTEMPTS": "2"}
    gone = site.run("sync", "--report", str(site.reports), env=env, processes=processes).expect(3)
    assert gone.seconds < 30
