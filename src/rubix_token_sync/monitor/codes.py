"""The code in ``ipfs_error`` (``code: sentence``), taken apart by the server."""

from __future__ import annotations

import sqlalchemy as sa

__all__ = ["code_of"]


def code_of(column: sa.ColumnElement[str], dialect: str) -> sa.ColumnElement[str]:
    """What stands before the first colon; a text without one as it is."""
    if dialect == "postgresql":
        return sa.func.split_part(column, ":", 1)
    # No place of a colon is NULL, and so is what stands before it: no CASE, whose branches
    # SQL Server may evaluate out of order.
    if dialect == "mssql":
        place = sa.func.nullif(sa.func.charindex(":", column), 0)
        before: sa.ColumnElement[str] = sa.func.left(column, place - 1)
    else:
        place = sa.func.nullif(sa.func.instr(column, ":"), 0)
        before = sa.func.substr(column, 1, place - 1)
    return sa.func.coalesce(before, column)
