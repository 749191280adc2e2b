"""Content by the node's own ``ipfs`` program: the last resort.

Some repositories keep blocks in a form that only Kubo's code reads (badger,
pebble, leveldb).  While the node runs, its daemon is asked; when it does not,
the program is.  But Kubo opens a repository only for writing (locks, logs,
compaction), and nothing may change in a node's directories.  So the program
works on a private copy of the blocks, with a fresh identity, offline, as an
API server on a unix socket in that copy: one process a repository, not one a
token, and no token id ever comes near a command line.

The copy is made only when no daemon holds the repository and nobody else of
ours copies it.  It is unreadable for others, and gone after the run even when
that is killed: `rubix_token_sync.ipfs.readers.program_daemon` sees to that.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, Final

from pydantic import SecretStr

from rubix_token_sync.ipfs.cid import Cid
from rubix_token_sync.ipfs.content import Failure, FailureCode
from rubix_token_sync.ipfs.readers import program_daemon
from rubix_token_sync.ipfs.readers.daemon import DaemonReader
from rubix_token_sync.ipfs.repository import Repository

__all__ = ["ProgramReader", "find_program", "held_by_a_process"]

START_S: Final = 60.0
"""Seconds that the program may take to make a repository, and to open one."""

_TRANSLATED = {
    FailureCode.DAEMON_NOT_RUNNING,
    FailureCode.DAEMON_REFUSED,
    FailureCode.NO_REPOSITORY,
}


class _GivenUpError(Exception):
    """Never leaves this module; becomes a failure with this sentence."""


class ProgramReader:
    """Asks an ``ipfs`` program that works on a copy; see `ContentReader`."""

    name = "program"

    def __init__(
        self,
        repository: Repository,
        program: str,
        *,
        workers: int,
        timeout_s: float,
        attempts: int,
    ) -> None:
        self._repository = repository
        self._program = program
        self._options: dict[str, Any] = {
            "workers": workers,
            "timeout_s": timeout_s,
            "attempts": attempts,
        }
        self._daemon: DaemonReader | None = None
        self._failure: Failure | None = None
        self._stack = contextlib.ExitStack()

    def read(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        """Verified content or a failure for each CID; the first call makes the copy."""
        if self._daemon is None and self._failure is None and cids:
            try:
                self._daemon = self._start()
            except _GivenUpError as error:
                self._fail(str(error))
            except OSError as error:
                self._fail(error.strerror or type(error).__name__)
        if self._failure is not None:
            return [self._failure] * len(cids)
        if self._daemon is None:
            return []
        return [_as_programs(answer) for answer in self._daemon.read(cids)]

    def close(self) -> None:
        if self._daemon is not None:
            self._daemon.close()
            self._daemon = None
        self._fail("it has been closed")

    def _fail(self, reason: str) -> None:
        self._failure = Failure(FailureCode.PROGRAM_FAILED, f"the ipfs program: {reason}")
        self._stack.close()

    def _start(self) -> DaemonReader:
        path = self._repository.path
        owner = os.stat(path)
        become = owner if os.geteuid() == 0 and owner.st_uid != 0 else None
        _check_trust(self._program, owner.st_uid)
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._stack.callback(os.close, handle)
        try:
            # A lock on the directory itself: leaves no trace, and Kubo does not know of it.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _GivenUpError("another run works with a copy of this repository") from None
        if held_by_a_process(path):
            raise _GivenUpError("the node's own daemon or program holds the repository")
        directory = tempfile.mkdtemp(prefix="rubix-ipfs-")
        keeping = self._keep(
            {
                "directory": directory,
                "program": os.path.abspath(self._program),
                "repository": os.path.abspath(path),
                "blocks": os.path.abspath(self._repository.blocks),
                "version": self._repository.version,
                "user": become.st_uid if become else None,
                "group": become.st_gid if become else None,
                "start_s": START_S,
            }
        )
        if become is not None:
            # From here on nothing in it is touched by us, but by who becomes its owner.
            os.chown(directory, become.st_uid, become.st_gid)
        self._await(keeping, directory)
        no_secret = SecretStr("")
        return DaemonReader(
            program_daemon.repository_path(directory), authorization=no_secret, **self._options
        )

    def _keep(self, order: program_daemon.Order) -> subprocess.Popen[bytes]:
        """Start the keeper; it ends, and its directory with it, when the stack is closed."""
        if len(program_daemon.socket_path(order["directory"])) > 100:
            os.rmdir(order["directory"])
            raise _GivenUpError("the path of the directory for temporary files is too long")
        keeping = subprocess.Popen(
            [sys.executable, "-I", os.path.abspath(program_daemon.__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert keeping.stdin is not None
        assert keeping.stdout is not None
        # The keeper empties it, but as another user it may have no right to remove it.
        self._stack.callback(_remove_empty, order["directory"])
        self._stack.callback(keeping.stdout.close)
        self._stack.callback(keeping.wait)
        self._stack.callback(_close_pipe, keeping.stdin)
        keeping.stdin.write(json.dumps(order).encode() + b"\n")
        keeping.stdin.flush()
        return keeping

    @staticmethod
    def _await(keeping: subprocess.Popen[bytes], directory: str) -> None:
        """Wait until the program serves the copy."""
        # Copying takes as long as it takes; a program that hangs is another matter.
        api = os.path.join(program_daemon.repository_path(directory), "api")
        socket = program_daemon.socket_path(directory)
        configured = os.path.join(directory, program_daemon.READY)
        deadline: float | None = None
        while not (os.path.exists(api) and os.path.exists(socket)):
            if keeping.poll() is not None:
                assert keeping.stdout is not None
                said = keeping.stdout.readline().decode("utf-8", "replace").strip()
                raise _GivenUpError(said or "it ended without a word")
            if deadline is None and os.path.exists(configured):
                deadline = time.monotonic() + START_S
            if deadline is not None and time.monotonic() > deadline:
                raise _GivenUpError(f"it was not ready after {START_S:g} seconds")
            time.sleep(0.05)


def find_program(repository: str, configured: str | None) -> str | None:
    """The ``ipfs`` program for a node: the configured one, else the one beside ``.ipfs``."""
    if configured is not None:
        return configured
    beside = os.path.join(os.path.dirname(os.path.abspath(repository)), "ipfs")
    return beside if os.path.isfile(beside) and os.access(beside, os.X_OK) else None


def held_by_a_process(repository: str) -> bool:
    """Whether a Kubo process has the repository open, told without taking its lock.

    Kubo locks ``repo.lock`` by POSIX rules; that the file exists means nothing.
    """
    try:
        fd = os.open(os.path.join(repository, "repo.lock"), os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        # struct flock of 64-bit Linux: type, whence, start, length, pid
        asked = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, asked)
        return bool(struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK)
    finally:
        os.close(fd)


def _check_trust(program: str, repository_owner: int) -> None:
    """Refuse a program that somebody could have put there who may not act as we do."""
    status = os.stat(program)
    trusted = {0, os.geteuid()}
    if os.geteuid() == 0:
        trusted.add(repository_owner)  # for then it runs as that user
    if not stat.S_ISREG(status.st_mode) or not os.access(program, os.X_OK):
        raise _GivenUpError("it is no executable file")
    if status.st_uid not in trusted or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _GivenUpError("not trusted, for another user owns it or may change it")


def _close_pipe(pipe: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # the keeper has ended already
        pipe.close()


def _remove_empty(directory: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(directory)


def _as_programs(answer: bytes | Failure) -> bytes | Failure:
    if isinstance(answer, Failure):
        if answer.code in _TRANSLATED:
            return Failure(FailureCode.PROGRAM_FAILED, "the ipfs program: it does not answer")
        sentence = answer.sentence.replace("the node's daemon", "the ipfs program")
        return Failure(answer.code, sentence)
    return answer
