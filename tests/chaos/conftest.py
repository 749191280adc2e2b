"""Fixtures of the chaos tests: the door, and the field that faults are tried on."""

from __future__ import annotations

import pytest

from tests.chaos.battlefield import Battlefield
from tests.chaos.door import Door


@pytest.fixture(scope="session")
def battlefield(door: Door, tmp_path_factory: pytest.TempPathFactory) -> Battlefield:
    """The small fleet and what undisturbed runs make of it; only to be read."""
    return Battlefield.make(tmp_path_factory.mktemp("field"), door)
