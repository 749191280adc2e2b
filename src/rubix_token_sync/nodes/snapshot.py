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
from typing import Any, Final, NamedTuple

from rubix_token_sync import failpoints
from rubix_token_sync.errors import SourceUnsettled
from rubix_token_sync.node_files import STALL_SECONDS, BoundedCalls, bounded
from rubix_token_sync.nodes.connection import (
    USUAL_VALUE_BYTES,
    VALUE_LIMIT_BYTES,
    Table,
    find_companions,
    find_tables,
)
from rubix_token_sync.nodes.database_errors import failure, from_os_error, from_sqlite_error
from rubix_token_sync.nodes.database_files import Files
from rubix_token_sync.nodes.open_database import Opened
from rubix_token_sync.records.companions import CompanionSource
from rubix_token_sync.records.kinds import TokenKind
from rubix_token_sync.records.schema import SourceRow
from rubix_token_sync.scratch import Scratch
from rubix_token_sync.text import counted

__all__ = [
    "HEAD_ROWS",
    "CompanionRows",
    "KindRows",
    "Snapshot",
    "fingerprint",
    "look_at",
    "open_snapshot",
]

HEAD_ROWS: Final = 50_000
"""At most this many rows are read before the first is handed out."""
_BATCH_BYTES: Final = 32 * 2**20
_SMALL_FILE_BYTES: Final = 64 * 2**20  # can be in memory as a whole
_HEAD_PART_ROWS: Final = 5_000
_SMALLEST_ROW_BYTES: Final = 5  # cell pointer 2, payload size 1, row number 1, record 1
_COUNT_SECONDS: Final = 60.0


class KindRows(NamedTuple):
    """Some rows of one table of tokens."""

    kind: TokenKind
    rows: list[SourceRow]


class CompanionRows(NamedTuple):
    """Some rows of one table beside those of tokens."""

    source: CompanionSource
    rows: list[SourceRow]


