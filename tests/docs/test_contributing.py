"""CONTRIBUTING.md: the walks name files that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
_PATH = re.compile(r"`((?:src|tests|docs|benchmarks|scripts|\.ci)/[^`\s<>]*)`")


def test_every_file_is_there() -> None:
    named = {path for path in _PATH.findall(TEXT) if "NAME" not in path}
    assert len(named) > 20
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_a_file_to_add_goes_into_a_package_that_is_there() -> None:
    added = {path for path in _PATH.findall(TEXT) if "NAME" in path}
    assert len(added) == 3
    for path in added:
        assert (ROOT / path.partition("NAME")[0] / "__init__.py").exists(), path


def test_each_walk_begins_in_one_place() -> None:
    walks = TEXT.partition("## Where to change what")[2].partition("\n## ")[0].split("\n### ")[1:]
    assert [walk.partition("\n")[0] for walk in walks] == [
        "A new column of the records",
        "A new table beside the records",
        "A new target",
        "A new way of getting content",
        "A new command",
        "A new error number",
        "A new rule",
        "A new view of the page",
    ]
    for walk in walks:
        steps = re.findall(r"^(\d)\. ", walk, re.MULTILINE)
        assert steps == [str(number) for number in range(1, len(steps) + 1)]
        assert _PATH.search(walk)
