"""One small fleet, synced and signed once a session; every test that forges works on a copy."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import rubix_token_sync as rts
from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.cli.conftest import clean_environment, run
from tests.state import STATE_DIRECTORY

__all__ = ["clean_environment", "run"]

SOURCE = "10.0.0.4"
PLAN = FleetPlan(nodes=2, tokens_per_node=150, absent=0.1, shared=0.1)


@dataclass(frozen=True)
class Signed:
    """Evidence, with what it was made of."""

    fleet: Path
    target: str
    key: Path
    public: Path
    directory: Path
    other_key: Path
    other: Path
    """Evidence of another run, by the same key: it names ``directory`` as the one before."""


@pytest.fixture(scope="session")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """Some 300 records: more than one block of the tree; only to be read."""
    place = tmp_path_factory.mktemp("evidence")
    fleet, target = place / "fleet", f"sqlite:///{place}/target.db"
    make_fleet(fleet, PLAN)
    result = rts.sync(fleet, target=target, source_ip=SOURCE, state_directory=STATE_DIRECTORY)
    assert result.ok
    key, other_key = place / "key", place / "other"
    rts.make_evidence_key(key)
    rts.make_evidence_key(other_key)
    first, second = place / "first", place / "second"
    rts.create_evidence(first, key=key, target=target)
    rts.create_evidence(second, key=key, target=target, previous=first)
    return Signed(fleet, target, key, place / "key.pub", first, other_key, second)


@pytest.fixture
def copy(signed: Signed, tmp_path: Path) -> Path:
    """A directory of evidence to be changed."""
    return shutil.copytree(signed.directory, tmp_path / "evidence")
