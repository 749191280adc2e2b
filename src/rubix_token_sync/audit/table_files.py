"""Building a table of token numbers, and finding the one that was built before.

Memory is bounded whatever the table's size: entries go to parts by their first bits, each part
is sorted by itself.  A process killed at any moment leaves at most a file named ``*.part``,
which the next build removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Final

import numpy as np

from rubix_token_sync.audit.token_numbers import (
    BLOCK_ENTRIES,
    HEADER_BYTES,
    Keys,
    Progress,
    TableSpec,
    TokenTable,
    Values,
    block_checksum,
    entries_of,
    make_header,
)
from rubix_token_sync.errors import TokenTableError

__all__ = ["PART_ENTRIES", "open_or_build"]

PART_ENTRIES: Final = 1 << 20
"""Entries that are sorted at a time: 28 MB while it lasts."""
_ENTRY: Final = np.dtype([("key", "<u8"), ("value", "<u4")])
_LOCK: Final = ".lock"
_UNFINISHED: Final = ".part"


def open_or_build(
    directory: str,
    spec: TableSpec,
    *,
    progress: Progress | None = None,
    verify: bool = True,
    part_entries: int = PART_ENTRIES,
) -> TokenTable:
    """The table of ``spec`` in ``directory``: the one that is there, or a new one.

    A file that is damaged, truncated or of another kind is built again; tables of other
    versions are removed after a build.  While one process builds, others wait and then use
    its file.  The directory is made (0700); files are for their owner alone (0600).

    Args:
        directory: where tables are kept.
        spec: which one.
        progress: told about a build.
        verify: read a file that is there whole (0.1 s for 100 MB) instead of its header only.
        part_entries: entries that a build sorts at a time; bounds its memory.

    Raises:
        TokenTableError: ``token_table_unwritable``, the directory or the disk refuses.
    """
    path = os.path.join(directory, spec.file_name)
    found = _existing(path, spec, verify)
    if found is not None:
        return found
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with _only_builder(directory):
            found = _existing(path, spec, verify)  # another process was faster
            if found is None:
                _build(directory, path, spec, progress, part_entries)
                found = TokenTable(path, spec)
            return found
    except OSError as error:
        raise _unwritable(directory, spec, error) from error


def _existing(path: str, spec: TableSpec, verify: bool) -> TokenTable | None:
    try:
        table = TokenTable(path, spec)
        if verify:
            table.verify()
    except (
        OSError,
        TokenTableError,
    ):  # what cannot be read is built again, or the error is reported then
        return None
    return table


@contextlib.contextmanager
def _only_builder(directory: str) -> Iterator[None]:
    """The lock of the directory's builders; what a killed one left is removed under it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(os.path.join(directory, _LOCK), flags, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for name in os.listdir(directory):
            if name.endswith(_UNFINISHED):
                os.unlink(os.path.join(directory, name))
        yield
    finally:
        os.close(handle)


def _build(
    directory: str, path: str, spec: TableSpec, progress: Progress | None, part_entries: int
) -> None:
    unfinished = path + _UNFINISHED
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    handle = os.open(unfinished, flags, 0o600)
    try:
        _write(handle, directory, spec, progress, part_entries)
        os.fsync(handle)
        os.rename(unfinished, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
        raise
    finally:
        os.close(handle)
    _sync_directory(directory)
    for name in os.listdir(directory):
        # Those of the same version of the limits may be another setting's.
        ours = name.startswith(spec.prefix) and name.endswith(".table")
        if ours and not name.startswith(spec.family):
            os.unlink(os.path.join(directory, name))


def _write(
    handle: int, directory: str, spec: TableSpec, progress: Progress | None, part_entries: int
) -> None:
    bits = max(0, (spec.entries - 1) // part_entries).bit_length()
    keys_at = HEADER_BYTES
    values_at = HEADER_BYTES + 8 * spec.entries
    checksums = _Checksums()
    with contextlib.ExitStack() as stack:
        # Without a name where the system can, so that nothing is left of them.
        parts = [
            stack.enter_context(tempfile.TemporaryFile(dir=directory, suffix=_UNFINISHED))
            for _ in range(1 << bits)
        ]
        done = 0
        for keys, values in entries_of(spec):
            _distribute(keys, values, bits, parts)
            done += len(keys)
            if progress is not None:
                progress(done, spec.entries)
        for part in parts:
            part.seek(0)
            entries = np.frombuffer(part.read(), _ENTRY)
            part.close()  # its room is given back
            order = np.argsort(entries["key"], kind="stable")
            keys, values = entries["key"][order], entries["value"][order]
            checksums.add(keys, values)
            keys_at += _write_all(handle, keys.tobytes(), keys_at)
            values_at += _write_all(handle, values.tobytes(), values_at)
    proofs = checksums.finish()
    _write_all(handle, proofs, values_at)
    _write_all(handle, make_header(spec, proofs), 0)


class _Checksums:
    """Those of all blocks, from parts of any size."""

    def __init__(self) -> None:
        self._keys: Keys = np.empty(0, np.uint64)
        self._values: Values = np.empty(0, np.uint32)
        self._done: list[bytes] = []

    def add(self, keys: Keys, values: Values) -> None:
        """The next entries of the file."""
        keys, values = np.concatenate((self._keys, keys)), np.concatenate((self._values, values))
        whole = len(keys) // BLOCK_ENTRIES * BLOCK_ENTRIES
        for start in range(0, whole, BLOCK_ENTRIES):
            rows = slice(start, start + BLOCK_ENTRIES)
            self._done.append(block_checksum(keys[rows], values[rows]))
        self._keys, self._values = keys[whole:], values[whole:]

    def finish(self) -> bytes:
        """All of them, one after the other."""
        last = [block_checksum(self._keys, self._values)] if len(self._keys) else []
        return b"".join([*self._done, *last])


def _distribute(keys: Keys, values: Values, bits: int, parts: Sequence[IO[bytes]]) -> None:
    entries = np.empty(len(keys), _ENTRY)
    entries["key"] = keys
    entries["value"] = values
    if not bits:
        parts[0].write(entries.tobytes())
        return
    part = keys >> np.uint64(64 - bits)
    order = np.argsort(part, kind="stable")
    ends = np.cumsum(np.bincount(part.astype(np.int64), minlength=len(parts)))
    start = 0
    for file, end in zip(parts, ends.tolist(), strict=True):
        file.write(entries[order[start:end]].tobytes())
        start = end


def _write_all(handle: int, data: bytes, at: int) -> int:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, at)
        view = view[written:]
        at += written
    return len(data)


def _sync_directory(directory: str) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(directory: str, spec: TableSpec, error: OSError) -> TokenTableError:
    reason = error.strerror or type(error).__name__
    room = spec.size * (2 if error.errno in (errno.ENOSPC, errno.EDQUOT) else 1)
    return TokenTableError(
        f"The table of token numbers cannot be written in {directory}: {reason.lower()}.",
        code="token_table_unwritable",
        remedy="Name a directory of your own on a local disk, with "
        f"{room // 2**20 + 1:,} MB of room.",
        context={"directory": directory, "needed": room},
    )
