"""Proof that a target holds what the generated older system says, told independently."""

from __future__ import annotations

import json
from collections import Counter

import sqlalchemy as sa

from rubix_token_sync.migrate import MigrationReport
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import TargetAddress, open_target

from .older_system import Expected, oracle


def is_exact(
    target: TargetAddress,
    report: MigrationReport,
    count: int,
    expected: dict[tuple[str, str], Expected] | None = None,
    **options: object,
) -> None:
    """Every record, every duplicate, every row set aside, every mark."""
    expected = expected or oracle(count, **options)
    store = open_target(target, TargetOptions(read_only=True))
    try:
        tables = store.tables
        records, aside = tables.records, tables.set_aside
        kept_query = sa.select(aside.c.original_id, aside.c.reason, aside.c.original_row).where(
            aside.c.migration_id == report.migration_id
        )
        columns = (
            "source_ip",
            "db_path",
            "token_id",
            "token_status",
            "ipfs_data",
            "ipfs_fetched",
            "ipfs_error",
        )
        stored_query = sa.select(*(records.c[name] for name in columns))
        running_query = sa.select(sa.func.count()).where(tables.sessions.c.status == "RUNNING")
        leases_query = sa.select(sa.func.count()).select_from(tables.leases)
        stored = store.read(lambda conn: conn.execute(stored_query).all())
        kept = store.read(lambda conn: conn.execute(kept_query).all())
        running = store.read(lambda conn: conn.execute(running_query).scalar_one())
        leases = store.read(lambda conn: conn.execute(leases_query).scalar_one())
        states = store.database_states(None)
    finally:
        store.close()

    assert (running, leases) == (0, 0)
    homes = Counter((row.source_ip, row.db_path) for row in stored)
    assert homes == {
        home: len(place.records) + place.without_id for home, place in expected.items()
    }
    assert {(s.source_ip, s.db_path): s.record_count for s in states} == dict(homes)
    assert {s.fingerprint for s in states} == {None}
    for row in stored:
        if row.token_id is None:
            continue
        wanted = expected[row.source_ip, row.db_path].records
        # Ids that are too long are cut in the record; they are no ids of content anyway.
        found = wanted.get(row.token_id)
        if found is None:
            assert len(row.token_id) == 500
            assert any(name.startswith(row.token_id) for name in wanted)
            continue
        assert row.token_status == found["token_status"][:50], row
        assert row.ipfs_data == found["content"], row
        assert bool(row.ipfs_fetched) is (found["content"] is not None)
        assert (row.ipfs_error is None) or not row.ipfs_fetched

    reasons = Counter(row.reason for row in kept)
    merged = sum(place.rows - place.without_id - len(place.records) for place in expected.values())
    assert reasons["duplicate"] == merged == report.total("duplicates_merged")
    lost = count - sum(place.rows for place in expected.values())
    assert reasons["refused"] == lost == report.rows_without_database
    ids = [row.original_id for row in kept]
    assert len(set(ids)) == len(ids)
    for row in kept:
        assert int(json.loads(row.original_row)["id"]) == row.original_id
    assert len(stored) + merged + lost == count
