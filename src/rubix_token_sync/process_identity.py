"""Who a run is, so that another one can tell whether it still lives.

A holder is ``host|boot id:PID namespace|pid|process start time``: on the same
boot of the same machine a missing process, or one of another start time, is a dead run at
once; elsewhere only the heartbeat in the target tells.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

__all__ = ["holder_is_gone", "own_holder"]


def _boot_id() -> str:
    """This boot and this PID namespace: within it, a process id means one process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux: processes are told apart by the heartbeat alone
        return "-"


def _start_time(pid: int) -> str | None:
    """Clock ticks after boot at which ``pid`` started; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]


def own_holder() -> str:
    """The calling process as a holder."""
    pid = os.getpid()
    return f"{socket.gethostname()}|{_boot_id()}|{pid}|{_start_time(pid) or '-'}"


def holder_is_gone(holder: str) -> bool:
    """True only when the holder ran on this boot of this machine and its process has ended."""
    parts = holder.split("|")
    boot = _boot_id()
    if len(parts) != 4 or boot == "-" or parts[:2] != [socket.gethostname(), boot]:
        return False
    return _start_time(int(parts[2])) != parts[3]
