"""The T-SQL of staging and publishing, and rows in the form its parameters take.

Publishing is set-based and without MERGE: one batch updates what differs and
inserts what is new, and reports both counts as a row (counts come from the
server, never from the driver).  The batch fits into one packet: it travels with each
database's records.  Texts are compared as bytes, because the usual collation of Azure
SQL ignores case and trailing blanks.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from mssql_python.constants import ConstantsDDBC

from rubix_token_sync.records.schema import RECORD_KEY_BYTES, Column, RecordTable
from rubix_token_sync.targets.sql.history import keep_sql

__all__ = [
    "CLEANED_AT_ONCE",
    "HOLD_LEASE",
    "NOW",
    "Parameters",
    "Statements",
    "as_records",
    "joined",
    "sample",
    "with_load",
    "with_run",
]

NOW: Final = "CAST(SYSUTCDATETIME() AS DATETIME2(6))"
"""Whole microseconds, as Python has them: a time read equals the time stored."""

HOLD_LEASE: Final = (
    "SET XACT_ABORT ON; SET NOCOUNT ON; BEGIN TRANSACTION;"
    " SELECT run_number FROM SyncLeases WITH (REPEATABLEREAD) WHERE session_id = '{session}'"
)
"""Begins a transaction in which nobody can take the session's lease.

One row if it is held: the number of the run.

The lock is a shared one, so that writers of one session do not wait for each other.
"""

CLEANED_AT_ONCE: Final = 20_000
"""Rows that `Statements.clean` removes at most."""


class Statements:
    """Those about one table of records and its staging table."""

    def __init__(self, columns: RecordTable) -> None:
        names = ", ".join(columns.names)
        self.table, self.staging = table, staging = columns.name, columns.staging
        self.bulk_columns = ("load_id", *columns.names)
        marks = ", ".join("?" for _ in self.bulk_columns)
        self.stage_row = f"INSERT INTO {staging} ({', '.join(self.bulk_columns)}) VALUES ({marks})"  # noqa: S608 - our names
        self.staged = f"SELECT {names} FROM {staging} WHERE load_id = ? ORDER BY record_key"  # noqa: S608
        self.count_staged = f"SELECT COUNT(*) FROM {staging} WHERE load_id = ?"  # noqa: S608
        self.stored = f"SELECT {names} FROM {table} {_LIVE} ORDER BY record_key"  # noqa: S608
        """Takes the smallest and the largest key of a database."""
        self.known = f"SELECT record_key, row_digest FROM {table} {_LIVE}"  # noqa: S608
        """Takes the smallest and the largest key of a database."""
        self.versioned = columns.versioned
        self.keep = _keep(columns)
        """Takes the run twice, and the load id."""
        self.publish = _publish(columns, f"{self.keep}; " if self.versioned else "")
        """Takes `publish_parameters`; one row: updated, inserted."""
        self.stamps = (
            f"SELECT COUNT(*) FROM sys.columns WHERE object_id = OBJECT_ID('dbo.{table}')"  # noqa: S608
            " AND name = 'synced_at' AND default_object_id <> 0"
        )
        """1 where rows that come without ``synced_at`` get the server's time, as the guide has."""
        self.left_behind = (
            "loaded_at < DATEADD(DAY, -2, SYSUTCDATETIME()) OR EXISTS (SELECT 1 FROM SyncLeases AS"  # noqa: S608
            f" l WHERE l.source_ip = {staging}.source_ip AND l.acquired_at > {staging}.loaded_at)"
        )
        """Staged by a run that is dead: days ago, or before another one took its source's lease."""

    def publish_parameters(self, load_id: int, staged: int, run: int) -> tuple[int, ...]:
        """Those of `publish`, in their order."""
        if not self.versioned:
            return (load_id, staged, load_id)
        return (run, load_id, staged, run, run, load_id, run, run, load_id)

    def clean(self, where: str) -> str:
        """Removes a bounded number of staged rows; one row: how many."""
        return (
            f"SET NOCOUNT ON; DELETE TOP ({CLEANED_AT_ONCE}) FROM {self.staging} WHERE {where};"
            " SELECT @@ROWCOUNT; SET NOCOUNT OFF"
        )


_NO_TEXT: Final = "0x00D8"
"""Stands for NULL among the bytes of texts: half a surrogate pair, which is no text."""


