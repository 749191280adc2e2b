"""One consistent moment of one node's database."""

from __future__ import annotations

import marshal
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final

from rubix_token_sync import faults
from rubix_token_sync.errors import SourceError, SourceUnsettled
from rubix_token_sync.records import SourceRow, SqliteValue
from rubix_token_sync.source.connection import Connection, Table
from rubix_token_sync.source.failures import failure, from_os_error, from_sqlite_error
from rubix_token_sync.source.files import JOURNAL, WAL, Files, State
from rubix_token_sync.source.scratch import PrivateCopy

__all__ = ["Snapshot", "open_snapshot"]

HEAD_ROWS: Final = 50_000
"""So many rows are read before the first is handed out."""
_HEAD_BYTES: Final = 32 * 2**20
_SMALL_FILE_BYTES: Final = 64 * 2**20
_CAREFUL_ROWS: Final = 64
_SMALLEST_ROW_BYTES: Final = 5  # cell pointer 2, payload size 1, row number 1, record 1
_READONLY_CANTINIT: Final = 1288  # SQLITE_READONLY_CANTINIT: no usable read mark
_JOURNAL_MAGIC: Final = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"


class Snapshot:
    """A database as it was at one moment; made by `open_snapshot`.

    Attributes:
        fingerprint: of the moment before reading, see `source.fingerprint`.
        modified: latest modification time of ``rubix.db`` and its ``-wal``, in UTC
            without a zone.
        columns: those of `SOURCE_COLUMNS` that the table has.
        way: how it is read: ``read-only``, ``immutable``, ``wal`` or ``copy``.
    """

    def __init__(self, path: str, files: Files, scratch: str | None) -> None:
        self.path = path
        self._files = files
        self._scratch = scratch
        self._copy: PrivateCopy | None = None
        self._connection: Connection | None = None
        self._head: list[SourceRow] = []
        self._whole = False
        self._count: int | None = None
        self._lossless_text = False
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    # -- opening ---------------------------------------------------------------

    def _start(self) -> None:
        files = self._files
        files.lock()
        self._state, self.fingerprint = files.fingerprint()
        self.modified = _utc(self._state.modified_ns)
        self.way, connect = self._choose(self._state)
        self._connection = connect()
        if not files.still_there():
            raise failure("changed_while_reading", "The file was replaced while it was opened.")
        if self.way == "copy":
            files.close()  # a node that starts now must be able to recover its database
        self._table = Table(self._connection)
        self.columns = self._table.columns
        self._connection.read_text_strictly()
        # Rows that the file cannot possibly hold mean that its pages go in circles.
        self._most_rows = self._state.size // _SMALLEST_ROW_BYTES
        self._careful = self._state.size > _SMALL_FILE_BYTES
        self._read_head()
        if self._whole:
            self._let_go()
        elif self.way == "read-only":
            self._continue_on_a_copy()

    def _choose(self, state: State) -> tuple[str, Callable[[], Connection]]:
        """How to read files in this state; see the package's table."""
        wal_has_frames = state.wal is not None and state.wal.size > 0
        if state.wal is not None and state.shm:
            return "wal", self._connect_live
        if wal_has_frames or (state.wal is not None and not state.is_wal):
            return "copy", self._connect_copy
        if not state.is_wal:
            return "read-only", self._connect_plain
        if state.journal is not None and state.journal.size > 0:
            return "copy", self._connect_copy
        return "immutable", lambda: Connection(self._files.path, "mode=ro&immutable=1")

    def _connect_plain(self) -> Connection:
        try:
            return Connection(self._files.path, "mode=ro")
        except sqlite3.OperationalError as error:
            if _primary(error) != sqlite3.SQLITE_READONLY:
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
        return Connection(self._files.path, "mode=ro")

    def _connect_copy(self) -> Connection:
        present = ((WAL, self._state.wal), (JOURNAL, self._state.journal))
        suffixes = [suffix for suffix, file in present if file is not None]
        if ":" in self.fingerprint.removeprefix("1:"):
            # Time stamps so new cannot prove that nothing changed during the copy.
            raise failure("busy", "The node writes without a pause.")
        self._copy = PrivateCopy(self._files, suffixes, self._scratch)
        if self._files.state() != self._state:
            raise failure("changed_while_reading", "The files changed while they were copied.")
        if JOURNAL in suffixes:
            _refuse_super_journal(self._copy.path + JOURNAL)
        connection = Connection(self._copy.path, "mode=rw" if JOURNAL in suffixes else "mode=ro")
        self._copy.remove()  # SQLite has its files open and needs no names any more
        return connection

    def _continue_on_a_copy(self) -> None:
        """Read the rest from a copy: the node must not wait for us to commit.

        Without room for a copy the shared lock is kept, as any reader would.
        """
        assert self._connection is not None
        try:
            self._copy = PrivateCopy(self._files, [], self._scratch)
        except SourceError as error:
            if error.code != "no_scratch_space":
                raise
            return
        self._connection.close()
        self._connection = None
        # The copy was made under the shared lock: no journal is needed to read it.
        self._connection = Connection(self._copy.path, "mode=ro&immutable=1")
        self._copy.remove()
        self._files.close()
        self.way = "copy"

    # -- reading ---------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many rows the table has."""
        if self._count is None:
            with _translated():
                self._count = int(self._ask(self._table.count).fetchone()[0])
        return self._count

    def rows(self, batch_size: int) -> Iterator[list[SourceRow]]:
        """The table's rows in row order, in lists of at most ``batch_size``.

        Tables WITHOUT ROWID come in the order of their primary key.  Values are as
        SQLite has them; a missing column is None.  Text that is not valid UTF-8 is
        str with surrogate escapes (PEP 383).  May be called again.

        Raises:
            SourceError: the rows cannot be read to the end; those before it were
                right.  ``changed_while_reading`` is transient: take a new snapshot.
        """
        done = 0
        for start in range(0, len(self._head), batch_size):
            faults.point("source.read")
            batch = self._head[start : start + batch_size]
            yield batch
            done += len(batch)
        if not self._whole:
            for batch in self._stream(done, batch_size):
                yield batch
                done += len(batch)
        if self._count is None:
            self._count = done
        elif done != self._count:
            raise failure("corrupt", f"{done} rows can be read, an index has {self._count}.")

    def duplicates(self) -> frozenset[SqliteValue]:
        """Token ids other than NULL that more than one row has."""
        if self._table.unique_ids:
            return frozenset()
        if self._whole:
            seen = Counter((type(row[0]), row[0]) for row in self._head if row[0] is not None)
            return frozenset(value for (_, value), times in seen.items() if times > 1)
        with _translated():
            try:
                found = self._ask(self._table.duplicates).fetchall()
            except sqlite3.OperationalError as error:
                self._accept_any_text(error)
                found = self._ask(self._table.duplicates).fetchall()
        self._prove_unchanged()
        return frozenset(row[0] for row in found)

    def _read_head(self) -> None:
        while len(self._head) < HEAD_ROWS:
            batch = next(self._stream(len(self._head), HEAD_ROWS - len(self._head)), None)
            if batch is None:
                self._whole = True
                self._count = len(self._head)
                return
            self._head += batch
            if self._careful and len(marshal.dumps(batch, 2)) > _HEAD_BYTES // 2:
                return

    def _stream(self, done: int, batch_size: int) -> Iterator[list[SourceRow]]:
        with _translated():
            cursor = self._ask(self._table.select(done))
            while True:
                faults.point("source.read")
                assert self._connection is not None
                self._connection.expect_progress()
                try:
                    batch = self._take(cursor, batch_size)
                except sqlite3.OperationalError as error:
                    self._accept_any_text(error)
                    cursor = self._ask(self._table.select(done))
                    continue
                self._prove_unchanged()
                if not batch:
                    return
                done += len(batch)
                if done > self._most_rows:
                    raise failure("corrupt", "The table has more rows than the file can hold.")
                yield batch

    def _take(self, cursor: sqlite3.Cursor, size: int) -> list[SourceRow]:
        if not self._careful:
            return cursor.fetchmany(size)
        # In a large file many large values can be neighbours: stop when it is enough.
        batch: list[SourceRow] = []
        room = _HEAD_BYTES
        while len(batch) < size and room > 0:
            part = cursor.fetchmany(min(_CAREFUL_ROWS, size - len(batch)))
            if not part:
                break
            batch += part
            room -= len(marshal.dumps(part, 2))
        return batch

    def _ask(self, statement: str) -> sqlite3.Cursor:
        if self._connection is None:
            raise ValueError("the snapshot is closed")
        self._connection.expect_progress()
        return self._connection.execute(statement)

    def _accept_any_text(self, error: sqlite3.OperationalError) -> None:
        # The one error that Python's module raises itself has no code of SQLite.
        if hasattr(error, "sqlite_errorcode") or self._lossless_text:
            raise error
        assert self._connection is not None
        self._connection.read_text_losslessly()
        self._lossless_text = True

    def _prove_unchanged(self) -> None:
        """For ``immutable``: nothing was written since the fingerprint.

        A writer in WAL mode first makes a ``-wal``, and cannot remove it while the
        shared lock is held; so what was read until now was not being changed.
        """
        if self.way == "immutable" and self._files.state() != self._state:
            raise failure("changed_while_reading", "The node began to write while it was read.")

    # -- closing ---------------------------------------------------------------

    def _let_go(self) -> None:
        """Give back lock, files and copy; what was read stays."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._copy is not None:
            self._copy.remove()
            self._copy = None
        self._files.close()

    def close(self) -> None:
        self._let_go()
        self._head = []

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_snapshot(db_path: str, scratch: str | None = None, *, busy_s: float = 20.0) -> Snapshot:
    """Open a snapshot of the database at ``db_path``; use it as a context manager.

    Args:
        db_path: path of ``rubix.db``.
        scratch: directory on a local disk for private copies; None is the system's.
        busy_s: for so many seconds a busy database is tried again.

    Raises:
        SourceError: with one of the codes of `source.REMEDIES`.  A `SourceUnsettled`
            (``busy``, ``changed_while_reading``, ``too_many_files``) may succeed later.
    """
    end = time.monotonic() + busy_s
    pause = 0.005
    while True:
        try:
            with _translated():
                return Snapshot(db_path, Files(db_path), scratch)
        except SourceUnsettled:
            if time.monotonic() + pause > end:
                raise
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, no secret
        pause = min(pause * 2, 0.5)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise from_sqlite_error(error) from error
    except OSError as error:
        raise from_os_error(error, "read the database") from error


def _primary(error: sqlite3.Error) -> int:
    return int(error.sqlite_errorcode) & 0xFF


def _utc(moment_ns: int) -> datetime:
    """Nanoseconds since 1970 as UTC without a zone; times out of range are cut to it."""
    try:
        return datetime(1970, 1, 1) + timedelta(microseconds=moment_ns // 1000)
    except OverflowError:
        return datetime.max if moment_ns > 0 else datetime.min


def _refuse_super_journal(path: str) -> None:
    """Refuse a journal that names a super-journal.

    Recovery would open, and perhaps delete, whatever file is named there.  SQLite
    writes one only for transactions over several attached databases, which a node
    does not have.  (Format: sqlite.org/src/file/src/pager.c, readSuperJournal.)
    """
    with open(path, "rb") as journal:
        size = journal.seek(0, 2)
        journal.seek(max(0, size - len(_JOURNAL_MAGIC)))
        if journal.read() == _JOURNAL_MAGIC:
            raise failure(
                "unfinished_transaction",
                "Its unfinished transaction spans several databases.",
            )
