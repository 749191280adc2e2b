"""Where the suite's processes keep what the program remembers, and their scratch files.

Tables of token numbers are built in STATE_DIRECTORY once, before the first test, so that no
verdict depends on the tests before.  Not named as the program's own scratch space, which is
cleaned.

Scratch files go into memory where there is enough of it: a test copies a fleet of 700 files,
which costs a disk ten times what it costs a tmpfs.  TMPDIR, where it is set, is obeyed.
"""

from __future__ import annotations

import os
import tempfile
from typing import Final

__all__ = ["STATE_DIRECTORY", "TABLES", "scratch_in_memory"]

_MEMORY: Final = "/dev/shm"
_ENOUGH: Final = 4 << 30
"""Bytes that must be free there: twice what the long forms were seen to use."""

STATE_DIRECTORY: Final = os.environ.setdefault(
    "STATE_DIRECTORY", os.path.join(tempfile.gettempdir(), f"tests-of-rubix-{os.getuid()}")
)
TABLES: Final = os.path.join(STATE_DIRECTORY, "tables")


def scratch_in_memory() -> None:
    """Let this process and its children put scratch files into memory, where there is enough."""
    if "TMPDIR" in os.environ:
        return
    try:
        there = os.statvfs(_MEMORY)
    except OSError:
        return
    runs_programs = not there.f_flag & os.ST_NOEXEC  # tests write programs that play the node's
    if runs_programs and there.f_bavail * there.f_frsize >= _ENOUGH and os.access(_MEMORY, os.W_OK):
        os.environ["TMPDIR"] = _MEMORY
        tempfile.tempdir = None  # it may have been asked for already
