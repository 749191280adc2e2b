"""One source on three hosts in network namespaces: what happens when they are lost.

As in `tests.cluster.test_namespaces`: one moment of each event, or all of them with
``RUBIX_TEST_CLUSTER_MOMENTS=5``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import pytest

import rubix_token_sync as rts
from tests.chaos.target_state import Content, content_of, leftovers

from .machines import VICTIM, Answer, Fleet, machines
from .namespaces import until

pytestmark = pytest.mark.long

DATABASES, RECORDS = 12, 12_000
MOMENTS = [
    ("store.publish", 1),
    ("worker.job", 1),
    ("source.read", 2),
    ("store.commit.after", 3),
    ("worker.job", 3),
][: int(os.environ.get("RUBIX_TEST_CLUSTER_MOMENTS", "1"))]
"""Points that the victim passes, and how often before the event."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with contextlib.ExitStack() as stack:
        yield machines(tmp_path_factory.mktemp("cluster"), stack, shared=True)


@pytest.fixture(scope="module")
def undisturbed(fleet: Fleet) -> Content:
    """What the target holds after a run that nothing disturbed; and what else it does."""
    url = fleet.fresh_target()
    first = fleet.run("sync", "--hosts", "3")
    assert first.code == 0, (first.document, first.said)
    assert first.document["total_records"] == RECORDS
    assert first.said.count("takes part") == 3, first.said
    assert not leftovers(url)
    return content_of(url)


def failed(ended: Answer) -> dict[str, str]:
    """Databases that were not done, and why."""
    return {
        database["db_path"]: database["reason"]
        for database in ended.document["databases"]
        if database["status"] not in ("processed", "current")
    }


def done_by_the_next_run(fleet: Fleet, undisturbed: Content) -> None:
    again = fleet.run("sync")
    assert again.code == 0, (again.document, again.said)
    assert content_of(fleet.url).difference(undisturbed) == ""
    assert not leftovers(fleet.url)


def test_sync_again_verify_and_a_plain_sync(fleet: Fleet, undisturbed: Content) -> None:
    fleet.fresh_target()
    assert fleet.run("sync", "--hosts", "3").code == 0
    again = fleet.run("sync")
    assert (again.code, again.document["total_databases_processed"]) == (0, 0), again.document
    verified = fleet.run("verify")
    assert (verified.code, verified.document["records"]) == (0, RECORDS)
    plain = rts.sync(str(fleet.shared), target=fleet.url, source_ip="shared")
    assert plain.counters.databases_current == DATABASES
    assert content_of(fleet.url).difference(undisturbed) == ""


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_a_host_is_killed(fleet: Fleet, undisturbed: Content, moment: tuple[str, int]) -> None:
    """It costs what it had in hand; the two others do the rest."""
    fleet.fresh_target()
    command = fleet.sync_until(moment)
    fleet.workers[VICTIM].kill()
    began = time.monotonic()
    until(lambda: "was lost" in command.said or not command.running, seconds=60)
    fleet.start(VICTIM)
    ended = fleet.end(command, began)
    named_and_the_rest_done(ended)
    done_by_the_next_run(fleet, undisturbed)


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_a_cable_is_cut_and_mended(
    fleet: Fleet, undisturbed: Content, moment: tuple[str, int]
) -> None:
    """What the host still has in hand when it is back is under a lease that is over."""
    fleet.fresh_target()
    command = fleet.sync_until(moment)
    fleet.network.cut(VICTIM)
    began = time.monotonic()
    try:
        until(lambda: "was lost" in command.said or not command.running, seconds=60)
        ended = fleet.end(command, began)
    finally:
        fleet.network.join(VICTIM)
    named_and_the_rest_done(ended)
    done_by_the_next_run(fleet, undisturbed)


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_the_scheduler_is_killed(
    fleet: Fleet, undisturbed: Content, moment: tuple[str, int]
) -> None:
    fleet.fresh_target()
    command = fleet.sync_until(moment)
    fleet.scheduler.kill()
    ended = fleet.end(command, time.monotonic())
    fleet.start_scheduler()
    assert ended.code in (0, 1), ended.document
    if ended.code:
        assert "scheduler_lost" in ended.said
    again = fleet.run("sync", "--hosts", "3")
    assert again.code == 0, (again.document, again.said)
    assert content_of(fleet.url).difference(undisturbed) == ""


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_the_coordinator_is_killed(
    fleet: Fleet, undisturbed: Content, moment: tuple[str, int]
) -> None:
    fleet.fresh_target()
    fleet.sync_until(moment).kill()
    done_by_the_next_run(fleet, undisturbed)


def named_and_the_rest_done(ended: Answer) -> None:
    """Of twelve databases a host has two in hand at most on these two processors."""
    left = failed(ended)
    assert set(left.values()) <= {"host_lost"}, ended.document
    assert ended.code == (1 if left else 0), ended.document
    assert len(left) <= 2, left


def test_all_end_when_they_are_asked_to(fleet: Fleet, undisturbed: Content) -> None:
    assert {worker.end() for worker in fleet.workers.values()} == {143}
    assert fleet.scheduler.end() == 143
    for log in fleet.directory.glob("h?.log"):
        assert "Traceback" not in log.read_text()
