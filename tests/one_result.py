"""Every target is asked as SQL Server has to be: one result at a time on a connection.

SQLite and PostgreSQL read several at once, so a mistake would show on Azure SQL alone
("Connection is busy with results for another command").
"""

from __future__ import annotations

import weakref
from typing import Any

import sqlalchemy as sa

__all__ = ["watch"]

_last: weakref.WeakKeyDictionary[Any, sa.CursorResult[Any]] = weakref.WeakKeyDictionary()
"""The pool's record of a connection → the last result that it gave."""


def watch() -> None:
    """From now on a statement is an error before the rows of the one before were read."""
    sa.event.listen(sa.Engine, "before_execute", _before)
    sa.event.listen(sa.Engine, "after_execute", _after)
    sa.event.listen(sa.pool.Pool, "checkin", _returned)


def _before(conn: sa.Connection, statement: Any, *_rest: Any) -> None:
    last = _last.get(_of(conn))
    if last is not None and last.returns_rows and not last._soft_closed:
        raise AssertionError(f"rows of another statement are still to be read before: {statement}")


def _after(conn: sa.Connection, _statement: Any, *rest: Any) -> None:
    _last[_of(conn)] = rest[-1]


def _returned(_connection: Any, record: Any) -> None:
    _last.pop(record, None)


def _of(conn: sa.Connection) -> Any:
    return conn.connection._connection_record  # type: ignore[attr-defined]
