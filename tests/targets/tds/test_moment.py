"""One moment of a SQL Server: a snapshot where its owner allows them, and no claim where not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

import rubix_token_sync as rts
from rubix_token_sync.evidence import form
from rubix_token_sync.targets.base import Chunk, Lease
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.targets.records_made import SESSION, SOURCE, batch_of, mark, root_of_evidence

from .engine import SqliteEngine


@pytest.fixture
def lease(store: SqlTarget) -> Lease:
    lease = Lease(SOURCE, SESSION)
    store.start_session(SESSION, SOURCE, "host", 1, "sync")
    store.acquire_lease(lease, "elsewhere|-|1|1")
    return lease


@pytest.mark.parametrize("allowed", [True, False])
def test_a_snapshot_where_it_is_allowed(
    store: SqlTarget,
    lease: Lease,
    opened: Callable[..., SqlTarget],
    engine: SqliteEngine,
    allowed: bool,
) -> None:
    engine.snapshots = allowed
    store.publish(lease, Chunk(batch_of(range(10))))
    reader = opened(read_only=True, pool_size=1)
    count = sa.select(sa.func.count()).select_from(reader.tables.records)
    with reader.moment() as (conn, frozen):
        assert frozen is allowed
        assert conn.execute(count).scalar() == 10
        store.publish(lease, Chunk(batch_of(range(10, 20))))
        assert conn.execute(count).scalar() == (10 if allowed else 20)
    # The pool's connection is as it was: the next reader sees what is committed, always.
    with reader.view() as conn:
        assert conn.execute(count).scalar() == 20
        store.publish(lease, Chunk(batch_of(range(20, 25))))
        assert conn.execute(count).scalar() == 25


@pytest.mark.parametrize("allowed", [True, False])
def test_evidence_says_whether_it_was_one_moment(
    store: SqlTarget,
    lease: Lease,
    address: str,
    engine: SqliteEngine,
    tmp_path: Path,
    allowed: bool,
) -> None:
    engine.snapshots = allowed
    store.publish(lease, Chunk(batch_of(range(300)), mark=mark(300)))
    rts.make_evidence_key(tmp_path / "k")
    made = rts.create_evidence(tmp_path / "e", key=tmp_path / "k", target=address)
    assert made.one_moment is allowed
    assert made.checkpoint.root == root_of_evidence(batch_of(range(300)))
    done = rts.verify_evidence(tmp_path / "e", key=tmp_path / "k.pub")
    assert (done.checkpoint.size, done.one_moment) == (300, allowed)
    assert done.exit_code == (0 if allowed and done.complete else 1)
    manifest = json.loads((tmp_path / "e" / form.MANIFEST).read_bytes())
    assert manifest["predicate"]["target"]["kind"] == "mssql"
    assert "Password" not in json.dumps(manifest)
