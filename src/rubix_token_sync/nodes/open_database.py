"""Opens a node's database in the way that the state of its files asks for."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from rubix_token_sync.errors import SourceError
from rubix_token_sync.nodes.connection import Connection
from rubix_token_sync.nodes.database_errors import failure
from rubix_token_sync.nodes.database_files import JOURNAL, WAL, Files, State
from rubix_token_sync.nodes.private_copy import PrivateCopy
from rubix_token_sync.scratch import Scratch

__all__ = ["Opened"]

_READONLY_CANTINIT: Final = 1288  # SQLITE_READONLY_CANTINIT: no usable read mark


class Opened:
    """A database in one read transaction.

    Attributes:
        state: of its files before it was opened.
        fingerprint: of that state.
        way: ``read-only``, ``immutable``, ``wal`` or ``copy``.
    """

    def __init__(self, files: Files, scratch: Scratch, progress: Callable[[], None]) -> None:
        self._files = files
        self._scratch = scratch
        self._progress = progress
        self._copy: PrivateCopy | None = None
        self._connection: Connection | None = None
        try:
            files.lock()
            self.state, self.fingerprint = files.fingerprint()
            self.way, connect = self._choose(self.state)
            self._connection = connect()
            if not files.still_there():
                raise failure("changed_while_reading", "The file was replaced while opened.")
            if self.way == "copy":
                files.close()  # a node that starts now must be able to recover its database
        except BaseException:
            self.close()
            raise

    @property
    def connection(self) -> Connection:
        if self._connection is None:
            raise ValueError("the snapshot is closed")
        return self._connection

    def interrupt(self) -> None:
        """Make a running call of SQLite fail; from any thread."""
        if self._connection is not None:
            self._connection.interrupt()

    def close(self) -> None:
        """Give back connection, copy, lock and files, in this order."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._copy is not None:
            self._copy.remove()
            self._copy = None
        self._files.close()

    def changed(self) -> bool:
        """Whether anything was written where nothing may be.

        * ``immutable``: a writer in WAL mode first makes a ``-wal``, and cannot remove
          it while the shared lock is held.
        * ``read-only``: no writer of SQLite gets past the shared lock; but somebody may
          copy over the file.

        So without a change here all that was read is right.
        """
        if self.way not in ("immutable", "read-only"):
            return False
        now = self._files.state()
        return now != self.state if self.way == "immutable" else not _same_file(now, self.state)

    def continue_on_a_copy(self) -> None:
        """Replace the connection by one on a copy of the database file alone.

        * ``read-only``: the node must not wait for us to commit.  The copy is made
          under the shared lock; without room for it the lock is kept, as any reader
          would.
        * ``immutable``: the node began to write, so far to its ``-wal`` only.
        """
        try:
            self._copy = PrivateCopy(self._files, [], self._scratch, self._progress)
        except SourceError as error:
            if error.code != "no_scratch_space" or self.way == "immutable":
                raise
            return
        if not _same_file(self._files.state(), self.state):
            raise failure("changed_while_reading", "The file was written to while it was read.")
        self.connection.close()
        self._connection = None
        # Made under the shared lock, so no journal is needed to read it.
        self._connection = Connection(self._copy.path, "mode=ro&immutable=1")
        self._copy.remove()
        self._files.close()
        self.way = "copy"

    def _choose(self, state: State) -> tuple[str, Callable[[], Connection]]:
        """How to read files in this state; see the package's table."""
        wal_has_frames = state.wal is not None and state.wal.size > 0
        if state.wal is not None and state.shm:
            return "wal", self._connect_live
        if wal_has_frames or (state.wal is not None and not state.is_wal):
            return "copy", self._connect_copy
        if self._files.locked:
            if self._files.journal_is_hot(state):
                return "copy", self._connect_copy
            # Under the lock taken: SQLite's own would let waiting writers in between.
            way = "immutable" if state.is_wal else "read-only"
            return way, lambda: Connection(self._files.path, "mode=ro&immutable=1")
        if not state.is_wal:
            return "read-only", self._connect_plain
        if state.journal is not None and state.journal.size > 0:
            return "copy", self._connect_copy
        return "immutable", lambda: Connection(self._files.path, "mode=ro&immutable=1")

    def _connect_plain(self) -> Connection:
        """For file systems without the locks that `Files` takes: by SQLite's own."""
        try:
            return Connection(self._files.path, "mode=ro")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
                raise
        # A hot journal: SQLite would have to roll back, which it must not do there.
        self.way = "copy"
        return self._connect_copy()

    def _connect_live(self) -> Connection:
        try:
            return Connection(self._files.path, "mode=ro&readonly_shm=1")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != _READONLY_CANTINIT:
                raise
        # SQLite would have to write to the -shm.
        self.way = "copy"
        return self._connect_copy()

    def _connect_copy(self) -> Connection:
        present = ((WAL, self.state.wal), (JOURNAL, self.state.journal))
        suffixes = [suffix for suffix, file in present if file is not None]
        if not self.state.is_settled:
            # Time stamps so new cannot prove that nothing changed during the copy.
            raise failure("busy", "The node writes without a pause.")
        self._copy = PrivateCopy(self._files, suffixes, self._scratch, self._progress)
        if self._files.state() != self.state:
            raise failure("changed_while_reading", "The files changed while they were copied.")
        if JOURNAL in suffixes and self._copy.names_super_journal():
            raise failure(
                "unfinished_transaction", "Its unfinished transaction spans several databases."
            )
        connection = Connection(self._copy.path, "mode=rw" if JOURNAL in suffixes else "mode=ro")
        self._copy.remove()  # SQLite has its files open and needs no names any more
        return connection


def _same_file(now: State, before: State) -> bool:
    """Not by ctime: a file that is moved or removed while it is read is as good as before."""
    return (now.header, now.main.size, now.main.mtime_ns) == (
        before.header,
        before.main.size,
        before.main.mtime_ns,
    )
