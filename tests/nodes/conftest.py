"""Fixtures of the tests of source reading."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .databases import Writer


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where a test's node has its database."""
    path = tmp_path / "node1" / "Rubix" / "rubix.db"
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A scratch directory that must be empty at the end."""
    path = tmp_path / "scratch"
    path.mkdir()
    return path


@pytest.fixture
def writer() -> Iterator[Callable[..., Writer]]:
    """Starts writer processes; ends them."""
    started: list[Writer] = []

    def start(path: Path, *arguments: str) -> Writer:
        started.append(Writer(path, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.close()
