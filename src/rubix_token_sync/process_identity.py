"""Who a run is, so that another one can tell whether it still lives.

A holder is ``host|boot id:PID namespace|pid|process start time``: on the same
boot of the same machine a missing process, or one of another start time, is a dead run at
once; elsewhere only the heartbeat in the target tells.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

__all__ = ["Machine", "holder_is_gone", "own_holder", "own_machine"]

_MACHINE_ID_FILES: Final = ("/etc/machine-id", "/var/lib/dbus/machine-id")


@dataclass(frozen=True)
class Machine:
    """A machine, so that it is not confused with another one."""

    identity: str
    """The same at every run here, and nowhere else; no secret."""
    host: str
    """Its name, for people."""


def own_machine(files: tuple[str, ...] = _MACHINE_ID_FILES) -> Machine:
    """The machine that this process runs on, as its operating system knows it.

    The identity is made of ``/etc/machine-id`` (as a digest: the id itself is not to be shown)
    and the host's name.  Either alone would not do: containers often share the id of their
    image or of the host, or have none, and names repeat.  Both are as stable as the machine:
    they change neither at a boot (as the boot id does) nor with the network (as addresses do).

    They do change when the machine is renamed or installed anew, and a container without a
    fixed host name (``--hostname``) is another machine each time it is made: the source must
    then be taken over on purpose, which does no harm, where a wrong guess would.
    """
    host = socket.gethostname()
    for file in files:
        with contextlib.suppress(OSError):
            text = Path(file).read_bytes().strip()
            if text and text != b"uninitialized":
                digest = blake2b(text, digest_size=8, person=b"rubix-machine").hexdigest()
                return Machine(f"{digest}/{host}"[:200], host[:255])
    return Machine(f"-/{host}"[:200], host[:255])


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
