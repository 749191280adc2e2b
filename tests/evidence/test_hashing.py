"""The process that hashes leaves: the same tree, and what it says when it cannot."""

from __future__ import annotations

import os
import signal
from hashlib import sha256
from pathlib import Path

import pytest

from rubix_token_sync.errors import EvidenceRefused, WorkerCrashed
from rubix_token_sync.evidence import form
from rubix_token_sync.evidence.hashing import hashing
from rubix_token_sync.evidence.tree import BLOCK, EMPTY_ROOT, BlockTree


@pytest.mark.parametrize("count", [0, 1, BLOCK, 3 * BLOCK + 7])
def test_the_tree_is_the_same_however_the_lines_come(count: int, tmp_path: Path) -> None:
    lines = [
        sha256(bytes([n % 256, n // 256])).hexdigest()[: n % 60].encode() for n in range(count)
    ]
    whole = b"".join(line + b"\n" for line in lines)
    tree = BlockTree()
    tree.extend(lines)
    with hashing() as process:
        for at in range(0, len(whole), 1_001):
            process.feed(memoryview(whole)[at : at + 1_001])
        fed = process.result()
    (tmp_path / "lines").write_bytes(whole)
    with open(tmp_path / "lines", "rb") as file, hashing(file) as process:
        read = process.result()
    offsets = form.block_offsets(lines, 0, 0)
    assert fed == read
    assert (fed.size, fed.root()) == (count, tree.root() if count else EMPTY_ROOT)
    assert fed.blocks == form.blocks_file(offsets, tree.all_blocks())


def test_a_line_that_does_not_end() -> None:
    with hashing() as process:
        process.feed(memoryview(b"one\ntwo"))
        with pytest.raises(EvidenceRefused) as refusal:
            process.result()
    assert refusal.value.code == "evidence_form"


def test_a_line_that_is_longer_than_any_leaf() -> None:
    with hashing() as process:
        for _ in range(form.LONGEST_LINE // 2**20 + 2):
            process.feed(memoryview(bytes(2**20)))
        with pytest.raises(EvidenceRefused) as refusal:
            process.result()
    assert refusal.value.code == "evidence_too_large"


def test_it_is_killed() -> None:
    with hashing() as process:
        os.kill(process._process.pid, signal.SIGKILL)
        for _ in range(3):
            process.feed(memoryview(b"line\n" * 100_000))
        with pytest.raises(WorkerCrashed) as crash:
            process.result()
    assert crash.value.code == "worker_killed"
    assert crash.value.remedy
