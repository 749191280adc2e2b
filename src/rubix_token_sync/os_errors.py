"""What the operating system refuses a run (handles, memory, room), as an error of the tree.

The only place that looks into such errors, apart from the doors to sources and
targets, which know better what was being done.
"""

from __future__ import annotations

import errno
from typing import Final

from rubix_token_sync.errors import SyncError

__all__ = ["refusal"]

_CODES: Final = {
    errno.EAGAIN: "too_many_processes",
    errno.EDQUOT: "disk_full",
    errno.EFBIG: "disk_full",
    errno.EMFILE: "too_many_files",
    errno.ENFILE: "too_many_files",
    errno.ENOMEM: "out_of_memory",
    errno.ENOSPC: "disk_full",
}
_REMEDIES: Final = {
    "disk_full": "Free disk space or raise the quota, and run again: nothing stored is lost.",
    "out_of_memory": "Lower BATCH_SIZE and NUM_IPFS_WORKERS or allow more memory, and run again: "
    "nothing stored is lost.",
    "system_error": "Run again once the cause is removed: nothing stored is lost.",
    "too_many_files": "Raise the limit of open files (ulimit -n), and run again: nothing stored "
    "is lost.",
    "too_many_processes": "Raise the limit of processes (ulimit -u) or lower NUM_IPFS_WORKERS, "
    "and run again: nothing stored is lost.",
}


def refusal(error: BaseException) -> SyncError | None:
    """The error that says what was refused and what to do about it; None for any other."""
    if isinstance(error, MemoryError):
        code, what = "out_of_memory", "no memory is left"
    elif isinstance(error, OSError):
        code = _CODES.get(error.errno or 0, "system_error")
        what = error.strerror or str(error) or type(error).__name__
    elif isinstance(error, RuntimeError) and "start new thread" in str(error):
        code, what = "too_many_processes", "no thread can be started"
    else:
        return None
    return SyncError(
        f"The system refused what the run needs: {what}.", code=code, remedy=_REMEDIES[code]
    )
