"""A small run against a store, from session to release; also as a program to be killed.

As a program: the target's address comes on standard input, the fault by environment.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from rubix_token_sync.process_identity import own_holder
from rubix_token_sync.targets.base import Chunk, Lease, SessionTotals, TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.targets.records_made import DATABASE, SESSION, SOURCE, batch, batch_of, mark, record

KEPT = 60


def run(store: SqlTarget, session: str = SESSION) -> None:
    """Insert, update and let vanish; afterwards `KEPT` records live and are marked."""
    store.ensure_schema()
    lease = Lease(SOURCE, session)
    store.acquire_lease(lease, own_holder())
    store.start_session(session, SOURCE, "host", 1, "sync")
    store.database_states(SOURCE)
    store.prepare_load()
    store.known_rows(DATABASE)
    store.publish(lease, Chunk(rows=batch_of(range(60)), bulk=True, new=True))
    store.heartbeat(lease, SessionTotals(total_records_processed=60))
    more = [record(n, token_status="4") for n in range(30, 65)]
    gone = b"".join(record(n)["record_key"] for n in range(60, 65))
    store.publish(lease, Chunk(rows=batch(*more)))
    store.publish(lease, Chunk(rows=batch_of([]), vanished=gone, mark=mark(KEPT)))
    store.finish_load()
    store.finish_session(lease, "COMPLETED", SessionTotals(total_records_processed=95), None)


if __name__ == "__main__":
    opened = open_target(parse_target(sys.stdin.readline().strip()), TargetOptions(wait_factor=0.0))
    run(opened, sys.argv[1])
    opened.close()
