"""What can go wrong with one node's database, as codes: the only place that
translates errors of SQLite and of the operating system into `SourceError`.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from typing import Any, Final

from rubix_token_sync.errors import SourceError, SourceUnsettled
from rubix_token_sync.node_files import STALLED_REMEDY
from rubix_token_sync.scratch import NO_SCRATCH_REMEDY

__all__ = ["REMEDIES", "failure", "from_os_error", "from_sqlite_error"]

REMEDIES: Final = {
    "access_denied": "Give the user that runs the sync read access to the file and its directory.",
    "busy": "The node or another program held the database all the time; the next run tries again. "
    "If that repeats, close the program that holds it.",
    "chains_damaged": "Stop the node, keep a copy of the directory, and let the node rebuild its "
    "token chains; the records of its tokens are not affected.",
    "changed_while_reading": "The node wrote meanwhile; it is read again.",
    "corrupt": "Check it with `PRAGMA integrity_check`: `REINDEX` repairs an index; otherwise "
    "restore the file from a backup.",
    "empty_file": "Start the node if it never ran; otherwise restore the file from a backup.",
    "io_error": "Check the disk and the mount.",
    "no_scratch_space": NO_SCRATCH_REMEDY,
    "no_such_file": "The node was moved or removed.",
    "no_tokens_table": "Start the node once, so that it creates its tables; if this is not a "
    "node's database, move it out of the directory Rubix.",
    "not_a_database": "Restore it from a backup; if it is not a node's database, move it out of "
    "the directory Rubix.",
    "not_a_file": "Put a regular file in its place, or remove what stands there.",
    "not_a_table": "Restore the node's database: what a view or virtual table says is not stored "
    "anywhere, so only a real table is read.",
    "stalled": STALLED_REMEDY,
    "too_large_value": "No real token has such a value: remove the row, or restore the database "
    "from a backup.",
    "too_many_files": "Raise the limit of open files (ulimit -n) or use fewer workers.",
    "took_too_long": "The file is built or damaged in such a way that reading it does not end: "
    "restore it from a backup.",
    "unfinished_transaction": "Start the node once, so that it recovers its database.",
}
"""Every code a `SourceError` of this package can have, with what to do about it."""

_TRANSIENT: Final = frozenset({"busy", "changed_while_reading", "too_many_files"})


def failure(code: str, message: str, **context: Any) -> SourceError:
    """The error for ``code``, of the class that says whether trying again can help."""
    kind = SourceUnsettled if code in _TRANSIENT else SourceError
    return kind(message, code=code, remedy=REMEDIES[code], context=context)


_ERRNO_CODES: Final = {
    errno.EACCES: "access_denied",
    errno.EPERM: "access_denied",
    errno.ENOENT: "no_such_file",
    errno.ENOTDIR: "no_such_file",
    errno.EMFILE: "too_many_files",
    errno.ENFILE: "too_many_files",
    errno.ENOSPC: "no_scratch_space",
    errno.EDQUOT: "no_scratch_space",
    errno.EFBIG: "no_scratch_space",
}


def from_os_error(error: OSError, doing: str) -> SourceError:
    """Translate an error of the operating system; ``doing`` completes 'Cannot …'."""
    number = error.errno or errno.EIO
    code = _ERRNO_CODES.get(number, "io_error")
    return failure(code, f"Cannot {doing}: {os.strerror(number)}.", errno=number)


_SQLITE_CODES: Final = {
    sqlite3.SQLITE_AUTH: "access_denied",
    sqlite3.SQLITE_BUSY: "busy",
    sqlite3.SQLITE_CANTOPEN: "io_error",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_FULL: "no_scratch_space",
    sqlite3.SQLITE_INTERRUPT: "took_too_long",
    sqlite3.SQLITE_IOERR: "io_error",
    sqlite3.SQLITE_LOCKED: "busy",
    sqlite3.SQLITE_NOMEM: "corrupt",
    sqlite3.SQLITE_NOTADB: "not_a_database",
    sqlite3.SQLITE_PERM: "access_denied",
    sqlite3.SQLITE_PROTOCOL: "busy",
    sqlite3.SQLITE_READONLY: "unfinished_transaction",
    sqlite3.SQLITE_TOOBIG: "too_large_value",
}
_HANDLES_NEEDED: Final = 5  # database, -wal, -shm, journal, directory
_SHORT_READ: Final = 522  # SQLITE_IOERR_SHORT_READ: the file ends before its last page
_SENTENCES: Final = {
    "took_too_long": "SQLite could not read it in time",
    "too_large_value": "A value is larger than any token's data can be",
}


def from_sqlite_error(error: sqlite3.Error) -> SourceError:
    """Translate an error of SQLite; whatever is not known means a damaged file."""
    extended = getattr(error, "sqlite_errorcode", None)
    if extended is None or extended == _SHORT_READ:
        code = "corrupt"
    else:
        code = _SQLITE_CODES.get(extended & 0xFF, "corrupt")
    if code == "io_error" and _out_of_handles():
        code = "too_many_files"
    # SQLite's message may quote names out of the schema: printable, and short.
    text = str(error).encode("ascii", "backslashreplace").decode()[:200]
    said = "".join(char if char.isprintable() else "?" for char in text)
    sentence = _SENTENCES.get(code, "SQLite cannot read it")
    return failure(code, f"{sentence}: {said}.", sqlite=extended or 0)


def _out_of_handles() -> bool:
    """Whether this process cannot open what SQLite needs (it only says 'cannot open')."""
    opened: list[int] = []
    try:
        for _ in range(_HANDLES_NEEDED):
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    finally:
        for fd in opened:
            os.close(fd)
    return False
