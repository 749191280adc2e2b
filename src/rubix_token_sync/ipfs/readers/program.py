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
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from pydantic import SecretStr

from rubix_token_sync import node_files
from rubix_token_sync.errors import SourceError
from rubix_token_sync.ipfs.cid import Cid
from rubix_token_sync.ipfs.content import Failure, FailureCode
from rubix_token_sync.ipfs.options import ContentOptions
from rubix_token_sync.ipfs.readers import program_daemon
from rubix_token_sync.ipfs.readers.daemon import DaemonReader
from rubix_token_sync.ipfs.repository import Repository
from rubix_token_sync.node_files import bytes_of, text_of
from rubix_token_sync.node_places import NODE_DIRECTORY
from rubix_token_sync.scratch import Scratch

__all__ = ["ProgramReader", "find_program", "held_by_a_process", "open_reader"]

START_S: Final = 60.0
"""Seconds that the program may take to make a repository, and to open one."""

_TRANSLATED = {
    FailureCode.DAEMON_NOT_RUNNING,
    FailureCode.DAEMON_REFUSED,
    FailureCode.NO_REPOSITORY,
}


_EXECUTABLE: Final = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


class _GivenUpError(Exception):
    """Never leaves this module; becomes a failure with this sentence."""


def open_reader(
    path: str | None, repository: Repository | Failure, options: ContentOptions
) -> ProgramReader | None:
    """The way for one node; None where the block store can be read without it."""
    del path
    if isinstance(repository, Failure):
        return None
    if repository.readable and "blockstore" in options.ways:
        return None  # the program reads nothing that the block store does not
    return ProgramReader(
        repository,
        options.program or find_program(repository.path),
        workers=options.workers,
        timeout_s=options.timeout_s,
        attempts=options.attempts,
        scratch=options.scratch,
    )


