"""Transactions and pledges move with the records of their database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rubix_token_sync.migrate import MigrateOptions, migrate
from rubix_token_sync.records.companions import COMPANIONS
from rubix_token_sync.targets.base import Chunk, Lease, TargetOptions
from rubix_token_sync.targets.registry import TargetAddress, open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.targets.companion_contract import stored, vanished
from tests.targets.companions_made import batch, keys
from tests.targets.records_made import DATABASE, SESSION, SOURCE, batch_of, mark


def test_from_target_to_target(
    target: TargetAddress, tmp_path: Path, opened: Callable[..., SqlTarget]
) -> None:
    """Live and vanished ones; the fingerprint goes along, so nothing is left to the next sync."""
    store = opened()
    store.ensure_schema()
    lease = Lease(SOURCE, SESSION)
    store.start_session(SESSION, SOURCE, "h", 1, "sync")
    store.acquire_lease(lease, "elsewhere|-|1|1")
    for table in COMPANIONS:
        chunk = Chunk(batch(table, range(12)), vanished=keys(table, range(2)), table=table.name)
        store.publish(lease, chunk)
    counts = {table.name: 10 for table in COMPANIONS}
    store.publish(lease, Chunk(batch_of(range(3)), mark=mark(3, companions=counts)))
    store.release_lease(lease)
    there = parse_target(f"sqlite:///{tmp_path}/there.db")
    assert migrate(MigrateOptions(target, there)).complete
    copy = open_target(there, TargetOptions(read_only=True))
    try:
        for table in COMPANIONS:
            assert stored(copy, table) == stored(store, table)
            assert len(stored(copy, table)) == 10
            assert vanished(copy, table) == 2
        (state,) = copy.database_states(SOURCE)
        assert (state.fingerprint, state.counts) == ("f1", {"TokenRecords": 3} | counts)
        assert copy.count_live([DATABASE])[DATABASE] == state.counts
    finally:
        copy.close()
