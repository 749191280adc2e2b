"""Targets with their tables, for audits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget


def _opened(address: str) -> SqlTarget:
    store = open_target(parse_target(address), TargetOptions(wait_factor=0.01))
    store.ensure_schema()
    return store


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlTarget]:
    """An empty target of each kind that can be had here."""
    if request.param == "sqlite":
        address = f"sqlite:///{tmp_path}/target.db"
    else:
        address = request.getfixturevalue("postgres_url")
    opened = _opened(address)
    yield opened
    opened.close()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[SqlTarget]:
    """An empty SQLite target."""
    opened = _opened(f"sqlite:///{tmp_path}/target.db")
    yield opened
    opened.close()


@pytest.fixture
def postgres_store(postgres_url: str) -> Iterator[SqlTarget]:
    """An empty PostgreSQL target."""
    opened = _opened(postgres_url)
    yield opened
    opened.close()
