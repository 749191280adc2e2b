"""A directory of evidence as hostile input: only plain files with known names, and bounded ones."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import Final

from rubix_token_sync.errors import EvidenceRefused, SettingsError
from rubix_token_sync.evidence.form import NAMES, STAMPS

__all__ = ["EvidenceFiles", "opened_directory", "refused"]

_REMEDY: Final = "Do not rely on it; ask whoever signed it for the evidence again."
_MOST_AT_ONCE: Final = 64 * 2**20
_CHUNK: Final = 1 << 20


def refused(code: str, sentence: str) -> EvidenceRefused:
    """The error of evidence that is not as it was signed."""
    return EvidenceRefused(sentence, code=code, remedy=_REMEDY)


class EvidenceFiles:
    """The files of one directory, which is open: renaming it changes nothing."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def check_names(self) -> None:
        """Exactly the files of evidence are there, and those of a time stamp or none of them.

        Raises:
            EvidenceRefused: one is missing, or another one is there.
        """
        there = set(os.listdir(self._handle))
        if other := sorted(there - {*NAMES, *STAMPS}):
            raise refused("evidence_file_extra", f"{other[0]!r} does not belong to the evidence.")
        wanted = {*NAMES, *STAMPS} if there & set(STAMPS) else set(NAMES)
        if missing := sorted(wanted - there):
            raise refused("evidence_file_missing", f"{missing[0]} is missing from the evidence.")

    def has(self, name: str) -> bool:
        """Whether something of this name is there."""
        return name in os.listdir(self._handle)

    @contextmanager
    def open(self, name: str) -> Iterator[FileIO]:
        """One of the files.

        Raises:
            EvidenceRefused: it is not a plain file, or not there.
        """
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            handle = os.open(name, flags, dir_fd=self._handle)
        except OSError as error:
            raise refused(
                "evidence_not_plain",
                f"{name} cannot be read as a plain file: {error.strerror or error}.",
            ) from None
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise refused("evidence_not_plain", f"{name} is not a plain file.")
        with FileIO(handle, "rb") as file:
            yield file

    def read(self, name: str) -> bytes:
        """A small file.

        Raises:
            EvidenceRefused: it is not a plain file, or larger than such a file may be.
        """
        with self.open(name) as file:
            data = bytearray()
            while chunk := file.read(_CHUNK):
                data += chunk
                if len(data) > _MOST_AT_ONCE:
                    raise refused("evidence_too_large", f"{name} is larger than it may be.")
        return bytes(data)

    def digest(self, name: str) -> tuple[str, int]:
        """SHA-256 in hexadecimal digits, and size."""
        found, size = sha256(), 0
        with self.open(name) as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
                size += len(chunk)
        return found.hexdigest(), size


@contextmanager
def opened_directory(path: Path) -> Iterator[EvidenceFiles]:
    """
    Raises:
        SettingsError: there is no such directory.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be opened as a directory of evidence: {error.strerror or error}.",
            code="evidence_missing",
            remedy="Name a directory that `rubix-token-sync evidence create` made.",
        ) from error
    try:
        yield EvidenceFiles(handle)
    finally:
        os.close(handle)
