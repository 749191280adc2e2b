"""Three hosts in network namespaces, mutual TLS, PostgreSQL: what happens when they are lost.

Each event comes at a moment that the run itself passes (`failpoints`).  CI takes one moment of
each; ``RUBIX_TEST_CLUSTER_MOMENTS=5`` takes all of them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.target_state import Content, content_of, leftovers

from .machines import HOSTS, PASSWORD, VICTIM, Answer, Fleet, machines
from .namespaces import until

pytestmark = pytest.mark.long

MOMENTS = [
    ("store.publish", 1),
    ("store.session.start", 1),
    ("source.read", 2),
    ("store.commit.after", 6),
    ("store.session.finish", 1),
]
"""Points of the victim's run, and how often they are passed before the event."""
_NUMBER = int(os.environ.get("RUBIX_TEST_CLUSTER_MOMENTS", "1"))
TAKEN = MOMENTS[:_NUMBER]
OF_THE_CABLE = [MOMENTS[2], *MOMENTS[:2], *MOMENTS[3:]][:_NUMBER]
"""In a transaction, a host that was cut off keeps the others waiting for some 40 s."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with contextlib.ExitStack() as stack:
        yield machines(tmp_path_factory.mktemp("cluster"), stack)


@pytest.fixture(scope="module")
def undisturbed(fleet: Fleet) -> Content:
    """What the target holds after a run that nothing disturbed; and what else it does."""
    url = fleet.fresh_target()
    first = fleet.run("sync", "--hosts", "3")
    assert first.code == 0, (first.document, first.said)
    assert first.states() == dict.fromkeys(HOSTS, "completed")
    assert first.document["sums"]["inserted"] == 6000 == first.document["records_held"]
    assert not leftovers(url)
    return content_of(url)


def repaired(fleet: Fleet, undisturbed: Content) -> None:
    """The next run of the fleet makes the target what an undisturbed one had made it."""
    again = fleet.run("sync", "--hosts", "3")
    assert again.code == 0, (again.document, again.said)
    assert again.states() == dict.fromkeys(HOSTS, "completed")
    assert content_of(fleet.url).difference(undisturbed) == ""
    assert not leftovers(fleet.url)


def test_sync_again_verify(fleet: Fleet, undisturbed: Content) -> None:
    fleet.fresh_target()
    assert fleet.run("sync", "--hosts", "3").code == 0
    again = fleet.run("sync")
    assert (again.code, again.document["sums"]["databases_unchanged"]) == (0, 6)
    verified = fleet.run("verify")
    assert verified.code == 0, verified.document
    assert verified.states() == dict.fromkeys(HOSTS, "equal")
    assert verified.document["sums"]["records"] == 6000
    audited = fleet.run("audit")
    assert audited.document["audit"]["databases"] == 6
    assert content_of(fleet.url).difference(undisturbed) == ""


def test_the_password_never_crosses_the_wire(fleet: Fleet, undisturbed: Content) -> None:
    """Nor does it stand in any log, answer or process list."""
    told = "".join(path.read_text(errors="replace") for path in fleet.directory.glob("*.log"))
    told += "".join(path.read_text(errors="replace") for path in fleet.directory.glob("*.out"))
    assert "order" in told or "sync" in told
    assert PASSWORD not in told
    lines = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert not any(PASSWORD.encode() in line for line in lines)


@pytest.mark.parametrize("moment", TAKEN, ids=str)
def test_a_host_is_killed(fleet: Fleet, undisturbed: Content, moment: tuple[str, int]) -> None:
    fleet.fresh_target()
    command = fleet.sync_until(moment)
    fleet.workers[VICTIM].kill()
    began = time.monotonic()
    until(lambda: "[host_lost]" in command.said or "was lost" in command.said, seconds=60)
    named_after = time.monotonic() - began
    fleet.start(VICTIM)
    ended = fleet.end(command, began)
    assert named_after < 60
    assert_others_done(ended)
    if ended.states()[VICTIM] != "completed":
        assert (ended.code, "host_lost" in ended.codes()) == (1, True), ended.document
    repaired(fleet, undisturbed)


@pytest.mark.parametrize("moment", OF_THE_CABLE, ids=str)
def test_a_cable_is_cut(fleet: Fleet, undisturbed: Content, moment: tuple[str, int]) -> None:
    fleet.fresh_target()
    command = fleet.sync_until(moment)
    fleet.network.cut(VICTIM)
    began = time.monotonic()
    try:
        until(lambda: "was lost" in command.said, seconds=60)
        ended = fleet.end(command, began)
    finally:
        fleet.network.join(VICTIM)
    assert_others_done(ended)
    assert (ended.code, "host_lost" in ended.codes()) == (1, True), ended.document
    repaired(fleet, undisturbed)


@pytest.mark.parametrize("moment", TAKEN, ids=str)
def test_the_scheduler_is_killed(
    fleet: Fleet, undisturbed: Content, moment: tuple[str, int]
) -> None:
    """Hosts finish, the coordinator reads how from the target, and all join the next one."""
    fleet.fresh_target()
    command = fleet.sync_until(moment)
    fleet.scheduler.kill()
    began = time.monotonic()
    ended = fleet.end(command, began)
    fleet.start_scheduler()
    assert "scheduler_lost" in ended.codes(), ended.document
    assert ended.states() == dict.fromkeys(HOSTS, "completed"), (ended.document, ended.said)
    assert ended.code == 0, "nothing was left undone, and the target proves it"
    assert content_of(fleet.url).difference(undisturbed) == ""
    repaired(fleet, undisturbed)


@pytest.mark.parametrize("moment", TAKEN, ids=str)
def test_the_coordinator_is_killed(
    fleet: Fleet, undisturbed: Content, moment: tuple[str, int]
) -> None:
    fleet.fresh_target()
    command = fleet.sync_until(moment)
    command.kill()
    repaired(fleet, undisturbed)


def assert_others_done(ended: Answer) -> None:
    states = ended.states()
    assert {h: s for h, s in states.items() if h != VICTIM} == {
        h: "completed" for h in HOSTS if h != VICTIM
    }, (ended.document, ended.said)


def test_all_end_when_they_are_asked_to(fleet: Fleet, undisturbed: Content) -> None:
    assert {host: worker.end() for host, worker in fleet.workers.items()} == dict.fromkeys(
        HOSTS, 143
    )
    assert fleet.scheduler.end() == 143
    for name in ["scheduler", *HOSTS]:
        assert "Traceback" not in (fleet.directory / f"{name}.log").read_text()
