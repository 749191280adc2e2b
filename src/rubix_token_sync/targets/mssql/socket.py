"""Finding the TCP socket that the driver opened, to be able to hang up.

A call that does not come back keeps its session, and with it its locks, alive
on the server.  The driver cannot be interrupted, but its socket can be shut
down: the call then fails, and the server rolls back.  Where the socket cannot
be told (Windows, or two connects at once), the connection is only abandoned.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

__all__ = ["DriverSocket", "watch_for_socket"]

_ONE_AT_A_TIME: Final = threading.Lock()


@dataclass
class DriverSocket:
    """The socket of one connection, once it is known."""

    port: int
    found: tuple[int, int] | None = field(default=None, init=False)
    """File descriptor and inode: a number alone may be another's by now."""

    def hang_up(self) -> bool:
        """Shut the socket down; False where it is not known (any more)."""
        if self.found is None:
            return False
        number, inode = self.found
        try:
            if os.fstat(number).st_ino != inode:
                return False
            with _borrowed(number) as same:
                same.shutdown(socket.SHUT_RDWR)
        except OSError:  # closed meanwhile: what was wanted
            return False
        return True


@contextlib.contextmanager
def watch_for_socket(port: int) -> Iterator[DriverSocket]:
    """Notes the one new socket to ``port`` that is there when the block ends."""
    noted = DriverSocket(port)
    with _ONE_AT_A_TIME:
        before = _sockets_to(port)
        yield noted
        fresh = [item for item in _sockets_to(port).items() if before.get(item[0]) != item[1]]
        if len(fresh) == 1:
            noted.found = fresh[0]


@contextlib.contextmanager
def _borrowed(number: int) -> Iterator[socket.socket]:
    """The socket behind a file descriptor that belongs to somebody else."""
    copy = os.dup(number)
    try:
        same = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    with same:
        yield same


def _sockets_to(port: int) -> dict[int, int]:
    """File descriptor → inode of this process's connections to ``port``."""
    found: dict[int, int] = {}
    if os.name != "posix":
        return found
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # no socket, not connected, or closed meanwhile
            number = int(name)
            status = os.fstat(number)
            if not stat.S_ISSOCK(status.st_mode):
                continue
            with _borrowed(number) as same:
                peer = same.getpeername()
            if isinstance(peer, tuple) and peer[1] == port:
                found[number] = status.st_ino
    return found
