"""Connections to databases that cannot be trusted.

A node's database is input like any other: its schema may hold views, triggers,
virtual tables and computed columns, and its pages may be made by hand.  Nothing
of that is ever run here, and every limit that SQLite has is set.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, Generic, Protocol, TypeVar
from urllib.parse import quote

from rubix_token_sync import failpoints, node_files
from rubix_token_sync.nodes.database_errors import failure
from rubix_token_sync.records.companions import COMPANION_SOURCES, CompanionSource
from rubix_token_sync.records.kinds import KINDS, TokenKind

__all__ = [
    "USUAL_VALUE_BYTES",
    "VALUE_LIMIT_BYTES",
    "Connection",
    "NodeTable",
    "Table",
    "find_companions",
    "find_tables",
]

VALUE_LIMIT_BYTES: Final = 2**20
"""A single value larger than this is the error ``too_large_value`` of its database.

No token's column holds more than some hundred bytes; without a limit one value
could take all memory (SQLite's own limit is 1 GB)."""

USUAL_VALUE_BYTES: Final = 2**12
"""Values larger than this are read too, but with care for memory."""

_STEP_SECONDS: Final = 60.0
_OPERATIONS_BETWEEN_LOOKS: Final = 1_000_000
_COLUMN_LIMIT: Final = 2000
_NAMED_TABLES: Final = 20
_NAME_CHARACTERS: Final = 64
_HIDDEN_VIRTUAL: Final = 2  # table_xinfo: a computed column that is not stored


class Connection:
    """A read-only connection in one read transaction, with limits set."""

    def __init__(self, path: str | bytes, options: str) -> None:
        node_files.require_bounded()
        failpoints.point("source.connect")
        uri = f"file:{quote(os.fsencode(path))}?{options}"
        self._raw = sqlite3.connect(
            uri, uri=True, isolation_level=None, timeout=0, check_same_thread=False
        )
        try:
            self._defend()
            self._raw.execute("BEGIN")
            # The first read takes the lock and, in WAL mode, the moment that is read.
            self.execute("SELECT count(*) FROM sqlite_master LIMIT 0").fetchall()
        except BaseException:
            self._raw.close()
            raise

    def _defend(self) -> None:
        raw = self._raw
        self.expect_progress()
        raw.set_progress_handler(self._late, _OPERATIONS_BETWEEN_LOOKS)
        for limit, value in (
            (sqlite3.SQLITE_LIMIT_LENGTH, VALUE_LIMIT_BYTES),
            (sqlite3.SQLITE_LIMIT_SQL_LENGTH, VALUE_LIMIT_BYTES),
            (sqlite3.SQLITE_LIMIT_COLUMN, _COLUMN_LIMIT),
            (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 100),
            (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
            (sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 1),
            (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
        ):
            raw.setlimit(limit, value)
        if hasattr(raw, "setconfig"):  # Python 3.12 and later
            for name, on in (
                ("SQLITE_DBCONFIG_DEFENSIVE", True),
                ("SQLITE_DBCONFIG_TRUSTED_SCHEMA", False),
                ("SQLITE_DBCONFIG_ENABLE_TRIGGER", False),
                ("SQLITE_DBCONFIG_ENABLE_VIEW", False),
            ):
                raw.setconfig(getattr(sqlite3, name), on)
        for pragma in (
            "trusted_schema=OFF",
            "query_only=ON",
            "cell_size_check=ON",
            "mmap_size=0",
            "temp_store=MEMORY",  # SQLite's own files could go into the current directory
        ):
            raw.execute(f"PRAGMA {pragma}")

    def limit_values(self, size: int) -> None:
        """Make reading a value larger than ``size`` bytes the error SQLITE_TOOBIG."""
        self._raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, size)

    def expect_progress(self) -> None:
        """From now, one call of SQLite may take `_STEP_SECONDS`."""
        self._deadline = time.monotonic() + _STEP_SECONDS

    def _late(self) -> bool:
        return time.monotonic() > self._deadline

    def interrupt(self) -> None:
        """Make the running call fail; from any thread."""
        with suppress(sqlite3.ProgrammingError):  # just closed by another thread
            self._raw.interrupt()

    def execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        return self._raw.execute(statement, values)

    def read_text_losslessly(self) -> None:
        """Give text that is not valid UTF-8 as str with surrogate escapes.

        Slower than the default, which fails on such text; clean text is the same.
        """
        self._raw.text_factory = lambda data: data.decode("utf-8", "surrogateescape")

    def read_text_strictly(self) -> None:
        """Give text as str, and fail on what is not valid UTF-8 (the fast way)."""
        self._raw.text_factory = str

    def close(self) -> None:
        self._raw.close()


class NodeTable(Protocol):
    """What is said of one of a node's tables, so that it can be read."""

    @property
    def name(self) -> str:
        """What it is called here."""

    @property
    def table(self) -> str:
        """What the node calls it."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Our columns → the node's."""

    @property
    def key(self) -> str:
        """Of ``columns``: what tells its rows apart."""

    @property
    def wanted(self) -> Sequence[str | None]:
        """The node's columns, in the order in which they are read; None: a NULL."""


Read = TypeVar("Read", bound=NodeTable)


def find_tables(connection: Connection) -> tuple[Table[TokenKind], ...]:
    """The tables of tokens that the database has, in the order of `KINDS`.

    Raises:
        SourceError: ``no_tokens_table`` where there is none of them; ``not_a_table``.
    """
    connection.read_text_losslessly()
    found = [Table.find(connection, kind) for kind in KINDS]
    tables = tuple(table for table in found if table is not None)
    if not tables:
        raise failure("no_tokens_table", _missing_tables(connection))
    return tables


def find_companions(connection: Connection) -> tuple[Table[CompanionSource], ...]:
    """The tables beside those of tokens that the database has, in their order.

    Raises:
        SourceError: ``not_a_table``.
    """
    connection.read_text_losslessly()
    found = [Table.find(connection, source) for source in COMPANION_SOURCES]
    return tuple(table for table in found if table is not None)


class Table(Generic[Read]):
    """What the schema says about one table, and the statements that read it.

    Attributes:
        kind: of its rows.
        columns: those of ``kind.columns`` that it has, by our names.
        unique_ids: the schema promises that no two rows have the same key; a damaged
            index can break that promise.
    """

    @staticmethod
    def find(connection: Connection, kind: Read) -> Table[Read] | None:
        """The table of this kind; None where the database has none."""
        found = connection.execute(
            "SELECT type, name, rootpage, sql FROM sqlite_master "
            "WHERE name = ? COLLATE NOCASE AND type IN ('table', 'view')",
            (kind.table,),
        ).fetchall()
        if not found:
            return None
        what, name, root_page, sql = found[0]
        words = str(sql).split(None, 2)
        if (
            what != "table"
            or not isinstance(root_page, int)
            or root_page <= 0
            or [word.upper() for word in words[:2]] != ["CREATE", "TABLE"]
        ):
            raise failure("not_a_table", f"{kind.table} is a view or a virtual table.")
        return Table(connection, kind, _quoted(str(name)))

    def __init__(self, connection: Connection, kind: Read, name: str) -> None:
        """``name`` is quoted."""
        self.kind = kind
        self.name = name
        stored = self._stored_columns(connection)
        self._wanted = [column if column in stored else None for column in kind.wanted]
        self.columns = frozenset(ours for ours, its in kind.columns.items() if its in stored)
        self._order = self._row_order(connection, stored)
        self.unique_ids = self._ids_are_unique(connection)

    def _stored_columns(self, connection: Connection) -> set[str]:
        columns: set[str] = set()
        for row in connection.execute(f"PRAGMA table_xinfo({self.name})"):
            column = str(row[1]).lower()
            columns.add(column)
            if column in self.kind.wanted and row[6] == _HIDDEN_VIRTUAL:
                raise failure("not_a_table", f"Column {column} of {self.kind.table} is computed.")
        return columns

    def _row_order(self, connection: Connection, columns: set[str]) -> str:
        alias = next((name for name in ("rowid", "_rowid_", "oid") if name not in columns), None)
        if alias is None:
            raise failure("not_a_table", f"{self.kind.table} hides its row numbers.")
        try:
            probe = f"SELECT t.{alias} FROM main.{self.name} AS t LIMIT 0"  # noqa: S608 - quoted
            connection.execute(probe)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                raise
            return ""  # WITHOUT ROWID: the table is its primary key's tree, in that order
        return f"ORDER BY t.{alias}"

    def _ids_are_unique(self, connection: Connection) -> bool:
        """Whether the schema promises ids that are unique, also when read as UTF-8."""
        if self.kind.key not in self.columns:
            return True
        id_column = self.kind.columns[self.kind.key]
        if connection.execute("PRAGMA encoding").fetchone() != ("UTF-8",):
            return False
        key = [
            (str(row[1]).lower(), str(row[2]).upper())
            for row in connection.execute(f"PRAGMA table_xinfo({self.name})")
            if row[5]
        ]
        if key == [(id_column, "INTEGER")]:
            return True  # the row number itself: there is no index to find below
        for index, unique, partial in connection.execute(
            'SELECT name, "unique", partial FROM pragma_index_list(?)', (self.kind.table,)
        ).fetchall():
            if not unique or partial:
                continue
            try:
                of = connection.execute("SELECT name FROM pragma_index_info(?)", (index,))
            except UnicodeEncodeError:
                continue  # an index whose name is not text; the rows are compared instead
            if [str(name).lower() for (name,) in of] == [id_column]:
                return True
        return False

    def select(self, offset: int, most: int = -1) -> str:
        """Rows from number ``offset`` on, in row order, with the columns that are wanted.

        At most ``most`` of them; -1: all.
        """
        wanted = ", ".join(
            f"t.{_quoted(column)}" if column is not None else "NULL" for column in self._wanted
        )
        # NOT INDEXED: an index may be damaged or lie; the table is what counts.
        return (
            f"SELECT {wanted} FROM main.{self.name} AS t NOT INDEXED "  # noqa: S608 - quoted
            f"{self._order} LIMIT {int(most)} OFFSET {int(offset)}"
        )

    @property
    def count(self) -> str:
        """How many rows there are (SQLite counts the smallest index where it can)."""
        return f"SELECT count(*) FROM main.{self.name}"  # noqa: S608 - quoted


def _missing_tables(connection: Connection) -> str:
    """Which tables a database without tokens has: they show what the file is."""
    missing = f"The database has no table {KINDS[0].table}, and none of another kind of token"
    found = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' "
        "ESCAPE '!' ORDER BY name LIMIT ?",
        (_NAMED_TABLES + 1,),
    ).fetchall()
    if not found:
        return f"{missing}; it has no tables at all."
    names = [ascii(str(name)[:_NAME_CHARACTERS])[1:-1] for (name,) in found[:_NAMED_TABLES]]
    more = " and more" if len(found) > _NAMED_TABLES else ""
    return f"{missing}; it has {', '.join(names)}{more}."


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
