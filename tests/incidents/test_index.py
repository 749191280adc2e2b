"""Every incident has its tests, here or where the index says."""

from __future__ import annotations

import re
from pathlib import Path

from tests import incidents

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def test_every_number_has_its_tests() -> None:
    here = {int(path.name[5:7]) for path in HERE.glob("test_[0-9][0-9]_*.py")}
    lines = re.findall(r"^(\d+): (.+)$", incidents.__doc__ or "", re.MULTILINE)
    elsewhere = {int(number): files.split(", ") for number, files in lines}
    assert here | elsewhere.keys() == set(range(1, 49))
    assert not here & elsewhere.keys()
    for files in elsewhere.values():
        for file in files:
            assert "def test_" in (ROOT / file).read_text(encoding="utf-8"), file
