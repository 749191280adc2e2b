"""Small honest objects for the tests of sync: states, nodes, jobs, batches."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from rubix_token_sync.ipfs.fetch import ContentOptions
from rubix_token_sync.nodes.discovery import Node
from rubix_token_sync.records.schema import RECORD_SCHEMA, database_key, record_key
from rubix_token_sync.runs.jobs import Job, WorkerContext
from rubix_token_sync.targets.base import DatabaseState, Lease, TargetOptions
from rubix_token_sync.targets.registry import parse_target
from rubix_token_sync.testing import create_database, whole_token, write_block

SOURCE = "10.0.0.4"
NOW = datetime(2025, 1, 15, 12)


def make_node(directory: Path, rows: int = 0, **how: Any) -> Node:
    """A node with ``rows`` whole tokens, all of their content in its repository."""
    repository = directory / ".ipfs"
    tokens = [write_block(repository, whole_token(1, number)) for number in range(rows)]
    if not rows:
        (repository / "blocks").mkdir(parents=True)
    create_database(
        directory / "Rubix" / "rubix.db",
        [(token, "", 1.0, "did", 0, "", "", 0) for token in tokens],
        **how,
    )
    return Node(str(directory / "Rubix" / "rubix.db"), directory.name, str(repository))


def make_job(node: Node, number: int = 0, **changes: Any) -> Job:
    job = Job(number, SOURCE, node, database_key(SOURCE, node.db_path), read_known=False,
              ask_target=False)  # fmt: skip
    return replace(job, **changes)


def make_context(
    target: Path | None = None, batch_size: int = 100, lease: Lease | None = None, **how: Any
) -> WorkerContext:
    return WorkerContext(
        None if target is None else parse_target(f"sqlite:///{target}"),
        TargetOptions(attempts=1, read_only=lease is None, batch_size=batch_size, **how),
        ContentOptions(workers=1, ways=("blockstore",)),
        lease,
    )


def make_state(node: Node, **changes: Any) -> DatabaseState:
    """What a target says of a node that was synced an hour ago and lacks nothing."""
    state = DatabaseState(
        database_key=database_key(SOURCE, node.db_path),
        source_ip=SOURCE,
        node_name=node.name,
        db_path=node.db_path,
        ipfs_path=node.repository,
        fingerprint="as it was",
        repository_fingerprint="repository as it was",
        content_checked_at=NOW - timedelta(hours=1),
        last_modified=NOW,
        last_processed=NOW,
        record_count=100,
        ipfs_success_count=100,
        ipfs_fail_count=0,
        validation_error_count=0,
        rejected_count=0,
        processing_duration_seconds=1.0,
    )
    return replace(state, **changes)


def make_records(job: Job, start: int, count: int, **values: Any) -> pa.RecordBatch:
    """Finished records of a job's database, tokens ``start`` and following."""
    rows = [
        {
            "record_key": record_key(job.database_key, f"token {number}"),
            "row_digest": number.to_bytes(16, "big"),
            "source_ip": job.source,
            "node_name": job.node.name,
            "token_id": f"token {number}",
            "db_path": job.node.db_path,
            "ipfs_data": "x",
            "ipfs_fetched": True,
            "db_last_modified": NOW,
            **values,
        }
        for number in range(start, start + count)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=RECORD_SCHEMA)
