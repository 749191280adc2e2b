"""Targets on a real server, where RUBIX_TEST_MSSQL names one (its tables are dropped)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.mssql.target import SPELLING
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sql.history_view import VIEW
from rubix_token_sync.targets.sql.tables import build_tables
from rubix_token_sync.targets.sql.target import SqlTarget


@pytest.fixture
def address() -> str:
    """The connection string of an empty database of a real server."""
    text = os.environ.get("RUBIX_TEST_MSSQL")
    if not text:
        pytest.skip("RUBIX_TEST_MSSQL names no server")
    store = open_target(parse_target(text), TargetOptions())
    ours = {table.name for table in build_tables(SPELLING).all()} | {"alembic_version"}
    try:
        with store.engine.begin() as conn:
            conn.exec_driver_sql(f"DROP VIEW IF EXISTS {VIEW}")
            for name in sa.inspect(conn).get_table_names():
                if name in ours:
                    conn.exec_driver_sql(f"DROP TABLE [{name}]")
    finally:
        store.close()
    return text


@pytest.fixture
def opened(address: str) -> Iterator[Callable[..., SqlTarget]]:
    """Opens the test's target, or another address, as often as wanted."""
    stores: list[SqlTarget] = []

    def open_it(text: str = address, **options: object) -> SqlTarget:
        stores.append(open_target(parse_target(text), TargetOptions(**options)))  # type: ignore[arg-type]
        return stores[-1]

    yield open_it
    for store in stores:
        store.close()