def _differ(column: Column) -> str:
    """The record's value is not the staged one's."""
    name = column.name
    if column.kind == "text":
        old, new = (f"ISNULL(CAST({of}.{name} AS VARBINARY(MAX)), {_NO_TEXT})" for of in "rs")
        return f"{old} <> {new}"
    if column.required and not column.default:
        return f"r.{name} <> s.{name}"
    # NULLIF is NULL where they are equal, and where its first one is.
    return f"ISNULL(NULLIF(r.{name}, s.{name}), NULLIF(s.{name}, r.{name})) IS NOT NULL"


def _replaced(columns: RecordTable) -> str:
    return " OR ".join(["r.source_deleted_at IS NOT NULL", *map(_differ, columns.compared)])


def _keep(columns: RecordTable) -> str:
    """Records that are replaced next, locked so that nobody changes them before."""
    table, staging = columns.name, columns.staging
    return (
        keep_sql(
            columns,
            run="?",
            found=f"{table} AS r WITH (UPDLOCK) JOIN {staging} AS s ON s.record_key = r.record_key",
            differs=_differ,
            replaced=_replaced(columns),
            joined=lambda texts: f"CONCAT({', '.join(texts)})",
            cut="SUBSTRING",
            unchanged="",  # CONCAT passes over a NULL
        )
        + " AND s.load_id = ?"
    )


def _publish(columns: RecordTable, keep: str) -> str:
    names, table, staging = columns.names, columns.name, columns.staging
    sets = ", ".join(f"{name} = s.{name}" for name in names if name != "record_key")
    since, run = "", ""
    if columns.versioned:  # see `later_run`
        since, run = ", since_run", ", ?"
        sets += ", since_run = CASE WHEN r.since_run > ? THEN r.since_run ELSE ? END"
    parts = (
        "SET NOCOUNT ON; DECLARE @inserted INT; DECLARE @updated INT; SET @updated = 0;",
        f"INSERT INTO {table} ({', '.join(names)}, synced_at{since})",
        f"SELECT {', '.join('s.' + name for name in names)}, {NOW}{run}",
        f"FROM {staging} AS s WHERE s.load_id = ? AND NOT EXISTS",
        f"(SELECT 1 FROM {table} AS t WHERE t.record_key = s.record_key);",  # noqa: S608
        "SET @inserted = @@ROWCOUNT;",
        # A first load has nothing to update: spare the look at every record.
        f"IF @inserted < ? BEGIN {keep}".strip(),
        f"UPDATE r SET {sets}, synced_at = {NOW}, source_deleted_at = NULL",  # noqa: S608 - our names
        f"FROM {table} AS r JOIN {staging} AS s ON s.record_key = r.record_key",
        f"WHERE s.load_id = ? AND ({_replaced(columns)});",
        "SET @updated = @@ROWCOUNT END;",
        "SELECT @updated, @inserted; SET NOCOUNT OFF",
    )
    return " ".join(parts)


_KEY: Final = f"CAST(? AS BINARY({RECORD_KEY_BYTES}))"  # the driver sends VARBINARY
_LIVE: Final = f"WHERE record_key BETWEEN {_KEY} AND {_KEY} AND source_deleted_at IS NULL"


def sample(source: str, columns: RecordTable) -> pa.RecordBatch:
    """Three made-up records with the values that a bulk copy might store differently."""
    moment = datetime(2001, 2, 3, 4, 5, 6, 789_012)
    empty: dict[str, Any] = {
        column.name: bytes(column.size or 0)
        if column.kind == "bytes"
        else moment
        if column.kind == "time"
        else ""
        for column in columns.staged
        if column.required
    }
    texts = [column.name for column in columns.staged if column.kind == "text"]
    flags = [column.name for column in columns.staged if column.kind == "flag"]
    times = [column.name for column in columns.staged if column.kind == "time"]
    long = [column.name for column in columns.staged if column.kind == "text" and not column.size]
    no, yes = dict.fromkeys(flags, False), dict.fromkeys(flags, True)
    rows = [
        {**empty, **no},
        {**empty, **yes, **dict.fromkeys(long[-1:], "x" * 9_000), **dict.fromkeys(times, moment)},
        {**empty, **yes, **dict.fromkeys(texts, "\u00fc\u4e2d\U0001f600 ' ")},
    ]
    for number, row in enumerate(rows):
        row["record_key"] = bytes(RECORD_KEY_BYTES - 1) + bytes([number])
        row["source_ip"] = source
    return pa.RecordBatch.from_pylist(rows, schema=columns.schema)