class Snapshot:
    """A database as it was at one moment; made by `open_snapshot`.

    Attributes:
        path: as given.
        fingerprint: of the moment before reading, see `fingerprint`.
        modified: latest modification time of the database and its ``-wal``, in UTC
            without a zone.
        tables: those of tokens that it has, in the order in which they are read.
        companions: the ones beside them.
        left_out: the numbers of rows of companions that have too large a value, by the
            table's name; found while they are read.  Values there come from other nodes,
            too: one of them must not keep all tokens of a database from being read.
    """

    def __init__(self, path: str, opened: Opened, calls: BoundedCalls) -> None:
        self.path = path
        self.fingerprint = opened.fingerprint
        self.modified = _utc(opened.state.modified_ns)
        self._opened = opened
        self._calls = calls
        self._heads: list[list[SourceRow]] = []
        """The first rows of the first tables."""
        self._whole = 0
        """So many of the heads are all rows of their tables."""
        self._counts: dict[str, int] = {}
        self._any_text = False
        self._large_values = False
        self.left_out: dict[str, set[int]] = {}
        try:
            self.tables = find_tables(opened.connection)
            self.companions = find_companions(opened.connection)
            self._all: tuple[Table[Any], ...] = (*self.tables, *self.companions)
            # Rows that the file cannot possibly hold mean that its pages go in circles.
            self._most_rows = opened.state.size // _SMALLEST_ROW_BYTES
            self._set_reading()
            if self._read_heads():
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
        """How many rows its tables of tokens have, together."""
        return sum(self.kinds.values())

    @property
    def kinds(self) -> dict[str, int]:
        """How many rows its tables of tokens have, by kind."""
        if any(table.kind.name not in self._counts for table in self.tables):
            self._calls.call(self._count_rows)
        return {table.kind.name: self._counts[table.kind.name] for table in self.tables}

    def rows(self, batch_size: int) -> Iterator[KindRows]:
        """One table's rows after the other's, in row order, at most ``batch_size`` at a time.

        Tables WITHOUT ROWID come in the order of their primary key.  Values are as
        SQLite has them; a missing column is None.  Text that is not valid UTF-8 is
        str with surrogate escapes (PEP 383).  May be called again.

        Raises:
            SourceError: the rows cannot be read to the end; those before it were
                right.  ``changed_while_reading`` is transient: take a new snapshot.
        """
        for number, table in enumerate(self.tables):
            for rows in self._rows_of(number, batch_size):
                yield KindRows(table.kind, rows)

    def companion_rows(self, batch_size: int) -> Iterator[CompanionRows]:
        """What stands beside the tokens, as `rows` gives those; the same moment.

        Rows with a value of more than `VALUE_LIMIT_BYTES` are left out and counted.

        Raises:
            SourceError: as `rows`.
        """
        for number, table in enumerate(self.companions, len(self.tables)):
            for rows in self._rows_of(number, batch_size):
                yield CompanionRows(table.kind, rows)

    def _rows_of(self, number: int, batch_size: int) -> Iterator[list[SourceRow]]:
        table = self._all[number]
        head = self._heads[number] if number < len(self._heads) else []
        for start in range(0, len(head), batch_size):
            yield head[start : start + batch_size]
        done = len(head)
        if number >= self._whole:
            stream = self._stream(table, done, batch_size)
            while following := self._next(stream):
                yield following
                done += len(following)
        if self._counts.setdefault(table.kind.name, done) != done:
            raise failure(
                "corrupt",
                f"{counted(done, 'row')} of {table.kind.table} can be read, an index has "
                f"{self._counts[table.kind.name]:,}.",
            )

    def _next(self, stream: Iterator[list[SourceRow]]) -> list[SourceRow] | None:
        return self._calls.call(lambda: next(stream, None))

    def close(self) -> None:
        """Give everything back; what a stalled file system holds, when it answers."""
        self._opened.interrupt()  # a call still under way, if this one was interrupted
        self._calls.close(self._opened.close)
        self._heads = []

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

    def _count_rows(self) -> None:
        # SQLite looks at no deadline while it counts: pages in circles would do.
        timer = threading.Timer(_COUNT_SECONDS, self._opened.connection.interrupt)
        timer.daemon = True
        timer.start()
        counts: dict[str, int] = {}
        try:
            with _translated():
                for table in self.tables:
                    if table.kind.name not in self._counts:
                        counts[table.kind.name] = int(self._ask(table.count).fetchone()[0])
        finally:
            timer.cancel()
        self._prove_unchanged()
        for count in counts.values():
            self._check_number(count)
        self._counts |= counts

    def _read_heads(self) -> bool:
        """Read what is handed out first; True if that is everything."""
        small = self._opened.state.size <= _SMALL_FILE_BYTES
        rows, room = HEAD_ROWS, _BATCH_BYTES
        for table in self._all:
            head: list[SourceRow] = []
            self._heads.append(head)
            for batch in self._stream(table, 0, HEAD_ROWS if small else _HEAD_PART_ROWS):
                head += batch
                rows -= len(batch)
                if not small:
                    room -= len(marshal.dumps(batch, 2))
                if rows <= 0 or room <= 0:
                    return False
            self._counts[table.kind.name] = len(head)
            self._whole += 1
        return True

    def _stream(self, table: Table[Any], done: int, batch_size: int) -> Iterator[list[SourceRow]]:
        with _translated():
            cursor: sqlite3.Cursor | None = None
            at = self._row_number(table, done)
            alone = False  # the next row, because a value of it or of the following is too large
            while True:
                failpoints.point("source.read")
                self._calls.progress()
                batch: list[SourceRow] = []
                too_large = False
                try:
                    if cursor is None:
                        cursor = self._ask(table.select(at, 1 if alone else -1))
                    self._take(cursor, batch_size, batch)
                except sqlite3.Error as error:
                    cursor = None
                    too_large = self._leaves_out(table, error)
                    if not too_large:
                        self._read_otherwise(error)
                        continue
                if self._opened.changed():
                    if self.way == "read-only":
                        raise failure("changed_while_reading", "The file was written over.")
                    # What was read until the writer came is right and can be read on
                    # from a copy, if the database file is still as it was.
                    self._continue_on_a_copy()
                    cursor = None
                    continue
                if too_large and alone:
                    self.left_out.setdefault(table.kind.name, set()).add(at)
                    at += 1
                elif not batch and not too_large:
                    return
                cursor = None if alone else cursor
                alone = too_large and not alone
                at += len(batch)
                self._check_number(at)
                if batch:
                    yield batch

    def _take(self, cursor: sqlite3.Cursor, size: int, batch: list[SourceRow]) -> None:
        """Add the next rows to ``batch``."""
        self._opened.connection.expect_progress()
        if not self._large_values:
            batch += cursor.fetchmany(size)
            return
        room = _BATCH_BYTES
        while len(batch) < size and room > 0 and (row := cursor.fetchone()) is not None:
            batch.append(row)
            room -= sum(len(value) for value in row if isinstance(value, str | bytes))
            self._calls.progress()

    def _leaves_out(self, table: Table[Any], error: sqlite3.Error) -> bool:
        """Whether the row that cannot be read is left out because a value is too large."""
        code = getattr(error, "sqlite_errorcode", None)
        return code == sqlite3.SQLITE_TOOBIG and self._large_values and table in self.companions

    def _row_number(self, table: Table[Any], done: int) -> int:
        """Of the row behind the first ``done`` that were handed out, counted from 0."""
        at = done
        for left_out in sorted(self.left_out.get(table.kind.name, ())):
            at += left_out <= at
        return at

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
