"""One consistent moment of one node's database."""

from __future__ import annotations

import marshal
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final

from rubix_token_sync import failpoints
from rubix_token_sync.errors import SourceUnsettled
from rubix_token_sync.nodes.bounded_calls import STALL_SECONDS, Patience
from rubix_token_sync.nodes.connection import USUAL_VALUE_BYTES, VALUE_LIMIT_BYTES, Table
from rubix_token_sync.nodes.database_errors import failure, from_os_error, from_sqlite_error
from rubix_token_sync.nodes.database_files import Files
from rubix_token_sync.nodes.open_database import Opened
from rubix_token_sync.records.schema import SourceRow, SqliteValue

__all__ = ["HEAD_ROWS", "Snapshot", "fingerprint", "open_snapshot"]

HEAD_ROWS: Final = 50_000
"""So many rows are read before the first is handed out."""
_BATCH_BYTES: Final = 32 * 2**20
_SMALL_FILE_BYTES: Final = 64 * 2**20  # can be in memory as a whole
_HEAD_PART_ROWS: Final = 5_000
_CAREFUL_ROWS: Final = 64
_SMALLEST_ROW_BYTES: Final = 5  # cell pointer 2, payload size 1, row number 1, record 1
_MOST_DUPLICATES: Final = 1_000_000
_COUNT_SECONDS: Final = 60.0


