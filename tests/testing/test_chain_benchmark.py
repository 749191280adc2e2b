"""The benchmark of token chains measures chains that are all read and all right."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.chains import make, read

from rubix_token_sync.installation import LEVELDB

pytest.importorskip(LEVELDB)


def test_what_it_makes_is_read_whole(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    tokens, signatures, seconds, largest = read(make(tmp_path, 3, 1_000), str(scratch))
    assert tokens == 1_000
    assert signatures == 1_000 + 10 * (1 + 1 + 5 + 5)
    assert seconds > 0
    assert largest > 1
