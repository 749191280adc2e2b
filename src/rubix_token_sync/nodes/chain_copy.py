"""A private, consistent copy of a chain directory (LevelDB) while its node may write to it.

A second process cannot open the directory, and opening it would write to it.  The node
(goleveldb) appends to the newest ``.log``; writes tables (``.ldb``) that never change once
they are listed; lists them by appending to the ``MANIFEST``, and only then removes the logs
and tables that are no longer needed.  So the order is:

1. read ``CURRENT``, and how long the manifest that it names is;
2. copy the logs, the newest first: of the newest one the beginning that is there, while
   all older ones are finished, so that together they are what was written up to a moment;
3. copy the tables, then the manifest up to the length seen;
4. look at ``CURRENT`` and the manifest again.  Unchanged: everything that the manifest
   names was there all the time, so the copy is the chains at the moment of step 2.
   Changed: begin again; tables that were copied are kept.

The write order matters to readers of rows too: a node writes a chain before its row.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Callable
from typing import Final

from rubix_token_sync import failpoints, node_files
from rubix_token_sync.nodes.database_errors import failure, from_os_error
from rubix_token_sync.nodes.private_copy import copy_bytes, locked_directory
from rubix_token_sync.scratch import Scratch

__all__ = ["ChainCopy", "directory_state"]

_CURRENT: Final = b"CURRENT"
_MANIFEST: Final = re.compile(rb"MANIFEST-[0-9]{6,12}")
_LOG: Final = re.compile(rb"[0-9]{6,12}\.log")
_TABLE: Final = re.compile(rb"[0-9]{6,12}\.(?:ldb|sst)")
_CURRENT_BYTES: Final = 64
_FILES: Final = 100_000  # of 2 MB each: 200 GB
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW

_Mark = tuple[bytes, int, int, int]
"""The manifest's name, inode, length and time: what changes when the set of files does."""


