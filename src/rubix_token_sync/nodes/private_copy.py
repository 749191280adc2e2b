"""Private copies of databases that cannot be read where they are.

A copy lives in a directory of its own (mode 700) on the scratch disk.  As soon as
SQLite has its files open they are unlinked, so that nothing is left however the
run ends; for the moment before that, the directory is locked (flock(2)) by the
process that made it, and every later copy first removes directories that nobody
holds.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from typing import Final

from rubix_token_sync import failpoints
from rubix_token_sync.nodes.database_errors import failure, from_os_error
from rubix_token_sync.nodes.database_files import Files

__all__ = ["PrivateCopy", "sweep"]

_PREFIX: Final = "rubix-token-sync-"
_MARGIN_BYTES: Final = 32 * 2**20  # left free for others, and for SQLite's own needs
_CHUNK_BYTES: Final = 2**20


def sweep(scratch: str | None = None) -> int:
    """Remove private copies of processes that were killed; says how many."""
    removed = 0
    with os.scandir(scratch or tempfile.gettempdir()) as entries:
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
        scratch: directory for the copy; None takes the system's (TMPDIR).
        progress: called after each part.

    Raises:
        SourceError: ``no_scratch_space``, or an error of the operating system.
    """

    def __init__(
        self,
        files: Files,
        suffixes: Iterable[str],
        scratch: str | None,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._directory, self._lock = _locked_directory(scratch or tempfile.gettempdir())
        self.path = os.path.join(self._directory, "copy.db")
        try:
            _copy_files(files, tuple(suffixes), self.path, progress)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Unlink the files; whoever has them open goes on reading."""
        if self._lock >= 0:
            shutil.rmtree(self._directory, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def _locked_directory(scratch: str) -> tuple[str, int]:
    try:
        sweep(scratch)
        while True:
            path = tempfile.mkdtemp(prefix=_PREFIX, dir=scratch)  # mode 700
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink > 0:
                return path, fd
            os.close(fd)  # a sweep of another process came in between
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise failure(
                "no_scratch_space", f"The scratch directory {scratch} does not exist."
            ) from error
        raise from_os_error(error, f"make a directory in {scratch}") from error


def _copy_files(
    files: Files, suffixes: tuple[str, ...], target: str, progress: Callable[[], None]
) -> None:
    opened: list[int] = []
    try:
        sources = [("", files.descriptor)]
        for suffix in suffixes:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            opened.append(os.open(files.path + suffix, flags))
            sources.append((suffix, opened[-1]))
        sizes = [os.fstat(fd).st_size for _, fd in sources]
        _check_room(os.path.dirname(target), sum(sizes))
        for (suffix, fd), size in zip(sources, sizes, strict=True):
            failpoints.point("source.copy")
            _copy(fd, size, target + suffix, progress)
    except FileNotFoundError as error:
        raise failure("changed_while_reading", "A file went while it was copied.") from error
    except OSError as error:
        raise from_os_error(error, "copy the database") from error
    finally:
        for fd in opened:
            os.close(fd)


def _check_room(directory: str, needed: int) -> None:
    room = os.statvfs(directory)
    free = room.f_bavail * room.f_frsize
    if free < needed + _MARGIN_BYTES:
        raise failure(
            "no_scratch_space",
            f"A private copy needs {needed} bytes in {os.path.dirname(directory)}, "
            f"{free} are free.",
            needed=needed,
            free=free,
        )


def _copy(source: int, size: int, target: str, progress: Callable[[], None]) -> None:
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
