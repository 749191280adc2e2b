"""Named points at which tests make side effects fail.

Every side effect of a run passes `point(name)` just before it happens (or,
for names ending in ``.after``, just after).  A point costs one global lookup
when nothing is armed.  Arm by environment so that worker processes see it:

    RUBIX_SYNC_FAULT="store.commit.before:3:kill"       the third time, SIGKILL
    RUBIX_SYNC_FAULT="source.open:1:error:forever"      from the first time on
    RUBIX_SYNC_FAULT="store.publish:2:stall"            sleeps until killed
    RUBIX_SYNC_FAULT_LOG=FILE                           appends every name passed

``error`` raises `FaultInjected` (an OSError with EIO).  Counting is per
process; ``RUBIX_SYNC_FAULT_ONCE=FILE`` makes a fault fire in one process only
(whoever creates FILE first).
"""

from __future__ import annotations

import errno
import os
import signal
import time

__all__ = ["FaultInjected", "arm", "point"]


class FaultInjected(OSError):
    """The error that an armed point raises."""

    def __init__(self, name: str) -> None:
        super().__init__(errno.EIO, f"injected fault at {name}")


_armed: tuple[str, int, str, bool] | None = None
_log = ""
_passed = 0
_active = False


def arm() -> None:
    """Read the environment (again, in a process that was forked with another one)."""
    global _armed, _log, _passed, _active
    spec = os.environ.get("RUBIX_SYNC_FAULT", "")
    _armed = None
    if spec:
        name, nth, action, *rest = spec.split(":")
        _armed = name, int(nth), action, rest == ["forever"]
    _log = os.environ.get("RUBIX_SYNC_FAULT_LOG", "")
    _passed = 0
    _active = _armed is not None or bool(_log)


arm()


def point(name: str) -> None:
    """Pass the point ``name``; fails when a test armed it.

    Raises:
        FaultInjected: the armed action is ``error``.
    """
    if _active:
        _pass(name)


def _pass(name: str) -> None:
    global _passed
    if _log:
        fd = os.open(_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, f"{os.getpid()} {name}\n".encode())
        os.close(fd)
    if _armed is None or _armed[0] != name:
        return
    _, nth, action, forever = _armed
    _passed += 1
    if _passed != nth and not (forever and _passed > nth):
        return
    once = os.environ.get("RUBIX_SYNC_FAULT_ONCE", "")
    if once:
        try:
            os.close(os.open(once, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stall":
        time.sleep(3600)
    elif action == "error":
        raise FaultInjected(name)
    else:
        raise ValueError(f"unknown fault action {action!r}")
