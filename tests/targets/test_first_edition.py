"""A database file made by the first edition (commit 08fc5b3) goes on as if nothing had happened.

It holds the fleet ``--nodes 3 --tokens 20 --seed 7`` of `rubix_token_sync.testing`, at the path
below, for source 10.0.0.7: paths are part of keys and digests.
"""

from __future__ import annotations

import fcntl
import gzip
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from rubix_token_sync.ipfs.repository import repository_fingerprint
from rubix_token_sync.nodes.snapshot import fingerprint
from rubix_token_sync.runs.result import RunOptions, RunResult
from rubix_token_sync.runs.sync import sync
from rubix_token_sync.targets.base import SCHEMA_VERSION, TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.testing import FleetPlan, make_fleet

HOME = Path("/tmp/rubix-first-edition")
ARCHIVE = Path(__file__).parents[1] / "data" / "first_edition.db.gz"
KEYS = "SELECT token_id, record_key, row_digest, id FROM TokenRecords ORDER BY record_key"
ONLY_KEYS = "SELECT token_id, record_key, id FROM TokenRecords ORDER BY record_key"
CONTENT = "SELECT record_key, ipfs_data, ipfs_fetched FROM TokenRecords ORDER BY record_key"


@pytest.fixture
def file() -> Iterator[Path]:
    """The old database beside its fleet, which is made anew; one test process at a time."""
    with HOME.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(HOME, ignore_errors=True)
        HOME.mkdir(mode=0o700)
        make_fleet(HOME / "fleet", FleetPlan(nodes=3, tokens_per_node=20, seed=7))
        path = HOME / "t.db"
        path.write_bytes(gzip.decompress(ARCHIVE.read_bytes()))
        yield path
        shutil.rmtree(HOME)


def run(file: Path) -> RunResult:
    target = parse_target(f"sqlite:///{file}")
    return sync(RunOptions(roots=(str(HOME / "fleet"),), target=target, source="10.0.0.7"))


def rows(file: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(file) as conn:
        found = conn.execute(query).fetchall()
    conn.close()
    return found


def test_upgraded_in_place_every_database_is_read_once(file: Path) -> None:
    """Kinds and states of tokens are not known before that."""
    before = rows(file, ONLY_KEYS)
    content = rows(file, CONTENT)
    assert len(before) == 60
    assert rows(file, "SELECT version_num FROM alembic_version") == [("0001",)]
    with sqlite3.connect(file) as conn:  # the new copies of the files are the unchanged ones
        for (path,) in conn.execute("SELECT db_path FROM ProcessedDatabases").fetchall():
            conn.execute(
                "UPDATE ProcessedDatabases SET fingerprint = ?, repository_fingerprint = ?"
                " WHERE db_path = ?",
                (
                    fingerprint(path),
                    repository_fingerprint(str(Path(path).parents[1] / ".ipfs")),
                    path,
                ),
            )
    conn.close()
    result = run(file)
    assert (result.status, result.exit_code) == ("COMPLETED", 0)
    assert {one.status for one in result.databases} == {"processed"}
    assert sum(one.inserted + one.vanished for one in result.databases) == 0
    assert sum(one.updated for one in result.databases) == 60
    assert rows(file, ONLY_KEYS) == before
    assert rows(file, CONTENT) == content
    # No chain and no DID lies beside these databases: nothing says whose tokens they hold.
    assert rows(file, "SELECT DISTINCT token_kind, network FROM TokenRecords") == [("rbt", None)]
    assert rows(file, "SELECT version_num FROM alembic_version") == [(SCHEMA_VERSION,)]
    # Nothing is known of what it held before, so its history begins with this run.
    (first,) = rows(file, "SELECT number FROM SyncRuns")
    assert rows(file, "SELECT DISTINCT since_run FROM TokenRecords") == [first]
    assert rows(file, "SELECT count(*) FROM TokenRecordHistory") == [(0,)]
    known = rows(file, KEYS)
    again = run(file)
    assert {one.status for one in again.databases} == {"current"}
    assert rows(file, KEYS) == known


def test_a_lease_without_an_end_lasts_as_long_as_it_did(file: Path) -> None:
    target = open_target(parse_target(f"sqlite:///{file}"), TargetOptions())
    target.ensure_schema()
    lease = "INSERT INTO SyncLeases (source_ip, session_id, holder, acquired_at, heartbeat_at)"
    now = "strftime('%Y-%m-%d %H:%M:%f000', 'now', '{} seconds')"
    for source, age in (("fresh", -50), ("old", -70)):
        values = f"('{source}', '{source}', 'h|-|1|1', {now.format(age)}, {now.format(age)})"
        rows(file, f"{lease} VALUES {values}")
    assert [held.source for held in target.leases()] == ["fresh"]
    target.close()
