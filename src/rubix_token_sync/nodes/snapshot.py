"""One consistent moment of one node's database."""

from __future__ import annotations

import marshal
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final

from rubix_token_sync import failpoints
from rubix_token_sync.errors import SourceUnsettled
from rubix_token_sync.node_files import STALL_SECONDS, BoundedCalls, bounded
from rubix_token_sync.nodes.connection import USUAL_VALUE_BYTES, VALUE_LIMIT_BYTES, Table
from rubix_token_sync.nodes.database_errors import failure, from_os_error, from_sqlite_error
from rubix_token_sync.nodes.database_files import Files
from rubix_token_sync.nodes.open_database import Opened
from rubix_token_sync.records.schema import SourceRow
from rubix_token_sync.scratch import Scratch
from rubix_token_sync.text import counted

__all__ = ["HEAD_ROWS", "Snapshot", "fingerprint", "look_at", "open_snapshot"]

HEAD_ROWS: Final = 50_000
"""At most this many rows are read before the first is handed out."""
_BATCH_BYTES: Final = 32 * 2**20
_SMALL_FILE_BYTES: Final = 64 * 2**20  # can be in memory as a whole
_HEAD_PART_ROWS: Final = 5_000
_SMALLEST_ROW_BYTES: Final = 5  # cell pointer 2, payload size 1, row number 1, record 1
_COUNT_SECONDS: Final = 60.0


class Snapshot:
    """A database as it was at one moment; made by `open_snapshot`.

    Attributes:
        path: as given.
        fingerprint: of the moment before reading, see `fingerprint`.
        modified: latest modification time of the database and its ``-wal``, in UTC
            without a zone.
        columns: those of `SOURCE_COLUMNS` that the table has.
        unique_ids: the schema promises that no two rows have the same token id; a damaged
            index can break that promise.
    """

    def __init__(self, path: str, opened: Opened, calls: BoundedCalls) -> None:
        self.path = path
        self.fingerprint = opened.fingerprint
        self.modified = _utc(opened.state.modified_ns)
        self._opened = opened
        self._calls = calls
        self._head: list[SourceRow] = []
        self._whole = False
        self._count: int | None = None
        self._any_text = False
        self._large_values = False
        try:
            self._table = Table(opened.connection)
            self.columns = self._table.columns
            self.unique_ids = self._table.unique_ids
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
            self._count = self._calls.call(self._count_rows)
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
            while following := self._calls.call(lambda: next(stream, None)):
                yield following
                done += len(following)
        if self._count is None:
            self._count = done
        elif done != self._count:
            raise failure(
                "corrupt", f"{counted(done, 'row')} can be read, an index has {self._count:,}."
            )

    def close(self) -> None:
        """Give everything back; what a stalled file system holds, when it answers."""
        self._opened.interrupt()  # a call still under way, if this one was interrupted
        self._calls.close(self._opened.close)
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

    # What follows touches files: it runs in the thread of `BoundedCalls`.

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
                self._calls.progress()
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
        while len(batch) < size and room > 0 and (row := cursor.fetchone()) is not None:
            batch.append(row)
            room -= sum(len(value) for value in row if isinstance(value, str | bytes))
            self._calls.progress()
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
    scratch: Scratch | str | None = None,
    *,
    busy_s: float = 20.0,
    stall_s: float = STALL_SECONDS,
) -> Snapshot:
    """Open a snapshot of the database at ``db_path``; use it as a context manager.

    Args:
        db_path: path of the database, as text (see `rubix_token_sync.node_files`).
        scratch: where private copies may go; a path is the only such place.
        busy_s: for how many seconds a busy database is tried again.
        stall_s: a file system that gives no answer for this many seconds is given up.

    Raises:
        SourceError: with one of the codes of `database_errors.REMEDIES`.  A
            `SourceUnsettled` (``busy``, ``changed_while_reading``, ``too_many_files``) may
            succeed later.
    """
    place = scratch if isinstance(scratch, Scratch) else Scratch(scratch)
    end = time.monotonic() + busy_s
    pause = 0.005
    while True:
        calls = BoundedCalls(stall_s)

        def attempt(calls: BoundedCalls = calls) -> Snapshot:
            with _translated():
                return Snapshot(db_path, Opened(Files(db_path), place, calls.progress), calls)

        try:
            return calls.call(attempt, if_late=Snapshot.close)
        except SourceUnsettled as error:
            calls.close()
            # Handles do not come free while this process, which holds them, waits.
            if error.code == "too_many_files" or time.monotonic() + pause > end:
                raise
        except BaseException:
            calls.close()
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
        SourceError: the file is missing, empty, not a regular file, or unreadable.
    """
    return look_at(db_path, stall_s=stall_s)[0]


def look_at(db_path: str, *, stall_s: float = STALL_SECONDS) -> tuple[str, int]:
    """The `fingerprint`, and how many bytes the database and its companions have."""

    def look() -> tuple[str, int]:
        with _translated(), Files(db_path) as files:
            state, text = files.fingerprint()
            return text, state.size

    return bounded(look, stall_s=stall_s)


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
