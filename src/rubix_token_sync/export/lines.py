"""CSV and JSON Lines: for people with a spreadsheet, and for every other program."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from types import TracebackType
from typing import Any

import pyarrow as pa

from rubix_token_sync.text import cell

__all__ = ["LinesFile"]


class LinesFile:
    """A file with one line a row; a context.  ``file`` is whatever has ``write``.

    Times are RFC 3339 in UTC, bytes hexadecimal digits.  In CSV what is unknown is empty, and a
    cell that a spreadsheet would take for a formula begins with an apostrophe; in JSON Lines
    every value is as it is.
    """

    waiting_bytes = 0
    """Nothing waits."""

    def __init__(self, file: Any, schema: pa.Schema, *, as_csv: bool) -> None:
        self._file, self._names, self._as_csv = file, schema.names, as_csv
        self.rows = 0
        if as_csv:
            self._write_rows([self._names])

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        self.rows += len(batch)
        columns = [[_plain(value) for value in column.to_pylist()] for column in batch.columns]
        if self._as_csv:
            self._write_rows([[cell(value) for value in row] for row in zip(*columns, strict=True)])
            return
        text = "".join(
            # ASCII: a line separator in a value cannot break the file.
            json.dumps(dict(zip(self._names, row, strict=True))) + "\n"
            for row in zip(*columns, strict=True)
        )
        self._file.write(text.encode())

    def _write_rows(self, rows: list[list[Any]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())

    def flush(self) -> None:
        """Everything is written at once."""

    def __enter__(self) -> LinesFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    return value.hex() if isinstance(value, bytes) else value
