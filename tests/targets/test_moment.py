"""One moment of a target: whoever writes meanwhile, several questions have one answer."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mssql_python
import psycopg
import pytest
import sqlalchemy as sa

from rubix_token_sync.audit.rules import RULES
from rubix_token_sync.evidence.create import Request, create
from rubix_token_sync.evidence.keys import make_key, open_signer
from rubix_token_sync.evidence.verify import verify
from rubix_token_sync.monitor.problems import Rules
from rubix_token_sync.targets.base import Chunk, Lease
from rubix_token_sync.targets.sql.target import SqlTarget

from .records_made import batch, batch_of, mark, record, root_of_evidence


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


def test_who_works_while_a_target_closes_ends_first_and_leaves_nothing_open(
    store: SqlTarget, opened: Callable[..., SqlTarget]
) -> None:
    reader = opened(read_only=True)
    count = sa.select(sa.func.count()).select_from(store.tables.records)
    with reader.moment() as (conn, _):
        driver: Any = conn.connection.dbapi_connection
        reader.close()
        assert conn.execute(count).scalar() == 0
    with pytest.raises((sqlite3.ProgrammingError, psycopg.OperationalError, mssql_python.Error)):
        driver.cursor().execute("SELECT 1")


def test_the_same_records_give_the_same_evidence(
    store: SqlTarget, lease: Lease, tmp_path: Path
) -> None:
    """Whatever the database does to bytes, times and texts on their way."""
    odd = record(300, did='a"b\\ \n é 😀', token_value="", ipfs_data=None, ipfs_fetched=False)
    rows = batch(*batch_of(range(300)).to_pylist(), odd)
    store.publish(lease, Chunk(rows, mark=mark(301)))
    key = make_key(tmp_path / "key")
    request = Request(
        tmp_path / "evidence", open_signer(tmp_path / "key"), Rules(), tuple(RULES), "1", "1"
    )
    made = create(store, request)
    assert made.checkpoint.root == root_of_evidence(rows)
    assert verify(tmp_path / "evidence", key).checkpoint == made.checkpoint
