"""One run over the fleet, its target and its report, shared by the tests of reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rubix_token_sync import log
from rubix_token_sync.cli import _run


class Run(NamedTuple):
    """A run that is over."""

    target: Path
    file: Path
    report: dict[str, Any]


@pytest.fixture(scope="session")
def synced(unpacked_fleet: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The fleet, synced once into an embedded store."""
    place = tmp_path_factory.mktemp("report")
    target = place / "target.db"
    code = _run(
        ["sync", str(unpacked_fleet), "--target", f"sqlite:///{target}", "--source-ip", "vm1",
         "--report", str(place / "reports"), "--quiet", "--no-progress"]
    )  # fmt: skip
    log.tear_down()
    assert code == 1
    (file,) = (place / "reports").glob("*.json")
    return Run(target, file, json.loads(file.read_text(encoding="utf-8")))
