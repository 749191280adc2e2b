"""One export: rows of a table, of one moment, into a file, a directory or a stream."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final, Literal
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.export.lines import LinesFile
from rubix_token_sync.export.parquet import ParquetFile
from rubix_token_sync.export.tables import ExportFilters, ExportTable
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["FORMATS", "PARTITIONS", "Exported", "Format", "Partition", "export"]

Format = Literal["parquet", "csv", "jsonl"]
FORMATS: Final[tuple[Format, ...]] = ("parquet", "csv", "jsonl")
Partition = Literal["kind", "source", "node"]
PARTITIONS: Final[dict[Partition, str]] = {
    "kind": "token_kind",
    "source": "source_ip",
    "node": "node_name",
}
"""Name → the column whose values become directories, as Hive names them."""

_LONGEST_NAME: Final = 255
"""Bytes of a name on every usual file system."""
_OPEN_AT_ONCE: Final = 32
_WAITING_BYTES: Final = 64 * 2**20

Writer = ParquetFile | LinesFile


@dataclass
class Exported:
    """What was written."""

    table: str
    format: Format
    rows: int = 0
    files: list[str] = field(default_factory=list)
    at: datetime | None = None
    """The target's time when it was read, UTC."""
    one_moment: bool = True
    """All rows are of one moment; False: the target allows no snapshots."""


def export(
    store: SqlTarget,
    table: ExportTable,
    to: Path | IO[bytes],
    form: Format,
    *,
    filters: ExportFilters,
    partition: Partition | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Exported:
    """Write the rows of ``table``; files and directories appear when they are complete.

    ``to`` is a file; a directory, with ``partition``; or a stream.  ``on_progress`` gets the
    rows done and all (at most, where findings are filtered).

    Raises:
        SettingsError: a filter has no meaning for this table, or ``to`` cannot be written.
        TargetError: the target cannot be read.
        OSError: the stream takes nothing, or its reader has gone.
    """
    table.check(filters)
    done = Exported(table.name, form)
    into = to if isinstance(to, Path) else _Stream(to)
    try:
        with store.moment() as (conn, done.one_moment):
            done.at = now = store.database.time(conn)
            total = table.count(store, conn, filters, now)
            with _sink(table, into, form, partition, done) as write:
                for batch in table.read(store, conn, filters, now):
                    write(batch)
                    done.rows += len(batch)
                    on_progress(done.rows, total)
    except _StreamFailed as failed:
        raise failed.error from None
    return done


def _sink(
    table: ExportTable,
    to: Path | _Stream,
    form: Format,
    partition: Partition | None,
    done: Exported,
) -> AbstractContextManager[Callable[[pa.RecordBatch], None]]:
    if partition is None:
        return _one_file(table, to, form, done)
    column = PARTITIONS[partition]
    if column not in table.schema.names or not isinstance(to, Path):
        raise SettingsError(
            f"{table.name} cannot be partitioned by {partition}"
            + (" on standard output." if not isinstance(to, Path) else "."),
            code="export_partition",
            remedy="Name a directory by --to, and a column that the table has.",
        )
    return _directory(table, to, form, column, done)


@contextlib.contextmanager
def _one_file(
    table: ExportTable, to: Path | _Stream, form: Format, done: Exported
) -> Iterator[Callable[[pa.RecordBatch], None]]:
    if not isinstance(to, Path):
        with _writer(to, "", table.schema, form) as writer:
            yield writer.write
        to.flush()
        return
    temporary = to.with_name(f".{secrets.token_hex(8)}.partial")  # `to` may be as long as it can be
    try:
        with _file(temporary, to) as file, _writer(file, to.name, table.schema, form) as writer:
            yield writer.write
        with _ours(to):
            temporary.replace(to)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong first counts
            temporary.unlink(missing_ok=True)
        raise
    done.files.append(str(to))


@contextlib.contextmanager
def _writer(file: Any, name: str, schema: pa.Schema, form: Format) -> Iterator[Writer]:
    """What writes rows; lines are compressed where the file's name says so."""
    if form == "parquet":
        with ParquetFile(file, schema, {}) as parquet:
            yield parquet
        return
    compression = {".gz": "gzip", ".zst": "zstd"}.get(os.path.splitext(name)[1].lower())
    with ExitStack() as stack:
        if compression is not None:
            file = stack.enter_context(pa.CompressedOutputStream(file, compression))
        yield stack.enter_context(LinesFile(file, schema, as_csv=form == "csv"))


@contextlib.contextmanager
def _file(path: Path, shown: Path) -> Iterator[_Guarded]:
    """A new file for its owner alone, on the disk at the end; errors name the place ``shown``."""
    with _ours(shown):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        file = os.fdopen(os.open(path, flags, 0o600), "wb", 1 << 20)
    with file:
        yield _Guarded(file, shown)
        with _ours(shown):
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def _ours(path: Path) -> Iterator[None]:
    """A full disk is not the fault of the target that is being read."""
    try:
        yield
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written: {error.strerror or error}.",
            code="export_unwritable",
            remedy="Choose another place by --to.",
        ) from error


