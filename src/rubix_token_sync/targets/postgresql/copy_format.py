"""Record batches as PostgreSQL's binary COPY format, and keys back from it.

The format: https://www.postgresql.org/docs/current/sql-copy.html ("Binary
Format").  Values travel as they are: nothing is escaped, nothing is parsed as
text on the other side, and no Python object is made for a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rubix_token_sync.records.schema import RECORD_KEY_BYTES, ROW_DIGEST_BYTES

__all__ = ["KnownRows", "copy_payload"]

_HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)  # signature, flags, length of extension
_TRAILER: Final = b"\xff\xff"
_EPOCH_SHIFT: Final = 946_684_800_000_000
"""Microseconds from 1970 (Arrow) to 2000 (PostgreSQL)."""

Bytes = npt.NDArray[np.uint8]


def copy_payload(rows: pa.RecordBatch, step: int) -> Iterator[memoryview]:
    """The batch as the data of ``COPY … FROM STDIN (FORMAT BINARY)``.

    Comes in parts of ``step`` rows so that the whole of it is never in memory.
    Columns are binary, text, bool, int64 and timestamp[us].
    """
    yield memoryview(_HEADER)
    for start in range(0, rows.num_rows, step):
        yield memoryview(_encode(rows.slice(start, step)))
    yield memoryview(_TRAILER)


def _encode(rows: pa.RecordBatch) -> pa.Buffer:
    count = rows.num_rows
    pieces = [_strided(np.tile(_big_endian(len(rows.columns), 2), (count, 1)))]
    for column in rows.columns:
        pieces += _field(column)
    whole = pc.binary_join_element_wise(
        *pieces, pa.scalar(b""), null_handling="replace", null_replacement=b""
    )
    _, offsets, data = whole.buffers()
    first, last = np.frombuffer(offsets, np.int32)[[whole.offset, whole.offset + count]]
    return data.slice(int(first), int(last - first))


def _field(column: pa.Array) -> list[pa.Array]:
    """The column's fields, each its length (-1 for NULL) and its value."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        lengths = pc.fill_null(pc.binary_length(column), -1).to_numpy(zero_copy_only=False)
        return [_strided(_bytes_of(lengths.astype(">i4"))), column.cast(pa.binary())]
    if pa.types.is_fixed_size_binary(kind):
        width = kind.byte_width
        start = column.offset * width
        raw = np.frombuffer(column.buffers()[1], np.uint8)[start : start + len(column) * width]
        values = raw.reshape(len(column), width)
    elif pa.types.is_timestamp(kind):
        micros = pc.fill_null(column.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
        values = _bytes_of((micros - _EPOCH_SHIFT).astype(">i8"))
    elif pa.types.is_int64(kind):
        numbers = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
        values = _bytes_of(numbers.astype(">i8"))
    elif pa.types.is_boolean(kind):
        flags = pc.fill_null(column, False).to_numpy(zero_copy_only=False)
        values = flags.astype(np.uint8).reshape(-1, 1)
    else:
        raise TypeError(f"no binary form for {kind}")
    return [_fixed(values, column)]


def _fixed(values: Bytes, column: pa.Array) -> pa.Array:
    count, width = values.shape
    head = np.tile(_big_endian(width, 4), (count, 1))
    field = _strided(np.hstack([head, values]))
    if column.null_count:
        return pc.if_else(column.is_valid(), field, pa.scalar(b"\xff\xff\xff\xff"))
    return field


def _big_endian(number: int, width: int) -> Bytes:
    return np.frombuffer(number.to_bytes(width, "big"), np.uint8)


def _bytes_of(numbers: npt.NDArray[Any]) -> Bytes:
    return numbers.view(np.uint8).reshape(len(numbers), -1)


def _strided(table: Bytes) -> pa.Array:
    """One binary value for each row of the table."""
    count, width = table.shape
    offsets = np.arange(count + 1, dtype=np.int32) * width
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(table))]
    return pa.Array.from_buffers(pa.binary(), count, buffers)


class KnownRows:
    """Takes the data of a binary ``COPY (SELECT record_key, row_digest …) TO STDOUT``.

    Every row has the same width, so the columns are cut out without a loop.
    """

    _ROW: Final = np.dtype(
        [
            ("fields", "V2"),
            ("key_length", "V4"),
            ("key", f"V{RECORD_KEY_BYTES}"),
            ("digest_length", "V4"),
            ("digest", f"V{ROW_DIGEST_BYTES}"),
        ]
    )

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add what the server sent."""
        self._data += data

    def columns(self) -> tuple[bytes, bytes]:
        """All keys, and all digests, one after the other.

        Raises:
            ValueError: this is not the form that `copy_payload` describes.
        """
        body = memoryview(self._data)[len(_HEADER) :]
        if not self._data.startswith(_HEADER) or bytes(body[-2:]) != _TRAILER:
            raise ValueError("the server's COPY data has an unknown form")
        rows = np.frombuffer(body[:-2], self._ROW)
        return rows["key"].tobytes(), rows["digest"].tobytes()
