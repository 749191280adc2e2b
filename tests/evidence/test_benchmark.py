"""Each step of the benchmark does what its name says, on a small target."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from benchmarks.evidence import _create, _hash, _prove, _verify

from tests.evidence.conftest import Signed


def test_its_steps(signed: Signed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(signed.target.removeprefix("sqlite:///"), tmp_path / "t.db")
    for name in ("key", "key.pub"):
        shutil.copy(signed.key.with_name(name), tmp_path / name)
    assert _create(tmp_path) == _verify(tmp_path) == 300
    assert _hash(tmp_path) == _prove(tmp_path) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["records"] for one in found] == [300, 1]