class ChainCopy:
    """A copy of one chain directory; to be made within bounded calls, and removed.

    Args:
        source: the chain directory.
        scratch: where copies may go.
        file_bytes: no file of the directory may be larger.
        copy_bytes: the copy may not be larger; None: as large as there is room.
        progress: called while it is made.

    Raises:
        SourceError: ``no_scratch_space``, ``chains_damaged``, ``too_large_value`` or an error
            of the operating system; ``changed_while_reading`` is transient: `refresh`.
        FileNotFoundError: there is no such directory, or nothing was ever written to it.
    """

    def __init__(
        self,
        source: bytes,
        scratch: Scratch,
        *,
        file_bytes: int,
        copy_bytes: int | None,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._source = source
        self._file_bytes = file_bytes
        self._copy_bytes = copy_bytes
        self._progress = progress
        self._copied: dict[bytes, tuple[int, int, int]] = {}
        self._lock = -1
        files = self._look()
        needed = self._needed(files)
        self._directory, self._lock = locked_directory(scratch.choose(needed))
        self.path = os.path.join(self._directory, "chains")
        self.work = os.path.join(self._directory, "work")
        """Further room beside the copy; goes when the copy goes."""
        try:
            os.mkdir(self.path, 0o700)
        except OSError as error:
            self.remove()
            raise from_os_error(error, "copy the token chains") from error

    def refresh(self) -> None:
        """Make the copy what the directory holds now; tables that it has are kept.

        Raises:
            SourceUnsettled: ``changed_while_reading``, the node wrote too much meanwhile.
        """
        try:
            failpoints.point("source.copy")
            before = self._mark()
            files = self._look()
            self._needed(files)
            kept = {name: seen for name, seen in self._copied.items() if _TABLE.fullmatch(name)}
            self._clear(kept)
            logs = sorted((name for name in files if _LOG.fullmatch(name)), key=_number)
            for name in reversed(logs):
                self._copy(name, 2**63)
            for name in sorted(name for name in files if _TABLE.fullmatch(name)):
                self._copy_table(name)
            manifest, _, length, _ = before
            self._copy(manifest, length)
            if self._mark() != before:
                raise failure("changed_while_reading", "The node rearranged its chains meanwhile.")
            self._write(_CURRENT, manifest + b"\n")
        except FileNotFoundError as error:
            raise failure(
                "changed_while_reading", "A file was removed while it was copied."
            ) from error
        except OSError as error:
            raise from_os_error(error, "copy the token chains") from error

    def forget(self) -> None:
        """Have the next `refresh` copy everything anew."""
        self._copied.clear()

    def remove(self) -> None:
        """Remove the copy."""
        if self._lock >= 0:
            shutil.rmtree(self._directory, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    def _look(self) -> dict[bytes, int]:
        """The directory's files that matter, with their lengths."""
        files: dict[bytes, int] = {}
        with node_files.scan(self._source) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                known = (pattern.fullmatch(name) for pattern in (_MANIFEST, _LOG, _TABLE))
                if name != _CURRENT and not any(known):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # the node removed it just now; what matters is looked at later
                if not stat.S_ISREG(status.st_mode):
                    raise failure("chains_damaged", "Something else stands in a file's place.")
                files[name] = status.st_size
                self._progress()
                if len(files) > _FILES:
                    raise failure("chains_damaged", "There are more files than a node makes.")
        if not files:
            raise FileNotFoundError(errno.ENOENT, "no chains were ever written")
        return files

    def _needed(self, files: dict[bytes, int]) -> int:
        """How many bytes the copy takes; opening it turns the logs into tables."""
        if max(files.values()) > self._file_bytes:
            raise failure("too_large_value", "A file of the token chains is too large.")
        logs = sum(size for name, size in files.items() if _LOG.fullmatch(name))
        needed = sum(files.values()) + logs
        if self._copy_bytes is not None and needed > self._copy_bytes:
            raise failure(
                "no_scratch_space",
                f"A copy of the token chains takes {needed:,} bytes, {self._copy_bytes:,} are "
                "allowed.",
                needed=needed,
            )
        return needed

    def _mark(self) -> _Mark:
        name = self._manifest()
        try:
            status = node_files.lstat(os.path.join(self._source, name))
        except FileNotFoundError:
            if self._manifest() == name:
                raise failure("chains_damaged", "The manifest is missing.") from None
            raise
        return name, status.st_ino, status.st_size, status.st_mtime_ns

    def _manifest(self) -> bytes:
        path = os.path.join(self._source, _CURRENT)
        try:
            text, _ = node_files.read_file(path, _CURRENT_BYTES, flags=os.O_NOFOLLOW)
        except FileNotFoundError:  # it is replaced in one step: a node's is always there
            raise failure("chains_damaged", "CURRENT is missing.") from None
        name = text.removesuffix(b"\n")
        if not _MANIFEST.fullmatch(name):
            raise failure("chains_damaged", "CURRENT does not name a manifest.")
        return name

    def _copy_table(self, name: bytes) -> None:
        try:
            self._copy(name, 2**63)
        except FileNotFoundError:
            # Not needed any more, or the manifest has changed and tells.
            return

    def _copy(self, name: bytes, length: int) -> None:
        source = node_files.open_handle(os.path.join(self._source, name), _FLAGS)
        try:
            status = os.fstat(source)
            if not stat.S_ISREG(status.st_mode):
                raise failure("chains_damaged", "Something else stands in a file's place.")
            if status.st_size > self._file_bytes:
                raise failure("too_large_value", "A file of the token chains is too large.")
            seen = status.st_ino, status.st_size, status.st_mtime_ns
            if self._copied.get(name) == seen:
                return
            target = os.path.join(self.path, os.fsdecode(name))
            copy_bytes(source, min(length, status.st_size), target, self._progress)
            self._copied[name] = seen
        finally:
            os.close(source)

    def _clear(self, kept: dict[bytes, tuple[int, int, int]]) -> None:
        """Remove what an earlier attempt, or LevelDB in the copy, has left."""
        fresh = self.path + ".new"
        os.mkdir(fresh, 0o700)
        for name in kept:
            os.rename(os.path.join(self.path, os.fsdecode(name)), _in(fresh, name))
        shutil.rmtree(self.path)
        os.rename(fresh, self.path)
        self._copied = kept

    def _write(self, name: bytes, text: bytes) -> None:
        path = os.path.join(self.path, os.fsdecode(name))
        with open(path, "xb") as file:
            file.write(text)


def directory_state(source: bytes) -> list[tuple[bytes, int, int, int]]:
    """Name, inode, length and time of what a chain directory holds; empty for no directory.

    Left out is what changes without a change of the chains: ``LOG``, ``LOCK``, backups.

    Raises:
        OSError: it cannot be read.
    """
    found = []
    try:
        with node_files.scan(source) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if _LOG.fullmatch(name) or _TABLE.fullmatch(name) or _MANIFEST.fullmatch(name):
                    status = entry.stat(follow_symlinks=False)
                    found.append((name, status.st_ino, status.st_size, status.st_mtime_ns))
    except FileNotFoundError:
        return []
    return sorted(found)


def _number(name: bytes) -> int:
    return int(name.partition(b".")[0])


def _in(directory: str, name: bytes) -> str:
    return os.path.join(directory, os.fsdecode(name))
