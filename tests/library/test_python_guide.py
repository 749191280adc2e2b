"""docs/PYTHON.md: every example runs, in order, in one directory."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.testing import FleetPlan, make_fleet

GUIDE = Path(__file__).parents[2] / "docs" / "PYTHON.md"
BLOCKS = re.findall(r"^```python ?(\w*)\n(.*?)^```", GUIDE.read_text("utf-8"), re.M | re.S)


def test_the_guide_has_examples_of_all_three_libraries() -> None:
    assert {name for name, _ in BLOCKS} == {"", "pandas", "polars", "duckdb"}
    assert len(BLOCKS) > 8


@pytest.mark.parametrize("library", ["", "pandas", "polars", "duckdb"])
def test_every_example_runs(
    library: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if library and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install {library}")
    make_fleet(tmp_path / "fleet", FleetPlan(nodes=2, tokens_per_node=50, absent=0.1))
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "guide"}
    for name, block in BLOCKS:
        if name in ("", library):
            exec(compile(block, f"PYTHON.md ({name or 'python'})", "exec"), namespace)
    assert "node001 processed 50" in capsys.readouterr().out
