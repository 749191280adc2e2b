"""Thirty seconds of hostile fleets; ``fuzz_sources.py`` does it for longer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.chaos.door import Door
from tests.chaos.fuzz_sources import fuzz

_SECONDS = 30.0


@pytest.mark.timeout(300)
def test_hostile_fleets(door: Door, tmp_path: Path) -> None:
    """Other fleets every day, and the day is their seed."""
    seed = int(os.environ.get("RUBIX_TEST_FUZZ_SEED", int(time.time()) // 86_400 * 100_000))
    fleets, records = fuzz(door, tmp_path / "home", seed, _SECONDS)
    assert fleets >= 3
    assert records > 0
