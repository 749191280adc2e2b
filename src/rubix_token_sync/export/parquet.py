"""Parquet files that are written while their rows are still being read."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["ROWS_IN_A_GROUP", "ParquetFile", "in_utc"]

ROWS_IN_A_GROUP: Final = 65_536
_BYTES_IN_A_GROUP: Final = 32 * 2**20
_DICTIONARY: Final = frozenset(
    {
        "source_ip", "node_name", "did", "token_status", "db_path", "ipfs_path", "token_kind",
        "network", "verdict", "verdict_source", "ipfs_error", "token_value", "pledge_source",
        "transaction_type", "mode", "chain_kind", "latest_block_type", "latest_block_type_name",
        "rule", "severity", "state", "says", "cure", "change",
    }
)  # fmt: skip
"""Columns whose values repeat; a dictionary of the others would only cost time."""


def in_utc(schema: pa.Schema) -> pa.Schema:
    """The same, with times that say that they are UTC."""
    return pa.schema(
        [
            f.with_type(pa.timestamp("us", tz="UTC")) if pa.types.is_timestamp(f.type) else f
            for f in schema
        ]
    )


class ParquetFile:
    """One file of row groups of at most `ROWS_IN_A_GROUP` rows or some 32 MB; a context.

    ``file`` is whatever has ``write``, ``tell``, ``flush``, ``close`` and ``closed``.

    Compressing one row group goes on, on a thread of its own, while the next is gathered.
    """

    def __init__(self, file: Any, schema: pa.Schema, metadata: dict[str, str]) -> None:
        self.schema = in_utc(schema).with_metadata(metadata)
        self.rows = 0
        self._writer = pq.ParquetWriter(
            file,
            self.schema,
            compression="zstd",
            use_dictionary=[name for name in schema.names if name in _DICTIONARY],
            version="2.6",
        )
        self._waiting: list[pa.RecordBatch] = []
        self._bytes = self._count = 0
        self._thread = ThreadPoolExecutor(1)
        self._under_way: Future[Any] | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        self._waiting.append(batch)
        self._bytes += batch.nbytes
        self._count += len(batch)
        self.rows += len(batch)
        if self._count >= ROWS_IN_A_GROUP or self._bytes >= _BYTES_IN_A_GROUP:
            self._start_group()

    @property
    def waiting_bytes(self) -> int:
        """Of rows that are not on their way to the file yet."""
        return self._bytes

    def flush(self) -> None:
        """Write what is waiting as a row group, and wait for it."""
        self._start_group()
        self._finish_group()

    def _start_group(self) -> None:
        self._finish_group()
        if self._waiting:
            self._under_way = self._thread.submit(self._write_group, self._waiting)
            self._waiting, self._bytes, self._count = [], 0, 0

    def _write_group(self, batches: list[pa.RecordBatch]) -> None:
        table = pa.Table.from_batches(batches).cast(self.schema)
        self._writer.write_table(table, row_group_size=ROWS_IN_A_GROUP)

    def _finish_group(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def __enter__(self) -> ParquetFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.flush()
        finally:
            self._thread.shutdown()
            self._writer.close()
