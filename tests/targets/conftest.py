"""Every target that can be had here: SQLite and PostgreSQL always, mssql where it is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from rubix_token_sync.targets.base import Lease, TargetOptions
from rubix_token_sync.targets.mssql.target import SPELLING
from rubix_token_sync.targets.registry import TargetAddress, open_target, parse_target
from rubix_token_sync.targets.sql.history_view import VIEW
from rubix_token_sync.targets.sql.tables import build_tables
from rubix_token_sync.targets.sql.target import SqlTarget

from .records_made import SESSION, SOURCE

KINDS = ("sqlite", "postgresql", "mssql")


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> TargetAddress:
    """An empty target of each kind."""
    if request.param == "sqlite":
        return parse_target(f"sqlite:///{tmp_path}/target.db")
    if request.param == "postgresql":
        return parse_target(request.getfixturevalue("postgres_url"))
    named = named_server()
    if named is None:
        pytest.skip("RUBIX_TEST_MSSQL names no server")
    return named


def named_server() -> TargetAddress | None:
    """The database that RUBIX_TEST_MSSQL names, emptied."""
    address = os.environ.get("RUBIX_TEST_MSSQL")
    if not address:
        return None
    target = parse_target(address)
    _empty(target)
    return target


def _empty(target: TargetAddress) -> None:
    """Drop this program's tables in the database that is there for tests."""
    ours = {table.name for table in build_tables(SPELLING).all()} | {"alembic_version"}
    store = open_target(target, TargetOptions())
    try:
        with store.engine.begin() as conn:
            conn.exec_driver_sql(f"DROP VIEW IF EXISTS {VIEW}")
            there = sa.inspect(conn).get_table_names()
            for name in there:
                if name in ours or name.startswith("Sync"):
                    conn.exec_driver_sql(f"DROP TABLE [{name}]")
    finally:
        store.close()


@pytest.fixture
def opened(target: TargetAddress) -> Iterator[Callable[..., SqlTarget]]:
    """Opens the test's target, as often as wanted."""
    stores: list[SqlTarget] = []

    def open_it(**options: object) -> SqlTarget:
        stores.append(open_target(target, TargetOptions(**options)))  # type: ignore[arg-type]
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[..., SqlTarget]) -> SqlTarget:
    """A store with its tables, without any record."""
    store = opened()
    store.ensure_schema()
    return store


@pytest.fixture
def lease(store: SqlTarget) -> Lease:
    """The lease of `SOURCE`, held by `SESSION`."""
    lease = Lease(SOURCE, SESSION)
    store.start_session(SESSION, SOURCE, "host", 1, "sync")
    store.acquire_lease(lease, "elsewhere|-|1|1")
    return lease
