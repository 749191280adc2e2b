"""What is SQLite's alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rubix_token_sync.errors import TargetError
from rubix_token_sync.targets.base import Chunk, Lease, TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from tests.targets.records_made import SESSION, SOURCE, batch_of, mark, record

_STEP = 100


def test_a_run_that_changed_little_does_not_gather_statistics_of_every_record(
    tmp_path: Path,
) -> None:
    store = open_target(parse_target(f"sqlite:///{tmp_path}/target.db"), TargetOptions())
    store.ensure_schema()
    lease = Lease(SOURCE, SESSION)
    store.start_session(SESSION, SOURCE, "host", 1, "sync")
    store.acquire_lease(lease, "elsewhere|-|1|1")
    store.prepare_load()
    store.publish(lease, Chunk(batch_of(range(3_000)), bulk=True, mark=mark(3_000), new=True))
    store.finish_load()
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    with store.engine.connect() as conn:
        driver = conn.connection.dbapi_connection
        assert driver is not None
        driver.set_progress_handler(step, _STEP)
        (stat,) = driver.execute(
            "SELECT stat FROM sqlite_stat1 WHERE idx = 'ix_tokenrecords_source_ip'"
        ).fetchone()
    assert stat == "3000 3000"  # all of one source: no use to look one up
    changed = batch_of([5], token_status="9", ipfs_data=record(5)["ipfs_data"])
    store.publish(lease, Chunk(changed))
    before = steps
    store.finish_load()
    assert (steps - before) * _STEP < 30_000  # operations of SQLite's machine; all take 177,000
    store.close()


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("there", ["nothing", "another"])
def test_a_file_that_nobody_else_sees_any_more_is_not_used(
    tmp_path: Path, read_only: bool, there: str
) -> None:
    """An open connection would go on with it: reads of what was, writes in vain."""
    file = tmp_path / "target.db"
    first = open_target(parse_target(f"sqlite:///{file}"), TargetOptions())
    first.ensure_schema()
    first.close()
    store = open_target(parse_target(f"sqlite:///{file}"), TargetOptions(read_only=read_only))
    assert store.leases() == []
    file.rename(tmp_path / "moved.db")
    if there == "another":
        with closing(sqlite3.connect(file)) as db, db:
            db.execute("CREATE TABLE theirs (x)")
    with pytest.raises(TargetError):
        store.leases()
    if not read_only:
        with pytest.raises(TargetError):
            store.acquire_lease(Lease(SOURCE, SESSION), "elsewhere|-|1|1")
    assert file.exists() == (there == "another")
    file.unlink(missing_ok=True)
    (tmp_path / "moved.db").rename(file)
    assert store.leases() == []
    store.close()
