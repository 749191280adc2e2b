"""The driver's bulk copy over a connection that is kept.

`mssql_python.Cursor.bulkcopy_arrow` logs in for every call, and a login costs
as much as tens of thousands of rows.  This does what that method does (mssql-python
1.16), except that the connection stays open for the next call.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any, Final

import mssql_py_core
import pyarrow as pa

__all__ = ["BulkConnection"]

_IDLE_SECONDS: Final = 60.0
"""After so long without use a firewall may have forgotten the connection."""


class BulkConnection:
    """Logs in when it is first used; one call at a time."""

    def __init__(self) -> None:
        self._raw: Any = None
        self._used = 0.0

    @property
    def is_open(self) -> bool:
        """Logged in by an earlier call."""
        return self._raw is not None

    def load(
        self, cursor: Any, table: str, rows: pa.RecordBatch, columns: Sequence[str], seconds: int
    ) -> int:
        """Bulk-copy ``rows``; gives the driver's count.

        Args:
            cursor: one of the driver, whose address, login and log-in time-out are taken.
            seconds: the longest that the copy may take.

        Raises:
            RuntimeError, OSError, ValueError: what the driver's native client raises; the
                connection is closed then.
        """
        if self._raw is not None and time.monotonic() - self._used > _IDLE_SECONDS:
            self.close()
        try:
            if self._raw is None:
                context = cursor._build_pycore_context()
                try:
                    self._raw = mssql_py_core.PyCoreConnection(context)
                finally:
                    context.clear()  # holds the password
            result = self._raw.cursor().bulkcopy_arrow(
                table,
                rows,
                batch_size=0,
                timeout=seconds,
                column_mappings=list(columns),
                keep_identity=False,
                check_constraints=True,  # to skip them takes the right to ALTER the table
                table_lock=False,
                keep_nulls=False,
                fire_triggers=False,
                use_internal_transaction=False,
                python_logger=None,
            )
        except BaseException:
            self.close()
            raise
        self._used = time.monotonic()
        return int(result["rows_copied"])

    def close(self) -> None:
        """Log out; the next call logs in again."""
        raw, self._raw = self._raw, None
        if raw is not None:
            with contextlib.suppress(RuntimeError, OSError):  # it may be gone already
                raw.close()