class ProgramReader:
    """Asks an ``ipfs`` program that works on a copy; see `ContentReader`."""

    name = "program"

    def __init__(
        self,
        repository: Repository,
        program: str | None,
        *,
        workers: int,
        timeout_s: float,
        attempts: int,
        scratch: Scratch = Scratch(),  # noqa: B008 - frozen
    ) -> None:
        """``program`` is its path, None when there is none."""
        self._repository = repository
        self._program = program
        self._scratch = scratch
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
        return self._ask(DaemonReader.read, cids)

    def blocks(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        """Verified blocks or a failure for each CID; the first call makes the copy."""
        return self._ask(DaemonReader.blocks, cids)

    def _ask(
        self,
        ask: Callable[[DaemonReader, Sequence[Cid]], list[bytes | Failure]],
        cids: Sequence[Cid],
    ) -> list[bytes | Failure]:
        if self._daemon is None and self._failure is None and cids:
            try:
                self._daemon = self._start()
            except _GivenUpError as error:
                self._fail(str(error))
            except SourceError as error:
                self._fail(error.message)
            except OSError as error:
                self._fail(error.strerror or type(error).__name__)
        if self._failure is not None:
            return [self._failure] * len(cids)
        if self._daemon is None:
            return []
        return [_as_programs(answer) for answer in ask(self._daemon, cids)]

    def close(self) -> None:
        if self._daemon is not None:
            self._daemon.close()
            self._daemon = None
        self._fail("it has been closed")

    def _fail(self, reason: str) -> None:
        self._failure = Failure(FailureCode.PROGRAM_FAILED, f"the ipfs program: {reason}")
        self._stack.close()

    def _start(self) -> DaemonReader:
        if self._program is None:
            places = ", ".join(dict.fromkeys(map(text_of, _places(self._repository.path))))
            raise _GivenUpError(
                "none was found; name one with --ipfs-program, or start the node "
                f"(looked at {places})"
            )
        path = bytes_of(self._repository.path)
        program = node_files.from_argument(self._program)
        owner = node_files.bounded(lambda: self._claim(path, program))
        become = owner if os.geteuid() == 0 and owner.st_uid != 0 else None
        directory = tempfile.mkdtemp(prefix="rubix-ipfs-", dir=self._scratch.choose())
        keeping = self._keep(
            {
                "directory": directory,
                "program": os.fsdecode(program),
                "repository": os.fsdecode(path),
                "blocks": os.fsdecode(bytes_of(self._repository.blocks)),
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
        return DaemonReader(
            program_daemon.repository_path(directory),
            authorization=SecretStr(""),
            **self._options,
        )

    def _claim(self, path: bytes, program: bytes) -> os.stat_result:
        """Make sure that nobody else works with the repository; the status of its directory."""
        owner = node_files.stat(path)
        _check_trust(program, owner.st_uid)
        handle = node_files.open_handle(path, os.O_RDONLY | os.O_DIRECTORY)
        self._stack.callback(os.close, handle)
        try:
            # A lock on the directory itself: leaves no trace, and Kubo does not know of it.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _GivenUpError("another run works with a copy of this repository") from None
        if held_by_a_process(self._repository.path):
            raise _GivenUpError("the node's own daemon or program holds the repository")
        return owner

    def _keep(self, order: program_daemon.Order) -> subprocess.Popen[bytes]:
        """Start the keeper; it ends, and its directory with it, when the stack is closed."""
        if len(program_daemon.socket_path(order["directory"])) > 100:
            os.rmdir(order["directory"])
            raise _GivenUpError(
                f"the path of the scratch directory {os.path.dirname(order['directory'])} is too "
                "long for a socket; set a shorter one (`scratch` in the settings, or TMPDIR)"
            )
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
        self._stack.callback(shutil.rmtree, order["directory"], ignore_errors=True)
        self._stack.callback(keeping.stdout.close)
        self._stack.callback(_wait_for, keeping)
        self._stack.callback(_close_pipe, keeping.stdin)
        keeping.stdin.write(json.dumps(order).encode() + b"\n")
        keeping.stdin.flush()
        return keeping

    @staticmethod
    def _await(keeping: subprocess.Popen[bytes], directory: str) -> None:
        """Wait until the program serves the copy, as long as something moves."""
        repository = program_daemon.repository_path(directory)
        api = os.path.join(repository, "api")
        socket = program_daemon.socket_path(directory)
        signs = [os.path.join(directory, name) for name in program_daemon.SIGNS_OF_LIFE]
        moved, since = 0, time.monotonic()
        while not (os.path.exists(api) and os.path.exists(socket)):
            if keeping.poll() is not None:
                assert keeping.stdout is not None
                said = keeping.stdout.readline().decode("utf-8", "replace").strip()
                raise _GivenUpError(said or "it ended without a word")
            latest = max(_modified_ns(sign) for sign in signs)
            if latest != moved:
                moved, since = latest, time.monotonic()
            elif time.monotonic() - since > START_S:
                keeping.kill()  # it may wait for a file system that never answers
                raise _GivenUpError(f"it made no progress for {START_S:g} seconds")
            time.sleep(0.05)


def _modified_ns(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:  # not made yet
        return 0


def find_program(repository: str) -> str | None:
    """The node's own ``ipfs`` program, where the node software keeps it."""
    for place in _places(repository):
        try:
            status = node_files.stat(place)
        except (OSError, SourceError):
            continue
        if stat.S_ISREG(status.st_mode) and status.st_mode & _EXECUTABLE:
            return os.fsdecode(place)
    return None


def _places(repository: str) -> list[bytes]:
    """Where a node's program may be, the likeliest first.

    A node runs ``./ipfs`` in its working directory: its own directory, or with ``-p`` the
    one above.
    """
    node = os.path.dirname(bytes_of(repository))
    return [
        os.path.join(directory, b"ipfs")
        for directory in (
            node,
            os.path.dirname(node),
            os.path.join(node, NODE_DIRECTORY),
            bytes_of(repository),
        )
    ]


def held_by_a_process(repository: str) -> bool:
    """Whether a Kubo process has the repository open, found out without taking its lock.

    Kubo locks ``repo.lock`` by POSIX rules; that the file exists means nothing.
    """

    def ask() -> bool:
        try:
            fd = node_files.open_handle(node_files.join(repository, "repo.lock"), os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            # struct flock of 64-bit Linux: type, whence, start, length, pid
            asked = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
            answer = fcntl.fcntl(fd, fcntl.F_GETLK, asked)
            return bool(struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK)
        finally:
            os.close(fd)

    return node_files.bounded(ask)


def _check_trust(program: bytes, repository_owner: int) -> None:
    """Refuse a program that somebody could have put there who may not act as we do."""
    status = node_files.stat(program)
    trusted = {0, os.geteuid()}
    if os.geteuid() == 0:
        trusted.add(repository_owner)  # for then it runs as that user
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & _EXECUTABLE:
        raise _GivenUpError("it is not an executable file")
    if status.st_uid not in trusted or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _GivenUpError(
            f"{text_of(program)} is not trusted, because another user owns it or may change it; "
            "name another one with --ipfs-program"
        )


def _close_pipe(pipe: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # the keeper has ended already
        pipe.close()


def _wait_for(keeping: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for a dead file system
        keeping.wait(program_daemon.PATIENCE_S * 2)


def _as_programs(answer: bytes | Failure) -> bytes | Failure:
    if isinstance(answer, Failure):
        if answer.code in _TRANSLATED:
            return Failure(FailureCode.PROGRAM_FAILED, "the ipfs program: it does not answer")
        sentence = answer.sentence.replace("the node's daemon", "the ipfs program")
        return Failure(answer.code, sentence)
    return answer
