"""The files of one SQLite database, looked at without SQLite.

`Files` holds a database open for the time of a snapshot and keeps a shared lock
on it that does what any reader's lock does: a node may go on writing in WAL
mode, but it cannot roll back, finish a rollback-journal commit, or remove its
``-wal`` meanwhile.  The lock is an open file description lock (fcntl(2)): it is
independent of the POSIX locks that SQLite itself takes in this process.

POSIX locks have a trap: closing *any* descriptor of a file drops all locks this
process has on it, SQLite's too.  So a file that is open here is opened only
once, and closed when nobody in this process reads it any more.

Sources: SQLite's file format (sqlite.org/fileformat2.html) for the header and
the lock bytes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import struct
import threading
import time
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from types import TracebackType
from typing import Final

from rubix_token_sync import failpoints, node_files
from rubix_token_sync.nodes.database_errors import failure, from_os_error

__all__ = ["JOURNAL", "SHM", "WAL", "Files", "State"]

WAL: Final = "-wal"
SHM: Final = "-shm"
_SHM_PAGE_BYTES: Final = 32_768
JOURNAL: Final = "-journal"

_MAGIC: Final = b"SQLite format 3\x00"
_HEADER_BYTES: Final = 100
_WAL_HEADER_BYTES: Final = 32
_PENDING_BYTE: Final = 0x40000000
_RESERVED_BYTE: Final = _PENDING_BYTE + 1
_SHARED_FIRST: Final = _PENDING_BYTE + 2
_SHARED_SIZE: Final = 510

# File times advance in ticks of the kernel's timer (1 to 10 ms); a change within
# the tick of the one before leaves no trace in them.
_TICK_NS: Final = 30_000_000
_COARSE_TICK_NS: Final = 2_100_000_000  # FAT and old network file systems
_CLOCK_SKEW_NS: Final = 60_000_000_000


# A file system that has no locks: SQLite will find out too.
_NO_LOCKS: Final = frozenset(
    {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
)


@dataclass(frozen=True, slots=True)
class _Stat:
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    """Catches files put back with their old size and modification time."""


@dataclass(frozen=True, slots=True)
class State:
    """What the files of a database looked like at one moment."""

    header: bytes
    """The first 100 bytes of the database file."""
    main: _Stat
    wal: _Stat | None
    wal_header: bytes
    journal: _Stat | None
    shm: bool
    is_settled: bool = field(default=True, compare=False)
    """Whether a change of the files would show in `text` (see `Files.fingerprint`)."""

    @property
    def is_wal(self) -> bool:
        """The database file says WAL mode (bytes 18 and 19 are 2)."""
        return self.header[18:20] == b"\x02\x02"

    @property
    def modified_ns(self) -> int:
        """The latest modification time of database file and write-ahead log."""
        return max(file.mtime_ns for file in (self.main, self.wal) if file)

    @property
    def size(self) -> int:
        """Bytes of the database file, its write-ahead log and journal."""
        return sum(file.size for file in (self.main, self.wal, self.journal) if file)

    def text(self) -> str:
        """The fingerprint: equal texts mean that nothing was changed in between."""
        digest = blake2b(digest_size=16, person=b"rubix-fprint-v1")
        digest.update(self.header + self.wal_header)
        for file in (self.main, self.wal, self.journal):
            digest.update(
                struct.pack(
                    "<?4Q",
                    file is not None,
                    *(
                        (file.inode, file.size, file.mtime_ns % 2**64, file.ctime_ns % 2**64)
                        if file
                        else (0, 0, 0, 0)
                    ),
                )
            )
        return f"1:{digest.hexdigest()}"

    def unsettled_ns(self, now_ns: int) -> int:
        """How long from now a change could still go unnoticed by `text`, in ns.

        Zero when every time stamp is older than the clock's tick, and without WAL:
        each commit to a rollback journal advances the counter in the header.
        """
        if self.wal is None and not self.is_wal:
            return 0
        longest = 0
        for file in (self.main, self.wal, self.journal):
            if file is None:
                continue
            whole_seconds = file.mtime_ns % 10**9 == 0 and file.ctime_ns % 10**9 == 0
            tick = _COARSE_TICK_NS if whole_seconds else _TICK_NS
            for moment in (file.mtime_ns, file.ctime_ns):
                age = now_ns - moment
                # Far in the future: a clock jumped back, or somebody set the time.
                if -_CLOCK_SKEW_NS < age < tick:
                    longest = max(longest, tick - age)
        return longest


class _Held:
    """A database file that this process has open."""

    def __init__(self) -> None:
        self.fd = -1
        self.users = 0
        self.lockers = 0
        self.using = threading.Lock()  # of descriptor and lock


_held: dict[tuple[int, int], _Held] = {}
_held_guard = threading.Lock()  # of the dictionary and users: never held in a call that may hang


class Files:
    """The database at ``path`` and its companions; a context manager."""

    def __init__(self, path: str) -> None:
        node_files.require_bounded()  # for as long as it is open
        failpoints.point("source.open")
        try:
            # SQLite looks for the companions beside the real file.
            self.path = node_files.realpath(path)
            status = node_files.stat(self.path)
        except OSError as error:
            raise from_os_error(error, "look at the database") from error
        _check_regular(status, "The database")
        self._identity = status.st_dev, status.st_ino
        self.locked = False
        with _held_guard:
            held = _held.setdefault(self._identity, _Held())
            held.users += 1
        self._held: _Held | None = held
        try:
            with held.using:
                if held.fd < 0:
                    held.fd = self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> int:
        try:
            fd = node_files.open_handle(self.path, os.O_RDONLY)
        except OSError as error:
            raise from_os_error(error, "open the database") from error
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != self._identity:
            os.close(fd)
            raise failure("changed_while_reading", "The file was replaced while it was opened.")
        return fd

    def companion(self, suffix: str) -> bytes:
        """The path of the database's `WAL`, `SHM` or `JOURNAL`."""
        return self.path + suffix.encode()

    @property
    def descriptor(self) -> int:
        """The open database file; never to be closed by others."""
        assert self._held is not None, "closed"
        return self._held.fd

    def __enter__(self) -> Files:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock and the file back."""
        held, self._held = self._held, None
        if held is None:
            return
        if self.locked:
            with held.using:
                held.lockers -= 1
                if held.lockers == 0:
                    _set_lock(held.fd, fcntl.F_UNLCK, _SHARED_FIRST, _SHARED_SIZE)
        with _held_guard:
            held.users -= 1
            if held.users > 0:
                return
            del _held[self._identity]
        if held.fd >= 0:
            os.close(held.fd)

    def lock(self) -> None:
        """Take the shared lock, as a reader of SQLite does; no wait.

        ``locked`` says afterwards whether the file system has such locks.

        Raises:
            SourceUnsettled: ``busy``, a node has the file exclusively right now.
        """
        held = self._held
        assert held is not None, "closed"
        with held.using:
            if held.lockers == 0:
                # A writer that waits for its turn holds the pending byte: it goes first.
                if not _set_lock(held.fd, fcntl.F_RDLCK, _PENDING_BYTE, 1):
                    return
                try:
                    _set_lock(held.fd, fcntl.F_RDLCK, _SHARED_FIRST, _SHARED_SIZE)
                finally:
                    _set_lock(held.fd, fcntl.F_UNLCK, _PENDING_BYTE, 1)
            held.lockers += 1
            self.locked = True

    def writer_lives(self) -> bool:
        """Whether a process is in a write transaction of a rollback-journal database."""
        request = _flock(fcntl.F_WRLCK, _RESERVED_BYTE, 1)
        try:
            answer = fcntl.fcntl(self.descriptor, fcntl.F_OFD_GETLK, request)
        except OSError as error:
            raise from_os_error(error, "look at the database's locks") from error
        return bool(struct.unpack_from("@h", answer)[0] != fcntl.F_UNLCK)

    def journal_is_hot(self, state: State) -> bool:
        """Whether a transaction was left unfinished; asked while `locked`.

        As SQLite decides it (pager.c, hasHotJournal): there is a journal that does
        not begin with a zero byte, and nobody is just writing it.
        """
        if state.journal is None or state.journal.size == 0 or self.writer_lives():
            return False
        try:
            first, _ = node_files.read_file(self.companion(JOURNAL), 1)
            return first not in (b"", b"\0")
        except FileNotFoundError:
            return False  # its writer has just given up the transaction
        except OSError as error:
            raise from_os_error(error, "read the database's journal") from error

    def still_there(self) -> bool:
        """Whether the path still leads to the file that is open here."""
        try:
            status = node_files.stat(self.path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def state(self) -> State:
        """How the files look now.

        Raises:
            SourceError: ``empty_file``, ``not_a_database``, ``not_a_file`` or an
                error of the operating system.
        """
        try:
            main = os.fstat(self.descriptor)
            header = os.pread(self.descriptor, _HEADER_BYTES, 0)
        except OSError as error:
            raise from_os_error(error, "read the database") from error
        if main.st_size == 0:
            raise failure("empty_file", "The database file is empty.")
        if not header.startswith(_MAGIC) or len(header) < _HEADER_BYTES:
            raise failure("not_a_database", "The file does not begin as a SQLite database does.")
        wal, wal_header = self._companion(WAL, _WAL_HEADER_BYTES)
        journal, _ = self._companion(JOURNAL, 0)
        shm, _ = self._companion(SHM, 0)
        seen = _Stat(main.st_ino, main.st_size, main.st_mtime_ns, main.st_ctime_ns)
        # Whoever uses shared memory has made it a page large at least.
        shared = shm is not None and shm.size >= _SHM_PAGE_BYTES
        return State(header, seen, wal, wal_header, journal, shared)

    def fingerprint(self) -> tuple[State, str]:
        """The state and its text, waited for (some ms) until it is settled."""
        state = self.state()
        wait = state.unsettled_ns(time.time_ns())
        if 0 < wait <= 2 * _TICK_NS:
            time.sleep(wait / 1e9)
            state = self.state()
            wait = state.unsettled_ns(time.time_ns())
        if wait == 0:
            return state, state.text()
        return replace(state, is_settled=False), f"{state.text()}:{secrets.token_hex(4)}"

    def _companion(self, suffix: str, header: int) -> tuple[_Stat | None, bytes]:
        path = self.companion(suffix)
        try:
            status = node_files.lstat(path)
            _check_regular(status, f"The database's {suffix}")
            first = b""
            if header:
                first, status = node_files.read_file(path, header, flags=os.O_NOFOLLOW)
        except FileNotFoundError:
            return None, b""
        except OSError as error:
            raise from_os_error(error, f"look at the database's {suffix} file") from error
        # Not ctime_ns: when root opens a -wal or -journal, SQLite sets its owner (to what
        # it is), so that reading alone would change it.
        return _Stat(status.st_ino, status.st_size, status.st_mtime_ns, status.st_mtime_ns), first


def _check_regular(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise failure("not_a_file", f"{name} is not a regular file.")


def _set_lock(fd: int, kind: int, start: int, length: int) -> bool:
    """Set or remove a lock; False where there are none (fingerprints prove more then)."""
    if not hasattr(fcntl, "F_OFD_SETLK"):
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(kind, start, length))
    except (BlockingIOError, PermissionError) as error:  # EAGAIN or EACCES, says fcntl(2)
        raise failure("busy", "The node holds the database exclusively.") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise from_os_error(error, "lock the database") from error
        return False
    return True


def _flock(kind: int, start: int, length: int) -> bytes:
    # struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid
    return struct.pack("@hhqqi4x", kind, os.SEEK_SET, start, length, 0)