def with_run(rows: pa.RecordBatch, run: int) -> pa.RecordBatch:
    """``rows`` with the run's number behind."""
    return rows.append_column("since_run", pa.repeat(pa.scalar(run, pa.int64()), rows.num_rows))


def with_load(rows: pa.RecordBatch, load_id: int) -> pa.RecordBatch:
    """``rows`` with the load's id in front: what a bulk copy takes."""
    ids = pa.array([load_id], pa.int64()).take(pa.array([0] * rows.num_rows, pa.int32()))
    return pa.RecordBatch.from_arrays(
        [ids, *rows.columns], schema=pa.schema([pa.field("load_id", pa.int64()), *rows.schema])
    )


def joined(column: pa.Array) -> bytes:
    """A binary column's values, one behind the other."""
    return b"".join(column.to_pylist())


def as_records(block: pa.RecordBatch, columns: RecordTable) -> pa.RecordBatch:
    """What the driver fetched (large types) as a batch of records."""
    arrays = [
        array.cast(pa.binary()).cast(field.type)
        if pa.types.is_fixed_size_binary(field.type)
        else array.fill_null(False)
        if pa.types.is_boolean(field.type)
        else array.cast(field.type)
        for array, field in zip(block.columns, columns.schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=columns.schema)


_BLOCK_BYTES: Final = 32 << 20
"""The driver is given no more rows at a time than it makes room for in so many bytes."""
_INLINE_UNITS: Final = 4_000
"""Longer texts travel apart from the others, which would all be given their room."""


class Parameters:
    """Rows as parameters of `Statements.stage_row`, with their types said explicitly.

    Left to itself the driver asks the server for the type of a column of
    NULLs, which not every server can answer.
    """

    def __init__(self, rows: pa.RecordBatch, load_id: int) -> None:
        self._rows = rows
        self._load_id = load_id

    def blocks(self, size: int) -> Iterator[tuple[list[Any], list[tuple[Any, ...]]]]:
        """Types and rows of each block: the short rows, then the ones with long texts."""
        long = _has_long_text(self._rows)
        for part in (self._rows.filter(pc.invert(long)), self._rows.filter(long)):
            fit = min(size, max(1, _BLOCK_BYTES // _room(part)))
            for start in range(0, part.num_rows, fit):
                yield self._block(part.slice(start, fit))

    def _block(self, part: pa.RecordBatch) -> tuple[list[Any], list[tuple[Any, ...]]]:
        types: list[Any] = [(ConstantsDDBC.SQL_BIGINT.value, 0, 0)]
        types += [
            _type(field.type, column)
            for field, column in zip(part.schema, part.columns, strict=True)
        ]
        columns = [column.to_pylist() for column in part.columns]
        return types, list(zip([self._load_id] * part.num_rows, *columns, strict=True))


def _has_long_text(rows: pa.RecordBatch) -> pa.BooleanArray:
    long = pa.array([False]).take(pa.array([0] * rows.num_rows, pa.int32()))
    for column in rows.columns:
        if pa.types.is_string(column.type):
            # A character takes at most two UTF-16 units, and at least one byte in UTF-8.
            length = pc.fill_null(pc.binary_length(column), 0)
            long = pc.or_(long, pc.greater(length, _INLINE_UNITS // 2))
    return long


def _room(rows: pa.RecordBatch) -> int:
    """Bytes that the driver gives each row, for each has the room of the longest values."""
    longest = [
        pc.max(pc.binary_length(c)).as_py() for c in rows.columns if pa.types.is_string(c.type)
    ]
    return sum(2 * (length or 1) for length in longest)


def _type(kind: pa.DataType, column: pa.Array) -> tuple[int, int, int]:
    if pa.types.is_fixed_size_binary(kind):
        return ConstantsDDBC.SQL_BINARY.value, kind.byte_width, 0
    if pa.types.is_boolean(kind):
        return ConstantsDDBC.SQL_BIT.value, 0, 0
    if pa.types.is_int64(kind):
        return ConstantsDDBC.SQL_BIGINT.value, 0, 0
    if pa.types.is_timestamp(kind):
        return ConstantsDDBC.SQL_TYPE_TIMESTAMP.value, 26, 6
    longest = pc.max(pc.binary_length(column)).as_py() or 1
    if longest > _INLINE_UNITS:
        return ConstantsDDBC.SQL_WLONGVARCHAR.value, longest, 0
    return ConstantsDDBC.SQL_WVARCHAR.value, max(1, longest), 0