class _StreamFailed(Exception):
    """What a stream refused is not an error of the target that is being read."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class _Stream:
    """A stream that somebody else opened, and closes."""

    closed = False

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._size = 0

    def write(self, data: bytes) -> int:
        """Add bytes."""
        try:
            self._stream.write(data)
        except OSError as error:
            raise _StreamFailed(error) from error
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        """Where the next bytes go."""
        return self._size

    def flush(self) -> None:
        """Bring what is buffered to the reader."""
        try:
            self._stream.flush()
        except OSError as error:
            raise _StreamFailed(error) from error

    def close(self) -> None:
        """Whoever opened the stream closes it."""


class _Guarded:
    """A file whose failures are named as what they are."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self._size = 0

    def write(self, data: bytes) -> int:
        """Add bytes."""
        with _ours(self._path):
            self._file.write(data)
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        """Where the next bytes go."""
        return self._size

    def flush(self) -> None:
        """At the end."""

    def close(self) -> None:
        """Whoever opened the file closes it."""

    @property
    def closed(self) -> bool:
        """Whether it is."""
        return self._file.closed


@contextlib.contextmanager
def _directory(
    table: ExportTable, to: Path, form: Format, column: str, done: Exported
) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """A new directory with one directory for each value of ``column``."""
    if os.path.lexists(to):
        raise SettingsError(
            f"{to} exists already.",
            code="export_exists",
            remedy="Name a directory that does not exist.",
        )
    place = to.with_name(f".{secrets.token_hex(8)}.partial")
    with _ours(to):
        place.mkdir(mode=0o700)
    try:
        parts = _Parts(place, to, table.schema, form, column)
        with parts:
            yield parts.write
        with _ours(to):
            os.rename(place, to)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    done.files += [str(to / name) for name in sorted(parts.names)]


class _Parts:
    """Writers by the value of a column: a few are open at once, and little waits in each."""

    def __init__(
        self, place: Path, shown: Path, schema: pa.Schema, form: Format, column: str
    ) -> None:
        self._place, self._shown, self._form, self._column = place, shown, form, column
        self._schema = schema.remove(schema.get_field_index(column))
        self._open: OrderedDict[str | None, tuple[Writer, ExitStack]] = OrderedDict()
        self._numbers: dict[str | None, int] = {}
        self.names: list[str] = []

    def write(self, batch: pa.RecordBatch) -> None:
        """Each row into the file of its value."""
        values = batch.column(self._column)
        for value in pc.unique(values).to_pylist():
            mask = pc.is_null(values) if value is None else pc.equal(values, value)
            rows = batch.filter(mask).drop_columns([self._column])
            self._writer(value).write(rows)
        while sum(writer.waiting_bytes for writer, _ in self._open.values()) > _WAITING_BYTES:
            fullest = max(self._open, key=lambda value: self._open[value][0].waiting_bytes)
            self._open[fullest][0].flush()

    def _writer(self, value: str | None) -> Writer:
        if value in self._open:
            self._open.move_to_end(value)
            return self._open[value][0]
        if len(self._open) >= _OPEN_AT_ONCE:
            _, (_, oldest) = self._open.popitem(last=False)
            oldest.close()
        number = self._numbers[value] = self._numbers.get(value, -1) + 1
        shown = "__HIVE_DEFAULT_PARTITION__" if value is None else quote(value, safe="")
        name = f"{self._column}={shown}/part-{number}.{self._form}"
        path = self._place / name
        if len(os.fsencode(path.parent.name)) > _LONGEST_NAME:
            raise SettingsError(
                f"A value of {self._column} is too long for the name of a directory: {value!r}.",
                code="export_partition",
                remedy="Export into one file, or partition by another column.",
            )
        with ExitStack() as stack:
            with _ours(self._shown):
                path.parent.mkdir(mode=0o700, exist_ok=True)
            file = stack.enter_context(_file(path, self._shown))
            writer = stack.enter_context(_writer(file, path.name, self._schema, self._form))
            self._open[value] = (writer, stack.pop_all())
        self.names.append(name)
        return writer

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *failure: object) -> None:
        with ExitStack() as stack:
            for _, opened in self._open.values():
                stack.push(opened)
