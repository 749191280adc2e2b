"""Workers on a SQL Server: other processes that publish for one lease, with small pools."""

from __future__ import annotations

import multiprocessing
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from rubix_token_sync.targets.base import Chunk, Lease, Published, SessionTotals, TargetOptions
from rubix_token_sync.targets.registry import TargetAddress, open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget

from . import runs
from .engine import SqliteEngine

WORKERS, ROWS = 2, 120


def work(target: TargetAddress, pool_size: int, lease: Lease, number: int) -> Published:
    """New records in bulk, others staged in bulk and by parameters: nothing was prepared here."""
    options = TargetOptions(pool_size=pool_size, call_seconds=20.0, wait_factor=0.001)
    opened, done = open_target(target, options), Published()
    start = number * 3 * ROWS
    for chunk in range(3):
        rows = runs.rows(range(start + chunk * ROWS, start + (chunk + 1) * ROWS))
        done.add(opened.publish(lease, Chunk(rows, bulk=chunk < 2, new=chunk == 0)))
    opened.close()
    return done


@pytest.mark.parametrize("pool_size", [1, 2, 3])
def test_several_publish_for_one_lease_while_it_is_renewed(
    pool_size: int, address: str, engine: SqliteEngine, opened: Callable[..., SqlTarget]
) -> None:
    main, lease = opened(pool_size=1), Lease(runs.SOURCE, str(uuid.uuid4()))
    main.start_session(lease.session_id, runs.SOURCE, "host", 1, "sync")
    main.acquire_lease(lease, "elsewhere|-|1|1")
    main.prepare_load()
    ended, beats = threading.Event(), [0]

    def beat() -> None:
        while not ended.wait(0.1):
            main.heartbeat(lease, SessionTotals())
            beats[0] += 1

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
            jobs = [(parse_target(address), pool_size, lease, n) for n in range(WORKERS)]
            done = pool.starmap_async(work, jobs).get(timeout=100)
    finally:
        ended.set()
        beating.join()
    total = WORKERS * 3 * ROWS
    assert [one.inserted for one in done] == [3 * ROWS] * WORKERS
    # A connection of its own for the bulk copy takes a pool of two.
    assert [one.bulk_loads for one in done] == [0 if pool_size == 1 else 2] * WORKERS
    assert beats[0] > 2
    main.publish(lease, Chunk(runs.rows(range(0)), mark=runs.mark(total)))
    main.release_lease(lease)
    assert engine.query("SELECT count(*) FROM TokenRecords") == [(total,)]
    assert engine.query("SELECT count(*) FROM TokenRecordStaging") == [(0,)]


def test_rows_of_dead_runs_are_removed_and_those_of_living_ones_stay(
    engine: SqliteEngine, opened: Callable[..., SqlTarget]
) -> None:
    store, lease = opened(), Lease(runs.SOURCE, str(uuid.uuid4()))
    columns = (
        "load_id, token_kind, record_key, row_digest, source_ip, node_name, db_path,"
        " db_last_modified"
    )

    def stage(load_id: int, source: str, ago: timedelta) -> None:
        at = (datetime.now(UTC) - ago).strftime("%Y-%m-%d %H:%M:%S.%f")
        engine.change(
            f"INSERT INTO TokenRecordStaging ({columns}, loaded_at)"
            f" VALUES ({load_id}, 'rbt', x'00', x'00', '{source}', 'n', 'p', '{at}', '{at}')"
        )

    hour = timedelta(hours=1)
    stage(1, runs.SOURCE, hour)  # before the lease is taken
    stage(2, "10.0.0.8", hour)  # another source's, who may still be at work
    stage(4, "10.0.0.8", timedelta(days=3))
    store.acquire_lease(lease, "elsewhere|-|1|1")
    stage(3, runs.SOURCE, timedelta(0))  # a worker's of this run
    store.prepare_load()
    left = [row[0] for row in engine.query("SELECT load_id FROM TokenRecordStaging ORDER BY 1")]
    assert left == [2, 3]
    store.release_lease(lease)
