"""A few hostile fleets; ``fuzz_sources.py`` tries them for hours."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.chaos.door import Door
from tests.chaos.fuzz_sources import fuzz, try_fleet

_SECONDS = 30.0


def _seed() -> int:
    """Other fleets every day: the day is their seed."""
    return int(os.environ.get("RUBIX_TEST_FUZZ_SEED", int(time.time()) // 86_400 * 100_000))


@pytest.mark.timeout(300)
def test_a_hostile_fleet(door: Door, tmp_path: Path) -> None:
    try_fleet(door, tmp_path / "home", _seed())


@pytest.mark.long
@pytest.mark.timeout(600)
def test_hostile_fleets(door: Door, tmp_path: Path) -> None:
    fleets, records = fuzz(door, tmp_path / "home", _seed() + 1, _SECONDS)
    assert fleets >= 3
    assert records > 0
