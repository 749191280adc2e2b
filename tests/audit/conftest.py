"""Small tables of token numbers: windows around every number that the tests ask for."""

from __future__ import annotations

import pytest

from rubix_token_sync.audit.authenticity import Ruling
from rubix_token_sync.audit.judge import Judge
from rubix_token_sync.audit.limits import Form, package_limits
from rubix_token_sync.audit.table_files import open_or_build
from rubix_token_sync.audit.token_numbers import Range, TableSpec, TokenTable
from tests.audit.real_nodes import RealNodes

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
