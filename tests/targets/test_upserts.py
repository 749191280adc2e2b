"""Microsoft's upsert experiment: 8 sessions, 20 writes each, one key; all are there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa

from rubix_token_sync.targets.base import Chunk, Lease
from rubix_token_sync.targets.sql.target import SqlTarget

from .records_made import DATABASE, batch, batch_of, record

SESSIONS, TIMES = 8, 20


def test_eight_sessions_on_one_key(store: SqlTarget, opened: Callable[..., SqlTarget]) -> None:
    """Every session holds another source's lease and writes the same record, each time anew.

    So each of the 160 writes changes something: one inserts, 159 update.
    """
    stores = [opened(attempts=20) for _ in range(SESSIONS)]
    leases = []
    for number in range(SESSIONS):
        lease = Lease(f"10.1.0.{number}", f"00000000-0000-4000-8000-{number:012d}")
        store.start_session(lease.session_id, lease.source, "host", number, "sync")
        store.acquire_lease(lease, "elsewhere|-|1|1")
        leases.append(lease)
    barrier = threading.Barrier(SESSIONS)

    def session(number: int) -> list[tuple[int, int]]:
        done = []
        barrier.wait()
        for time in range(TIMES):
            row = record(1, token_status=f"{number}.{time}")
            published = stores[number].publish(leases[number], Chunk(rows=batch(row)))
            done.append((published.inserted, published.updated))
        return done

    with ThreadPoolExecutor(SESSIONS) as pool:
        done = [pair for pairs in pool.map(session, range(SESSIONS)) for pair in pairs]
    assert len(done) == SESSIONS * TIMES
    assert sum(inserted for inserted, _ in done) == 1
    assert sum(updated for _, updated in done) == SESSIONS * TIMES - 1
    records = store.tables.records
    rows = store.read(lambda conn: conn.execute(sa.select(records)).all())
    assert len(rows) == 1
    assert rows[0].token_status.endswith(f".{TIMES - 1}")


def test_writers_of_one_run_side_by_side(store: SqlTarget, lease: Lease) -> None:
    """Two at once, overlapping records, one lease."""
    writers = 2

    def write(number: int) -> None:
        for start in range(0, 100, 20):
            numbers = range(start + number, start + number + 25)
            store.publish(lease, Chunk(rows=batch_of(numbers), bulk=bool(number % 2)))

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    last = 80 + writers - 1 + 25
    assert len(store.known_rows(DATABASE)[0]) == last * 24
