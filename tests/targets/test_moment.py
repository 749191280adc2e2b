"""One moment of a target: whoever writes meanwhile, several questions have one answer."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from rubix_token_sync.targets.base import Chunk, Lease
from rubix_token_sync.targets.sql.target import SqlTarget

from .records_made import batch_of


def test_what_is_written_meanwhile_is_not_seen(
    store: SqlTarget, lease: Lease, opened: Callable[..., SqlTarget]
) -> None:
    store.publish(lease, Chunk(batch_of(range(10))))
    reader = opened(read_only=True)
    count = sa.select(sa.func.count()).select_from(reader.tables.records)
    with reader.moment() as (conn, frozen):
        assert frozen
        assert conn.execute(count).scalar() == 10
        store.publish(lease, Chunk(batch_of(range(10, 20))))
        assert conn.execute(count).scalar() == 10
        batches = list(reader.all_records(conn))
        assert sum(len(batch) for batch in batches) == 10
        keys = [key for batch in batches for key in batch.column("record_key").to_pylist()]
        assert keys == sorted(keys)
    with reader.moment() as (conn, _):
        assert conn.execute(count).scalar() == 20
