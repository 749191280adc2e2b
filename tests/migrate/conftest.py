"""The targets of the store tests, and older systems to move from."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rubix_token_sync.targets.registry import TargetAddress, parse_target
from tests.targets.conftest import opened, target

from . import older_system

__all__ = ["older", "opened", "target"]

ANY_BYTES = "ENCODING 'SQL_ASCII' TEMPLATE template0"
"""A database that checks nothing: what came in as Latin-1 is in it as it was."""


@pytest.fixture
def source_url(fresh_postgres: Callable[..., str]) -> str:
    """An empty database, another one than the target."""
    return fresh_postgres()


@pytest.fixture
def older(fresh_postgres: Callable[..., str]) -> Callable[..., TargetAddress]:
    """Makes an older system's database with so many rows."""

    def make(count: int, *, latin1: bool = True, **options: object) -> TargetAddress:
        url = fresh_postgres(ANY_BYTES if latin1 else "")
        older_system.fill(url, count, latin1=latin1, **options)
        return parse_target(url)

    return make
