"""The only door to a node's files: every call is bounded by this program's own clock.

A thread that waits for a dead network mount cannot be interrupted.  So whatever
touches a node's files runs in a thread of its own, which is left behind when it makes
no progress.  The operations here run at once inside such a thread, and start one
anywhere else; those that give a handle refuse to run anywhere else.

Paths are text that does not depend on the locale: UTF-8 as the disk has it.  A path
whose bytes are not UTF-8 is written as a ``file://`` URL (RFC 8089), which no absolute
path can be mistaken for; so each path has exactly one text, and every target can
store it.
"""

from __future__ import annotations

import errno
import os
import queue
import stat as modes
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar
from urllib.parse import quote, unquote_to_bytes

from rubix_token_sync import threads
from rubix_token_sync.errors import SourceError

__all__ = [
    "STALLED_REMEDY",
    "STALL_SECONDS",
    "BoundedCalls",
    "NotRegularError",
    "bounded",
    "bytes_of",
    "from_argument",
    "join",
    "listdir",
    "lstat",
    "not_gone",
    "open_handle",
    "read_file",
    "readlink",
    "realpath",
    "require_bounded",
    "scan",
    "stat",
    "text_of",
]

STALL_SECONDS: Final = 60.0
"""A file system that gives no answer for this long counts as stalled."""
STALLED_REMEDY: Final = "Check the disk or the network mount."
_SLICE_SECONDS: Final = 0.5
_URL: Final = "file://"

T = TypeVar("T")
A = TypeVar("A")
AnyPath = str | bytes
"""A path as text (see above) or as the system's own bytes."""

_here = threading.local()
_answered = time.monotonic()


def stalled(sentence: str) -> SourceError:
    """The error of a file system that does not answer."""
    return SourceError(sentence, code="stalled", remedy=STALLED_REMEDY)


def last_answer() -> float:
    """When a file system of a node last answered, by `time.monotonic`; for signs of life."""
    return _answered


def _note_answer() -> None:
    global _answered
    _answered = time.monotonic()


class NotRegularError(OSError):
    """Something else stands in a file's place."""


class BoundedCalls:
    """Runs calls one after the other in one thread; gives up on one that hangs.

    Args:
        seconds: how long a call may go without `progress`.
    """

    def __init__(self, seconds: float = STALL_SECONDS) -> None:
        self._seconds = seconds
        self._beats = 0
        self._asked: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.gave_up = False
        """A call was left behind; nothing that it may still use is to be touched."""

    def progress(self) -> None:
        """A long call reports that it moves."""
        self._beats += 1
        _note_answer()

    def call(self, function: Callable[[], T], *, if_late: Callable[[T], None] | None = None) -> T:
        """What ``function`` returns or raises.

        Args:
            function: the call.
            if_late: what to do, in the thread left behind, with a result that comes
                after all.

        Raises:
            SourceError: ``stalled``.
        """
        if self.gave_up:
            raise stalled("The file system did not answer before.")
        answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        settled = threading.Lock()

        def run() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = function()
            except BaseException as raised:  # noqa: BLE001 - raised where the call was made
                error = raised
            with settled:
                late = self.gave_up
                answers.put((result, error))
            if late and error is None and if_late is not None:
                if_late(result)  # type: ignore[arg-type]

        if self._thread is None:
            self._thread = threads.daemon(self._work, "rubix-files")
        self._asked.put(run)
        try:
            result, error = self._wait(answers)
        except BaseException:  # stalled, or interrupted by a signal
            with settled:
                self.gave_up = True
                if answers.empty():
                    raise
            result, error = answers.get()
            if error is None and if_late is not None:
                if_late(result)  # type: ignore[arg-type]
            raise
        _note_answer()
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def _wait(self, answers: queue.SimpleQueue[A]) -> A:
        beats, since = self._beats, time.monotonic()
        while True:
            try:
                # In slices: a signal that came just before a wait is only heard after it.
                return answers.get(timeout=min(self._seconds, _SLICE_SECONDS))
            except queue.Empty:
                if self._beats != beats:
                    beats, since = self._beats, time.monotonic()
                elif time.monotonic() - since >= self._seconds:
                    raise stalled(
                        f"The file system gave no answer for {self._seconds:g} s."
                    ) from None

    def _work(self) -> None:
        _here.bounded = True
        while (run := self._asked.get()) is not None:
            run()

    def close(self, last: Callable[[], None] | None = None) -> None:
        """Make ``last`` the last call and end the thread.

        A call that hangs is not waited for; ``last`` follows when it ends.
        """
        if self._thread is None:
            if last is not None:
                last()
            return
        if last is not None:
            self._asked.put(last)
        self._asked.put(None)
        if not self.gave_up:
            self._thread.join(self._seconds)


