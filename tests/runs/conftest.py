"""A small fleet and a target of its own for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.audit.judging import JudgeOptions
from rubix_token_sync.ipfs.fetch import ContentOptions
from rubix_token_sync.runs.result import RunOptions
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.registry import parse_target
from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.state import TABLES

NODES = 3
TOKENS = 80


@pytest.fixture(scope="session")
def made_fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three nodes; one token in ten has no content; only to be read."""
    directory = tmp_path_factory.mktemp("made") / "fleet"
    make_fleet(directory, FleetPlan(nodes=NODES, tokens_per_node=TOKENS, absent=0.1))
    return directory


@pytest.fixture
def small_fleet(made_fleet: Path, tmp_path: Path) -> Path:
    """A private copy of it."""
    return shutil.copytree(made_fleet, tmp_path / "fleet")


@pytest.fixture
def target_file(tmp_path: Path) -> Path:
    return tmp_path / "target" / "tokens.db"


def run_options(fleet: Path, target_file: Path, **changes: Any) -> RunOptions:
    """Options of a run over a fleet into a file, in threads; changed as told."""
    values: dict[str, Any] = {
        "roots": (str(fleet),),
        "source": "10.0.0.4",
        "target": parse_target(f"sqlite:///{target_file}"),
        "store": TargetOptions(batch_size=20, bulk_insert_size=50, attempts=1),
        "content": ContentOptions(workers=1, ways=("blockstore",)),
        "processes": 0,
        "judge": JudgeOptions(TABLES),
    }
    return RunOptions(**(values | changes))


@pytest.fixture
def options(small_fleet: Path, target_file: Path) -> Callable[..., RunOptions]:
    """Makes options of a run over the small fleet into the target."""
    target_file.parent.mkdir(exist_ok=True)
    return partial(run_options, small_fleet, target_file)
