"""Private copies of databases that cannot be read where they are.

A copy lives in a directory of its own (mode 700) on the scratch disk.  As soon as
SQLite has its files open they are unlinked, so that nothing is left however the
run ends; for the moment before that, the directory is locked (flock(2)) by the
process that made it, and every later copy first removes directories that nobody
holds.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from typing import Final

from rubix_token_sync import failpoints, node_files
from rubix_token_sync.nodes.database_errors import failure, from_os_error
from rubix_token_sync.nodes.database_files import JOURNAL, Files
from rubix_token_sync.scratch import Scratch

__all__ = ["PrivateCopy", "copy_bytes", "locked_directory", "sweep"]

_PREFIX: Final = "rubix-token-sync-"
_CHUNK_BYTES: Final = 2**20
_JOURNAL_MAGIC: Final = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"


def sweep(scratch: str) -> int:
    """Remove private copies of processes that were killed from a directory; gives their number."""
    removed = 0
    with os.scandir(scratch) as entries:
        candidates = [
            entry.path
            for entry in entries
            if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False)
        ]
    for path in candidates:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # somebody else's, or just removed
        try:
            if os.fstat(fd).st_uid != os.geteuid():
                continue
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
            removed += 1
        except (BlockingIOError, FileNotFoundError):
            continue  # its process lives, or another sweep was faster
        finally:
            os.close(fd)
    return removed


class PrivateCopy:
    """Copies of a database file and some of its companions.

    Args:
        files: the database, open (its descriptor is used: opening and closing the
            file once more would drop SQLite's locks).
        suffixes: which companions to copy too, e.g. ``("-wal",)``.
        scratch: where copies may go.
        progress: called after each part.

    Raises:
        SourceError: ``no_scratch_space``, or an error of the operating system.
    """

    def __init__(
        self,
        files: Files,
        suffixes: Iterable[str],
        scratch: Scratch,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        opened: list[int] = []
        self._lock = -1
        try:
            sources = [("", files.descriptor)]
            for suffix in suffixes:
                opened.append(_open_companion(files, suffix))
                sources.append((suffix, opened[-1]))
            sized = [(suffix, fd, os.fstat(fd).st_size) for suffix, fd in sources]
            place = scratch.choose(sum(size for _, _, size in sized))
            self._directory, self._lock = locked_directory(place)
            self.path = os.path.join(self._directory, "copy.db")
            for suffix, fd, size in sized:
                failpoints.point("source.copy")
                copy_bytes(fd, size, self.path + suffix, progress)
        except OSError as error:
            self.remove()
            raise from_os_error(error, "copy the database") from error
        except BaseException:
            self.remove()
            raise
        finally:
            for fd in opened:
                os.close(fd)

    def names_super_journal(self) -> bool:
        """Whether the copied journal names a super-journal.

        Recovery would open, and perhaps delete, whatever file is named there.  SQLite
        writes one only for transactions over several attached databases, which a node
        does not have.  (Format: readSuperJournal in SQLite's pager.c.)
        """
        with open(self.path + JOURNAL, "rb") as journal:
            size = journal.seek(0, 2)
            journal.seek(max(0, size - len(_JOURNAL_MAGIC)))
            return journal.read() == _JOURNAL_MAGIC

    def remove(self) -> None:
        """Unlink the files; whoever has them open goes on reading."""
        if self._lock >= 0:
            shutil.rmtree(self._directory, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def locked_directory(scratch: str) -> tuple[str, int]:
    """A new directory in ``scratch``, and the handle that keeps it from being swept.

    Raises:
        SourceError: it cannot be made.
    """
    try:
        sweep(scratch)
        while True:
            path = os.path.join(scratch, _PREFIX + secrets.token_hex(8))
            os.mkdir(path, 0o700)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink > 0:
                return path, fd
            os.close(fd)  # a sweep of another process came in between
    except OSError as error:
        raise from_os_error(error, f"make a directory in {scratch}") from error


def _open_companion(files: Files, suffix: str) -> int:
    try:
        return node_files.open_handle(files.companion(suffix), os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise failure("changed_while_reading", "A file was removed while it was copied.") from error


def copy_bytes(source: int, size: int, target: str, progress: Callable[[], None]) -> None:
    """Copy ``size`` bytes, not more: the file may be growing."""
    write = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        done = 0
        while done < size:
            sent = os.sendfile(write, source, done, min(size - done, _CHUNK_BYTES))
            if sent == 0:
                break
            done += sent
            progress()
    finally:
        os.close(write)