def bounded(function: Callable[[], T], *, stall_s: float = STALL_SECONDS) -> T:
    """What ``function`` returns or raises, in a thread that may be left behind.

    Raises:
        SourceError: ``stalled``, after ``stall_s`` seconds without an answer.
    """
    if getattr(_here, "bounded", False):
        return function()
    calls = BoundedCalls(stall_s)
    try:
        return calls.call(function)
    finally:
        calls.close()


def require_bounded() -> None:
    """Refuse to go on outside of a bounded call: a mistake in this program."""
    if not getattr(_here, "bounded", False):
        raise RuntimeError("a node's file would be read without a time limit")


# --- paths ---------------------------------------------------------------------


def bytes_of(path: AnyPath) -> bytes:
    """The system's own bytes for a path as text."""
    if isinstance(path, bytes):
        return path
    if path.startswith(_URL):
        return unquote_to_bytes(path[len(_URL) :])
    try:
        return path.encode()
    except UnicodeEncodeError:  # not our text: decoded by Python from a name that is not UTF-8
        return os.fsencode(path)


def text_of(path: bytes) -> str:
    """The one text that stands for an absolute path; the inverse of `bytes_of`."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        return _URL + quote(path)


def from_argument(path: str | os.PathLike[str]) -> bytes:
    """The absolute path of what a user named: decoded as this process decodes arguments."""
    given = os.fspath(path)
    if given.startswith(_URL):
        return os.path.abspath(bytes_of(given))
    try:
        return os.path.abspath(os.fsencode(given))
    except UnicodeEncodeError:  # from a settings file, which is UTF-8 in every locale
        return os.path.abspath(given.encode())


def join(directory: str, name: str) -> str:
    """``name`` below ``directory``, both as text."""
    return text_of(os.path.join(bytes_of(directory), name.encode()))


# --- operations ----------------------------------------------------------------


def stat(path: AnyPath) -> os.stat_result:
    """`os.stat`; symbolic links are followed."""
    return bounded(lambda: os.stat(bytes_of(path)))


def lstat(path: AnyPath) -> os.stat_result:
    """`os.lstat`; symbolic links are not followed."""
    return bounded(lambda: os.lstat(bytes_of(path)))


def not_gone(paths: Iterable[str]) -> set[str]:
    """Those of the paths that something has, or of which nobody can tell."""
    asked = list(paths)
    try:
        return bounded(lambda: {path for path in asked if not _gone(path)})
    except SourceError:
        return set(asked)


def _gone(path: str) -> bool:
    try:
        lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def readlink(path: AnyPath) -> bytes:
    """`os.readlink`."""
    return bounded(lambda: os.readlink(bytes_of(path)))


def realpath(path: AnyPath) -> bytes:
    """`os.path.realpath`: links resolved as far as they lead."""
    return bounded(lambda: os.path.realpath(bytes_of(path)))


def listdir(path: AnyPath) -> list[bytes]:
    """`os.listdir`."""
    return bounded(lambda: os.listdir(bytes_of(path)))


def open_handle(path: AnyPath, flags: int) -> int:
    """`os.open` for reading, without waiting for the writer of a FIFO in the file's place.

    The handle's owner reads and closes it within the same bounded calls.
    """
    require_bounded()
    return os.open(bytes_of(path), flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


@contextmanager
def scan(directory: int | AnyPath) -> Iterator[Iterator[os.DirEntry[str]]]:
    """`os.scandir`; names are decoded as this process decodes names (`os.fsencode` undoes it)."""
    require_bounded()
    at = directory if isinstance(directory, int) else os.fsdecode(bytes_of(directory))
    with os.scandir(at) as entries:
        yield entries


def read_file(path: AnyPath, limit: int, *, flags: int = 0) -> tuple[bytes, os.stat_result]:
    """At most ``limit`` bytes from the beginning of a regular file, and its status.

    Raises:
        OSError: it cannot be read; `NotRegularError` where a directory, pipe or device is in
            its place, which is not read at all.
    """

    def read() -> tuple[bytes, os.stat_result]:
        fd = open_handle(path, os.O_RDONLY | flags)
        try:
            if not modes.S_ISREG(os.fstat(fd).st_mode):
                raise NotRegularError(errno.EINVAL, "not a regular file")
            return os.read(fd, limit), os.fstat(fd)  # after reading: never older than the bytes
        finally:
            os.close(fd)

    return bounded(read)
