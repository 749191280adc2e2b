"""Types of columns that every table is made of, as each database has them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mssql, sqlite

from rubix_token_sync.records.schema import Column

__all__ = ["ID", "NOT_A_TIME", "TEXT", "TIME", "UUID", "fixed_bytes", "type_of"]


class _SqliteTime(sqlite.DATETIME):
    """SQLite stores anything in any column; what is not a time, somebody else wrote."""

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], Any]:
        read = super().result_processor(dialect, coltype)
        assert read is not None

        def process(value: Any) -> Any:
            try:
                return read(value)
            except (TypeError, ValueError):
                return NOT_A_TIME

        return process


NOT_A_TIME: Final = datetime(1, 1, 1, microsecond=1)
"""Stands for a stored value that is none; no node has this time."""

TIME: Final = (
    sa.DateTime()
    .with_variant(mssql.DATETIME2(7), "mssql")  # type: ignore[no-untyped-call]
    .with_variant(_SqliteTime(), "sqlite")  # type: ignore[no-untyped-call]
)
TEXT: Final = sa.UnicodeText()
ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
UUID: Final = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")


class _Binary(mssql.BINARY):
    """BINARY(n) whose parameters are of that type, too: the driver sends VARBINARY.

    Of the two, VARBINARY takes precedence, so the column would be converted, and not the
    parameter.
    """

    def bind_expression(self, bindvalue: Any) -> Any:
        return sa.cast(bindvalue, mssql.BINARY(self.length))


def fixed_bytes(size: int) -> sa.types.TypeEngine[bytes]:
    """Exactly so many bytes."""
    return sa.LargeBinary(size).with_variant(_Binary(size), "mssql")


def type_of(column: Column) -> sa.types.TypeEngine[Any]:
    """The type of one of the records' columns."""
    if column.kind == "text":
        return TEXT if column.size is None else sa.Unicode(column.size)
    if column.kind == "bytes":
        assert column.size is not None
        return fixed_bytes(column.size)
    if column.kind == "integer":
        return sa.BigInteger()
    return TIME if column.kind == "time" else sa.Boolean()