class Snapshot:
    """A database as it was at one moment; made by `open_snapshot`.

    Attributes:
        path: as given.
        fingerprint: of the moment before reading, see `source.fingerprint`.
        modified: latest modification time of ``rubix.db`` and its ``-wal``, in UTC
            without a zone.
        columns: those of `SOURCE_COLUMNS` that the table has.
    """

    def __init__(self, path: str, opened: Opened, patience: Patience) -> None:
        self.path = path
        self.fingerprint = opened.fingerprint
        self.modified = _utc(opened.state.modified_ns)
        self._opened = opened
        self._patience = patience
        self._head: list[SourceRow] = []
        self._whole = False
        self._count: int | None = None
        self._any_text = False
        self._large_values = False
        try:
            self._table = Table(opened.connection)
            self.columns = self._table.columns
            # Rows that the file cannot possibly hold mean that its pages go in circles.
            self._most_rows = opened.state.size // _SMALLEST_ROW_BYTES
            self._set_reading()
            self._read_head()
            if self._whole:
                opened.close()
            elif self.way == "read-only":
                self._continue_on_a_copy()
        except BaseException:
            opened.close()
            raise

    @property
    def way(self) -> str:
        """How it is read: ``read-only``, ``immutable``, ``wal`` or ``copy``."""
        return self._opened.way

    @property
    def count(self) -> int:
        """How many rows the table has."""
        if self._count is None:
            self._count = self._patience.call(self._count_rows)
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
            batch = self._head[start : start + batch_size]
            yield batch
            done += len(batch)
        if not self._whole:
            stream = self._stream(done, batch_size)
            while following := self._patience.call(lambda: next(stream, None)):
                yield following
                done += len(following)
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
        return self._patience.call(self._find_duplicates)

    def close(self) -> None:
        """Give everything back; what a stalled file system holds, when it answers."""
        self._opened.interrupt()  # a call still under way, if this one was interrupted
        self._patience.close(self._opened.close)
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

    # What follows touches files: it runs in the thread of `Patience`.

    def _count_rows(self) -> int:
        # SQLite looks at no deadline while it counts: pages in circles would do.
        timer = threading.Timer(_COUNT_SECONDS, self._opened.connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            with _translated():
                count = int(self._ask(self._table.count).fetchone()[0])
        finally:
            timer.cancel()
        self._prove_unchanged()
        self._check_number(count)
        return count

    def _find_duplicates(self) -> frozenset[SqliteValue]:
        with _translated():
            while True:
                try:
                    found = self._ask(self._table.duplicates).fetchmany(_MOST_DUPLICATES)
                    break
                except sqlite3.Error as error:
                    self._read_otherwise(error)
        if len(found) == _MOST_DUPLICATES:
            raise failure("too_many_duplicates", f"At least {len(found)} token ids are repeated.")
        self._prove_unchanged()
        return frozenset(row[0] for row in found)

    def _read_head(self) -> None:
        small = self._opened.state.size <= _SMALL_FILE_BYTES
        room = _BATCH_BYTES
        for batch in self._stream(0, HEAD_ROWS if small else _HEAD_PART_ROWS):
            self._head += batch
            if not small:
                room -= len(marshal.dumps(batch, 2))
            if len(self._head) >= HEAD_ROWS or room <= 0:
                return
        self._whole = True
        self._count = len(self._head)

    def _stream(self, done: int, batch_size: int) -> Iterator[list[SourceRow]]:
        with _translated():
            cursor: sqlite3.Cursor | None = None
            while True:
                failpoints.point("source.read")
                self._patience.progress()
                try:
                    if cursor is None:
                        cursor = self._ask(self._table.select(done))
                    batch = self._take(cursor, batch_size)
                except sqlite3.Error as error:
                    self._read_otherwise(error)
                    cursor = None
                    continue
                if self._opened.changed():
                    if self.way == "read-only":
                        raise failure("changed_while_reading", "The file was written over.")
                    # What was read until the writer came is right and can be read on
                    # from a copy, if the database file is still as it was.
                    self._continue_on_a_copy()
                    cursor = None
                    continue
                if not batch:
                    return
                done += len(batch)
                self._check_number(done)
                yield batch

    def _take(self, cursor: sqlite3.Cursor, size: int) -> list[SourceRow]:
        self._opened.connection.expect_progress()
        if not self._large_values:
            return cursor.fetchmany(size)
        batch: list[SourceRow] = []
        room = _BATCH_BYTES
        while len(batch) < size and room > 0:
            part = cursor.fetchmany(min(_CAREFUL_ROWS, size - len(batch)))
            if not part:
                break
            batch += part
            room -= len(marshal.dumps(part, 2))
        return batch

    def _ask(self, statement: str) -> sqlite3.Cursor:
        self._opened.connection.expect_progress()
        return self._opened.connection.execute(statement)

    def _continue_on_a_copy(self) -> None:
        self._opened.continue_on_a_copy()
        self._set_reading()

    def _set_reading(self) -> None:
        """Read the fast way, or the way that values met so far ask for."""
        connection = self._opened.connection
        if self._any_text:
            connection.read_text_losslessly()
        else:
            connection.read_text_strictly()
        connection.limit_values(VALUE_LIMIT_BYTES if self._large_values else USUAL_VALUE_BYTES)

    def _read_otherwise(self, error: sqlite3.Error) -> None:
        """Change the way of reading if that helps against ``error``, else raise it."""
        code = getattr(error, "sqlite_errorcode", None)
        if code is None and isinstance(error, sqlite3.OperationalError) and not self._any_text:
            # The one error without a code of SQLite's: Python could not decode a text.
            self._any_text = True
        elif code == sqlite3.SQLITE_TOOBIG and not self._large_values:
            self._large_values = True
        else:
            raise error
        self._set_reading()

    def _check_number(self, rows: int) -> None:
        if rows > self._most_rows:
            raise failure("corrupt", "The table has more rows than the file can hold.")

    def _prove_unchanged(self) -> None:
        if self._opened.changed():
            raise failure("changed_while_reading", "The node began to write while it was read.")


def open_snapshot(
    db_path: str,
    scratch: str | None = None,
    *,
    busy_s: float = 20.0,
    stall_s: float = STALL_SECONDS,
) -> Snapshot:
    """Open a snapshot of the database at ``db_path``; use it as a context manager.

    Args:
        db_path: path of ``rubix.db``.
        scratch: directory on a local disk for private copies; None is the system's.
        busy_s: for so many seconds a busy database is tried again.
        stall_s: a file system that gives no answer for so many seconds is given up.

    Raises:
        SourceError: with one of the codes of `source.REMEDIES`.  A `SourceUnsettled`
            (``busy``, ``changed_while_reading``, ``too_many_files``) may succeed later.
    """
    end = time.monotonic() + busy_s
    pause = 0.005
    while True:
        patience = Patience(stall_s)

        def attempt(patience: Patience = patience) -> Snapshot:
            with _translated():
                return Snapshot(
                    db_path, Opened(Files(db_path), scratch, patience.progress), patience
                )

        try:
            return patience.call(attempt, if_late=Snapshot.close)
        except SourceUnsettled:
            patience.close()
            if time.monotonic() + pause > end:
                raise
        except BaseException:
            patience.close()
            raise
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, no secret
        pause = min(pause * 1.5, 0.1)


def fingerprint(db_path: str, *, stall_s: float = STALL_SECONDS) -> str:
    """A text that changes whenever the database at ``db_path`` may have changed.

    It covers the database file (inode, size, times in nanoseconds, SQLite's own
    header with its change counter), the ``-wal`` (the same, and its header) and
    the ``-journal``.  Compare for equality only.  A checkpoint, a copy or a
    touched file changes it although the tokens are the same; nothing that
    changes a token leaves it as it was.  When the files were changed so recently
    that a further change could hide in the same tick of the clock, the text is
    unique: it will never compare equal.

    Raises:
        SourceError: the file is missing, empty, no regular file or unreadable.
    """
    patience = Patience(stall_s)

    def look() -> str:
        with _translated(), Files(db_path) as files:
            return files.fingerprint()[1]

    try:
        return patience.call(look)
    finally:
        patience.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise from_sqlite_error(error) from error
    except UnicodeDecodeError as error:  # in a message that quotes a name out of the schema
        raise failure("corrupt", "SQLite cannot read it, nor say why in UTF-8.") from error
    except OSError as error:
        raise from_os_error(error, "read the database") from error


def _utc(moment_ns: int) -> datetime:
    """Nanoseconds since 1970 as UTC without a zone; times out of range are cut to it."""
    try:
        return datetime(1970, 1, 1) + timedelta(microseconds=moment_ns // 1000)
    except OverflowError:
        return datetime.max if moment_ns > 0 else datetime.min
