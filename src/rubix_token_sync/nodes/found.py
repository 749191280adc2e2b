"""What the walks below all roots have found so far, in the words of their reports."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rubix_token_sync.node_files import bytes_of
from rubix_token_sync.nodes.skipped import HIDING, REMEDIES, SENTENCES, Skipped

__all__ = ["Found", "Home", "mount_points", "printable"]

_MOUNTINFO: Final = "/proc/self/mountinfo"


@dataclass(slots=True)
class Home:
    """What a directory hands on to what lies below it."""

    repository: str | None
    device: int | None = None
    """Of a directory named Rubix that is a mount of its own; None: that of the root."""


@dataclass(slots=True)
class Found:
    """Filled by the walks; none looks twice at what another has seen."""

    mounts: frozenset[bytes]
    nodes: list[tuple[str, str, Home]] = field(default_factory=list)
    skipped: set[Skipped] = field(default_factory=set)
    notes: set[Skipped] = field(default_factory=set)
    seen: set[tuple[int, int]] = field(default_factory=set)
    """Directories, by device and inode."""
    homes: set[tuple[int, int]] = field(default_factory=set)
    """Those of them that are named Rubix."""
    files: dict[tuple[int, int], str] = field(default_factory=dict)
    """Databases, the same."""
    directories: int = 0

    def skip(
        self,
        path: bytes,
        code: str,
        sentences: Mapping[str, str] = SENTENCES,
        **values: object,
    ) -> None:
        """Note that ``path`` was left out, by the sentence of ``code`` with ``values``."""
        sentence = sentences.get(code, SENTENCES[code]).format(**values)
        remedy = REMEDIES.get(code, "")
        self.skipped.add(Skipped(printable(path), code, sentence, code in HIDING, remedy))

    def fail(
        self,
        path: bytes,
        error: OSError,
        *,
        root: bool = False,
        sentences: Mapping[str, str] = SENTENCES,
    ) -> None:
        """Note why ``path`` cannot be read; what its owner has just removed is not a failure."""
        if isinstance(error, PermissionError):
            above, name = os.path.split(path)
            systems = name == b"lost+found" and above in (b"/", *self.mounts)
            self.skip(path, "lost_and_found" if systems else "access_denied", sentences)
        elif isinstance(error, FileNotFoundError | NotADirectoryError):
            if root:
                missing = isinstance(error, FileNotFoundError)
                self.skip(path, "no_such_directory" if missing else "not_a_directory")
        else:
            self.skip(path, "io_error", error=os.strerror(error.errno or errno.EIO))


def printable(path: str | bytes) -> str:
    """``path`` as text that any encoder takes: undecodable bytes become ``\\xNN``."""
    return bytes_of(path).decode("utf-8", "backslashreplace")


def mount_points(lines: Iterable[bytes] | None = None) -> frozenset[bytes]:
    """Mount points of this machine (proc(5), field 5 of mountinfo); empty elsewhere."""
    if lines is None:
        try:
            lines = Path(_MOUNTINFO).read_bytes().split(b"\n")
        except OSError:
            return frozenset()
    octal = re.compile(rb"\\([0-7]{3})")
    fields = (line.split(b" ") for line in lines)
    return frozenset(
        octal.sub(lambda m: bytes([int(m[1], 8)]), words[4]) for words in fields if len(words) > 4
    )
