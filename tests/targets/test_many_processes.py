"""Workers that publish by themselves: other processes, one lease, small pools."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rubix_token_sync.errors import LeaseLost
from rubix_token_sync.targets.base import Chunk, Lease, Published, SessionTotals, TargetOptions
from rubix_token_sync.targets.registry import TargetAddress, open_target
from rubix_token_sync.targets.sql.target import SqlTarget

from .records_made import DATABASE, OTHER_SESSION, SESSION, SOURCE, batch_of, mark, record

WORKERS, CHUNKS, ROWS = 3, 6, 200


def work(target: TargetAddress, options: TargetOptions, number: int) -> int:
    """A worker: opens its own target and publishes new, changed and vanished records."""
    opened, lease, done = open_target(target, options), Lease(SOURCE, SESSION), Published()
    for chunk in range(CHUNKS):
        start = (number * CHUNKS + chunk) * ROWS
        done.add(opened.publish(lease, Chunk(batch_of(range(start, start + ROWS)), bulk=True,
                                             new=bool(chunk % 2))))  # fmt: skip
    first = number * CHUNKS * ROWS
    done.add(opened.publish(lease, Chunk(batch_of([first, first + 1], token_status="7"))))
    gone = record(first + 2)["record_key"]
    done.add(opened.publish(lease, Chunk(batch_of([]), vanished=gone)))
    opened.close()
    return done.inserted + done.updated + done.vanished


@pytest.mark.parametrize("pool_size", [1, 2, 3])
def test_several_publish_for_one_lease_while_it_is_renewed(
    target: TargetAddress, opened: Callable[..., SqlTarget], tmp_path: Path, pool_size: int
) -> None:
    main, lease = opened(pool_size=pool_size), Lease(SOURCE, SESSION)
    main.ensure_schema()
    main.start_session(SESSION, SOURCE, "host", 1, "sync")
    main.acquire_lease(lease, "elsewhere|-|1|1")
    main.prepare_load()
    options = TargetOptions(pool_size=pool_size)
    beats = [0.0]
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.05):
            begun = time.monotonic()
            main.heartbeat(lease, SessionTotals())
            beats.append(time.monotonic() - begun)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
            jobs = [(target, options, number) for number in range(WORKERS)]
            done = pool.starmap_async(work, jobs).get(timeout=100)
    finally:
        ended.set()
        beating.join()
    assert done == [CHUNKS * ROWS + 3] * WORKERS
    assert len(beats) > 5
    assert max(beats) < 20  # a third of what a lease lasts
    total = WORKERS * (CHUNKS * ROWS - 1)
    main.publish(lease, Chunk(batch_of([]), mark=mark(total)))
    main.finish_load()
    assert len(main.known_rows(DATABASE)[0]) == 24 * total
    assert [state.record_count for state in main.database_states(SOURCE)] == [total]
    main.release_lease(lease)


def test_a_worker_of_a_run_that_lost_its_lease_writes_nothing(
    target: TargetAddress, opened: Callable[..., SqlTarget]
) -> None:
    main = opened()
    main.ensure_schema()
    main.acquire_lease(Lease(SOURCE, OTHER_SESSION), "elsewhere|-|1|1")
    worker = opened(pool_size=1)
    with pytest.raises(LeaseLost):
        worker.publish(Lease(SOURCE, SESSION), Chunk(batch_of(range(3))))
    assert worker.known_rows(DATABASE) == (b"", b"")
