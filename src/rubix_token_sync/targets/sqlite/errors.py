"""SQLite's errors as ours, by their codes (https://www.sqlite.org/rescode.html)."""

from __future__ import annotations

import errno
import sqlite3
import stat
from pathlib import Path

import sqlalchemy as sa

from rubix_token_sync.errors import RecordRefused, SyncError, TargetRefused, TargetUnavailable

__all__ = ["DRIVER_ERRORS", "translate_error"]

DRIVER_ERRORS = (sqlite3.Error, OverflowError, UnicodeEncodeError, OSError)


def translate_error(error: BaseException, path: Path, *, read_only: bool) -> SyncError:
    """An error of the driver as one of ours; a local commit is never in doubt."""
    original = getattr(error, "orig", None) or error
    if isinstance(error, sa.exc.TimeoutError):
        return TargetUnavailable(
            f"All connections to {path} were busy for too long.",
            code="pool_exhausted",
            remedy="Raise CONNECTION_POOL_SIZE, or look for what holds the database up.",
        )
    code = getattr(original, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    context = {"sqlite": getattr(original, "sqlite_errorname", type(original).__name__)}
    where = str(path)
    taken = _in_its_place(path)
    if taken is not None:
        return TargetRefused(
            f"{where} is {taken}, not a file.",
            code="cannot_open",
            remedy="Name a file; a new one is made by the first sync.",
            context=context,
        )
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return TargetUnavailable(
            f"{where} is locked by another program.",
            code="locked",
            remedy="Close what holds it open, or try again.",
            context=context,
        )
    if primary == sqlite3.SQLITE_FULL or getattr(original, "errno", None) == errno.ENOSPC:
        return TargetRefused(
            f"The disk has no room left for {where}.",
            code="disk_full",
            remedy="Free disk space and run again; nothing stored is lost.",
            context=context,
        )
    if primary in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH):
        return RecordRefused(f"{original}", code="refused", context=context)
    if isinstance(original, (OverflowError, UnicodeEncodeError, sqlite3.InterfaceError)):
        return RecordRefused(f"{original}", code="refused", context=context)
    if isinstance(original, (FileNotFoundError, NotADirectoryError)):
        return TargetRefused(
            f"The directory of {where} does not exist.",
            code="cannot_open",
            remedy=f"Make it (mkdir -p '{path.parent}') or name another file.",
            context=context,
        )
    if isinstance(original, OSError):
        return TargetRefused(
            f"{where} cannot be made: {original.strerror or original}.",
            code="cannot_open",
            remedy="Check that you may write there.",
            context=context,
        )
    if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return TargetRefused(
            f"{where} cannot be opened{'' if read_only else ' for writing'}: {original}.",
            code="cannot_open",
            remedy="Check that the directory exists and that you may write there.",
            context=context,
        )
    if primary in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return TargetRefused(
            f"{where} is damaged or not a SQLite database: {original}.",
            code="damaged_target",
            remedy="Restore it from a backup, or move it away: a new run makes a new one.",
            context=context,
        )
    return TargetRefused(
        f"{where}: {original}",
        code="target_failed",
        remedy="`rubix-token-sync check` finds the step that fails; look at the disk as well.",
        context=context,
    )


def _in_its_place(path: Path) -> str | None:
    """What stands where the file should be; None: a file, or nothing."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return "a symbolic link that leads in a circle" if error.errno == errno.ELOOP else None
    if stat.S_ISDIR(mode):
        return "a directory"
    return None if stat.S_ISREG(mode) else "a pipe, a socket or a device"
