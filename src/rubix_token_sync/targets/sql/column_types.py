"""Types of columns that every table is made of, as each database has them."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mssql

__all__ = ["ID", "TEXT", "TIME", "UUID", "fixed_bytes"]

TIME: Final = sa.DateTime().with_variant(mssql.DATETIME2(7), "mssql")  # type: ignore[no-untyped-call]
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
