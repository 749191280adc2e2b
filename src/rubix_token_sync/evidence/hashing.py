"""The tree above the leaves, by a process of its own: hashing many lines holds an interpreter.

The process reads lines from its standard input to the end and writes ``tree.blocks`` to its
standard output.  It loads little, so that it costs some hundredths of a second.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Final

from rubix_token_sync.errors import WorkerCrashed
from rubix_token_sync.evidence import form
from rubix_token_sync.evidence.directory import refused
from rubix_token_sync.evidence.tree import HASH_BYTES, BlockTree, root_of

__all__ = ["HashedLeaves", "LeafHashing", "hashing"]

_BOOT: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from rubix_token_sync.evidence.hashing import main; main()"
)
_CHUNK: Final = 2**20
_TOO_LONG, _NO_END = 3, 4
"""Exit codes."""


@dataclass(frozen=True)
class HashedLeaves:
    """The tree of all lines."""

    size: int
    blocks: bytes
    """tree.blocks, see `form.BLOCKS`."""

    def root(self) -> bytes:
        """The hash of the tree."""
        starts = range(form.BLOCK_BYTES - HASH_BYTES, len(self.blocks), form.BLOCK_BYTES)
        return root_of([self.blocks[at : at + HASH_BYTES] for at in starts])


class LeafHashing:
    """The process, from this side."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def feed(self, lines: memoryview) -> None:
        """Add lines, each with its end; whole ones or not."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # `result` says why
            self._process.stdin.write(lines)

    def result(self) -> HashedLeaves:
        """The tree, when all lines were given.

        Raises:
            EvidenceRefused: a line is longer than any leaf, or the last one does not end.
            WorkerCrashed: the process was killed.
        """
        told, _ = self._process.communicate()
        code = self._process.returncode
        if code == _TOO_LONG:
            raise refused("evidence_too_large", f"{form.LEAVES} has a line without an end.")
        if code == _NO_END:
            raise refused("evidence_form", f"{form.LEAVES} ends in the middle of a line.")
        if code != 0:
            raise WorkerCrashed(
                "The process that hashes the leaves ended abruptly (killed, or out of memory).",
                code="worker_killed",
                remedy="Check the system's log for the out-of-memory killer, and run again.",
            )
        return HashedLeaves(int.from_bytes(told[:8], "big"), told[8:])


@contextmanager
def hashing(lines: IO[bytes] | None = None) -> Iterator[LeafHashing]:
    """The process, over the ``lines`` of a file, or over those that it is fed."""
    path = json.dumps([entry for entry in sys.path if os.path.isabs(entry)])
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BOOT, path],
        stdin=subprocess.PIPE if lines is None else lines,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,  # Ctrl-C reaches the whole of a terminal's group
    ) as process:
        if process.stdin is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):  # more than this user may have: a smaller one does
                fcntl.fcntl(process.stdin, fcntl.F_SETPIPE_SZ, _CHUNK)
        try:
            yield LeafHashing(process)
        finally:
            process.kill()


def main() -> None:
    """Be that process."""
    tree, offsets, offset, rest = BlockTree(), list[int](), 0, b""
    while chunk := os.read(0, _CHUNK):
        lines = (rest + chunk).split(b"\n")
        size = len(rest) + len(chunk)
        rest = lines.pop()
        if len(rest) > form.LONGEST_LINE:
            sys.exit(_TOO_LONG)
        offsets += form.block_offsets(lines, tree.size, offset)
        offset += size - len(rest)
        tree.extend(lines)
    if rest:
        sys.exit(_NO_END)
    with suppress(BrokenPipeError):  # the reader has gone
        blocks = form.blocks_file(offsets, tree.all_blocks())
        sys.stdout.buffer.write(tree.size.to_bytes(8, "big") + blocks)
        sys.stdout.buffer.flush()
