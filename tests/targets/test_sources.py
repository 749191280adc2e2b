"""A source belongs to the machine that used it first (incident 39); leases end as they say (30)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from rubix_token_sync.errors import LeaseHeld, SourceTaken
from rubix_token_sync.process_identity import Machine, own_machine
from rubix_token_sync.targets.base import Lease, SessionTotals
from rubix_token_sync.targets.sql.target import SqlTarget

from .records_made import OTHER_SESSION, SESSION, SOURCE

A, B = Machine("aaaa/vm-a", "vm-a"), Machine("bbbb/vm-b", "vm-b")
ELSEWHERE = "elsewhere|-|1|1"


def test_another_machine_is_refused_until_it_takes_the_source_over(store: SqlTarget) -> None:
    lease, other = Lease(SOURCE, SESSION), Lease(SOURCE, OTHER_SESSION)
    store.acquire_lease(lease, ELSEWHERE, A)
    store.release_lease(lease)
    with pytest.raises(SourceTaken) as caught:
        store.acquire_lease(other, ELSEWHERE, B)
    assert caught.value.exit_code == 2
    assert "vm-a (aaaa/vm-a)" in caught.value.message
    assert "vm-b (bbbb/vm-b)" in caught.value.message
    assert "--source-ip" in caught.value.remedy
    assert store.leases() == []
    store.acquire_lease(lease, ELSEWHERE, A)  # the first one goes on
    store.release_lease(lease)
    store.acquire_lease(Lease("10.0.0.8", OTHER_SESSION), ELSEWHERE, B)  # another source
    store.adopt_source(SOURCE, B)
    store.acquire_lease(other, ELSEWHERE, B)
    with pytest.raises(SourceTaken):
        store.acquire_lease(lease, ELSEWHERE, A)


def test_who_names_no_machine_claims_nothing(store: SqlTarget) -> None:
    lease = Lease(SOURCE, SESSION)
    store.acquire_lease(lease, ELSEWHERE)
    store.release_lease(lease)
    store.acquire_lease(lease, ELSEWHERE, A)


def test_two_machines_that_start_at_once(
    store: SqlTarget, opened: Callable[..., SqlTarget]
) -> None:
    barrier, won = threading.Barrier(2), []

    def race(machine: Machine, session: str, target: SqlTarget) -> None:
        barrier.wait()
        try:
            target.acquire_lease(Lease(SOURCE, session), ELSEWHERE, machine)
        except (SourceTaken, LeaseHeld):
            return
        won.append(machine)

    racers = [
        threading.Thread(target=race, args=(A, SESSION, store)),
        threading.Thread(target=race, args=(B, OTHER_SESSION, opened())),
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(won) == 1


def test_a_machine_is_the_same_at_every_look_and_shows_no_secret(tmp_path: Path) -> None:
    here = own_machine()
    assert here == own_machine()
    file = tmp_path / "machine-id"
    file.write_text("0123456789abcdef0123456789abcdef\n")
    one = own_machine((str(tmp_path / "none"), str(file)))
    assert "0123456789abcdef" not in one.identity
    assert one.identity.endswith(f"/{one.host}")
    file.write_text("0123456789abcdef0123456789abcdee\n")
    assert own_machine((str(file),)) != one
    assert own_machine(()).identity == f"-/{one.host}"


def test_a_lease_lasts_as_long_as_its_holder_says(
    store: SqlTarget, opened: Callable[..., SqlTarget]
) -> None:
    """The other side looks at the row alone: it needs no setting of its own."""
    long, short = Lease(SOURCE, SESSION, 600), Lease("10.0.0.8", SESSION, 0.2)
    store.acquire_lease(long, ELSEWHERE)
    store.acquire_lease(short, ELSEWHERE)
    leases = store.tables.leases

    def back(seconds: int) -> None:
        """As if so much time had passed."""
        for name in ("heartbeat_at", "expires_at"):
            column = leases.c[name]
            for row in store.read(lambda conn: conn.execute(leases.select()).all()):
                moved = getattr(row, name) - timedelta(seconds=seconds)
                store.transact(
                    lambda conn, row=row, column=column, moved=moved: conn.execute(
                        leases.update()
                        .where(leases.c.source_ip == row.source_ip)
                        .values({column: moved})
                    )
                )

    back(70)  # a second holder took the lease after 70 s of 600
    other = opened()
    with pytest.raises(LeaseHeld, match="last heard of 7"):
        other.acquire_lease(Lease(SOURCE, OTHER_SESSION), ELSEWHERE)
    other.acquire_lease(Lease("10.0.0.8", OTHER_SESSION), ELSEWHERE)
    assert [lease.source for lease in other.leases()] == [SOURCE, "10.0.0.8"]
    store.heartbeat(long, SessionTotals())
    back(590)
    assert [(held.source, round(held.seconds)) for held in other.leases()] == [(SOURCE, 600)]
    back(20)
    other.acquire_lease(Lease(SOURCE, OTHER_SESSION), ELSEWHERE)
