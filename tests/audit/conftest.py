"""Targets with their tables, for audits."""

from __future__ import annotations

import shutil
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


@pytest.fixture(scope="session")
def empty_target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite target with its tables, to be copied: making them takes longer than an audit."""
    path = tmp_path_factory.mktemp("empty") / "target.db"
    _opened(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def embedded(empty_target: Path, tmp_path: Path) -> Iterator[SqlTarget]:
    """An empty SQLite target."""
    opened = _opened(f"sqlite:///{shutil.copy(empty_target, tmp_path / 'target.db')}")
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def store(request: pytest.FixtureRequest) -> SqlTarget:
    """An empty target of each kind that can be had here."""
    name = "embedded" if request.param == "sqlite" else "postgres_store"
    found: SqlTarget = request.getfixturevalue(name)
    return found


@pytest.fixture
def postgres_store(postgres_url: str) -> Iterator[SqlTarget]:
    """An empty PostgreSQL target."""
    opened = _opened(postgres_url)
    yield opened
    opened.close()
