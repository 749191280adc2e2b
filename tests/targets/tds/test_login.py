"""What the first statement of a connection finds out."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from rubix_token_sync.errors import SchemaError
from rubix_token_sync.targets.sql.target import SqlTarget

from .engine import SqliteEngine
from .server import TdsServer


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_another_default_schema_is_refused_and_nothing_stays_open(
    engine: SqliteEngine, server: TdsServer, store: SqlTarget
) -> None:
    engine.schema = "guest"
    with pytest.raises(SchemaError) as told:
        store.schema_version()
    assert told.value.code == "default_schema"
    assert "WITH DEFAULT_SCHEMA = dbo" in told.value.remedy
    until(lambda: server.open == 0)
