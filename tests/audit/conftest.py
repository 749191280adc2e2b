"""Targets with their tables; small tables of token numbers around each that is asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rubix_token_sync.audit.authenticity import Ruling
from rubix_token_sync.audit.judge import Judge
from rubix_token_sync.audit.limits import Form, package_limits
from rubix_token_sync.audit.table_files import open_or_build
from rubix_token_sync.audit.token_numbers import Range, TableSpec, TokenTable
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import open_target, parse_target
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.audit.real_nodes import RealNodes
from tests.targets.conftest import named_server

LIMITS = package_limits()
EDGES = (0, 1_423_543, 2_188_563, 2_303_750, 2_425_000, 4_300_000, 5_000_000)
AROUND = 12


def windows(highest: int) -> list[tuple[int, int]]:
    """Numbers around each edge, and around the highest one."""
    found: list[tuple[int, int]] = []
    for edge in sorted({*(edge for edge in EDGES if edge < highest), highest}):
        first = max(edge - AROUND, found[-1][1] + 1 if found else 0)
        found.append((first, edge + AROUND))
    return found


def small_numbers() -> TableSpec:
    spans = {span for level in LIMITS.levels for span in windows(LIMITS.highest(level))}
    wanted = sorted({number for first, last in spans for number in range(first, last + 1)})
    ranges, first = [], wanted[0]
    for number, following in zip(wanted, [*wanted[1:], -1], strict=True):
        if following != number + 1:
            ranges.append(Range(0, Form.THREE_DIGITS, first, number))
            first = following
    return TableSpec("numbers", LIMITS.version, tuple(ranges))


def small_ids() -> TableSpec:
    """Every level in every form that is written, up to the limits themselves."""
    ranges = []
    for level in LIMITS.levels:
        for form in Form:
            if form.digits == 2 and level != 1:
                continue
            highest = LIMITS.highest(level)
            for first, last in windows(highest):
                ranges.append(Range(level, form, first, min(last, highest)))
    return TableSpec("ids", LIMITS.version, tuple(ranges))


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[TokenTable, TokenTable]:
    directory = str(tmp_path_factory.mktemp("tables"))
    return open_or_build(directory, small_numbers()), open_or_build(directory, small_ids())


@pytest.fixture(scope="session")
def judge(tables: tuple[TokenTable, TokenTable]) -> Judge:
    """All sources must agree."""
    return Judge(Ruling(LIMITS), *tables)


@pytest.fixture(scope="session")
def nodes() -> RealNodes:
    """Read once: two seconds."""
    return RealNodes()


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


@pytest.fixture
def server_store() -> Iterator[SqlTarget]:
    """An empty target on the server that RUBIX_TEST_MSSQL names."""
    if named_server() is None:
        pytest.skip("RUBIX_TEST_MSSQL names no server")
    opened = _opened(os.environ["RUBIX_TEST_MSSQL"])
    yield opened
    opened.close()
