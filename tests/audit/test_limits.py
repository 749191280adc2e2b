"""The limits of each source, and that a file of limits is refused where it is not one."""

from __future__ import annotations

import csv
import itertools
import json
from importlib.resources import files
from typing import Any

import pytest

from rubix_token_sync.audit.limits import MAX_NUMBER, Form, package_limits, parse_limits

LIMITS = package_limits()


def package_json() -> dict[str, Any]:
    text = files("rubix_token_sync.audit").joinpath("limits.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def test_the_node_softwares_limits_are_the_table_the_fleets_are_made_from() -> None:
    text = files("rubix_token_sync.testing").joinpath("token_levels.csv").read_text("ascii")
    table = [int(row["limit"]) for row in csv.DictReader(text.splitlines())]
    assert list(LIMITS.source("node-2024-08").limits) == table
    older = [*table[:3], 2_303_750, *table[4:]]
    assert list(LIMITS.source("node-2023-02").limits) == older
    assert list(LIMITS.source("token-hash-generator").limits) == older


def test_from_level_2_to_59_each_limit_is_095_times_the_one_before() -> None:
    limits = LIMITS.source("node-2023-02").limits
    for before, after in itertools.pairwise(limits[2:60]):
        assert before is not None
        assert after is not None
        assert abs(after - before * 0.95) <= 1


@pytest.mark.parametrize(
    ("name", "level", "last"),
    [
        ("node-2023-02", 1, 4_999_999),
        ("node-2023-02", 3, 2_303_749),
        ("node-2024-08", 3, 2_188_562),
        ("token-hash-generator", 1, 5_000_000),
        ("token-hash-generator", 0, -1),
        ("rubix-token-hash-generator", 1, 4_300_000),
        ("rubix-token-hash-generator", 4, 2_188_563),
        ("rubix-token-hash-generator", 5, -1),
        ("node-2026", 1, 4_299_999),
        ("node-2026", 2, None),
        ("node-2024-08", 78, 17_601),
        ("node-2024-08", 79, -1),
        ("node-2024-08", 999, -1),
    ],
)
def test_the_last_number(name: str, level: int, last: int | None) -> None:
    source = LIMITS.source(name)
    assert source.last(level) == last
    if last is None:
        assert source.accepts(level, 5, Form.THREE_DIGITS) is None
    else:
        assert source.accepts(level, last, Form.THREE_DIGITS) is (last >= 0)
        assert source.accepts(level, last + 1, Form.THREE_DIGITS) is False


def test_every_level_and_the_highest_number_of_each() -> None:
    assert LIMITS.levels == tuple(range(1, 79))
    assert LIMITS.highest(1) == 5_000_000
    assert LIMITS.highest(3) == 2_303_750
    assert LIMITS.highest(0) == LIMITS.highest(79) == -1


def test_every_source_fits_its_column_and_says_where_it_is_from() -> None:
    for source in LIMITS.sources:
        assert len(source.name) <= 50
        assert source.title
        assert source.origin


@pytest.mark.parametrize(
    "change",
    [
        {"version": "../../etc"},
        {"version": ""},
        {"version": 7},
        {"sources": []},
        {"sources": {}},
        {"sources": ["one"]},
    ],
)
def test_a_file_that_is_not_one_of_limits(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"limits"):
        parse_limits(json.dumps(package_json() | change))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "x" * 51},
        {"name": ""},
        {"name": "größe"},
        {"forms": ["one_digit"]},
        {"other_levels": "perhaps"},
        {"lowest_number": -1},
        {"limits": [0, MAX_NUMBER + 1]},
        {"limits": [0, 1.5]},
        {"limits": [0, True]},
        {"limits": [0] * 128},
        {"limits": None},
    ],
)
def test_a_source_that_is_not_one(change: dict[str, Any]) -> None:
    data = package_json()
    data["sources"][0] |= change
    with pytest.raises(ValueError, match=r"."):
        parse_limits(json.dumps(data))


def test_two_sources_of_one_name() -> None:
    data = package_json()
    data["sources"].append(data["sources"][0])
    with pytest.raises(ValueError, match="name of its own"):
        parse_limits(json.dumps(data))
