"""The inverse of sha256 over the numbers of whole tokens: two kinds of tables in files.

* ``numbers``: sha256(decimal number) → number, for contents: a content holds this hash.
* ``ids``: digest of the id → (level, number, form), for ids whose content is missing.

A file is a header of 4,096 bytes, then all keys (the first 8 bytes of each digest, ascending,
8 bytes little-endian), then the value of each (4 bytes), then a checksum of each block of 8,192
entries.  It is mapped into memory, so worker processes share one copy.  A key is only a prefix:
who finds a value computes the whole digest from it, which is why a damaged or forged file can
hide a number but never invent one; and before a number is said not to be in it, the block is
proven in which it would stand between its neighbours.

Files are written beside their place, proven, and renamed, by one process at a time; what they
hold stands in their name and header, so that a version of the limits finds its own again.
"""

from __future__ import annotations

import json
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b, sha256
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from rubix_token_sync.audit.authenticity import frame
from rubix_token_sync.audit.limits import MAX_LEVEL, MAX_NUMBER, Form, Limits
from rubix_token_sync.errors import TokenTableError

__all__ = [
    "BLOCK_ENTRIES",
    "DEFAULT_LEVELS",
    "FORMAT",
    "HEADER_BYTES",
    "Range",
    "TableSpec",
    "TokenTable",
    "block_checksum",
    "entries_of",
    "ids_spec",
    "numbers_spec",
    "pack",
    "unpack",
]

FORMAT: Final = 2
HEADER_BYTES: Final = 4096
BLOCK_ENTRIES: Final = 8_192
"""Entries that are proven at a time: 96 KiB, which takes 0.1 ms."""
_CHECKSUM_BYTES: Final = 16
DEFAULT_LEVELS: Final = (1, 2, 3, 4)
"""The levels of which ids are in the table unless others are asked for; all tokens minted so
far are of these, and all 78 levels would need 620 MB instead of 200."""

_MARGIN: Final = 1_000_000
"""Numbers beyond the highest limit: one slightly out of range is not taken for a forgery."""
_MAGIC: Final = b"RBTNUM\r\n"
_CHUNK: Final = 1 << 17  # numbers hashed at a time

Keys = npt.NDArray[np.uint64]
Values = npt.NDArray[np.uint32]
Progress = Callable[[int, int], None]
"""Called with the entries done and the entries in all, about every 100,000."""


class Range(NamedTuple):
    """Numbers of one level in one form; the level is 0 in a table of ``numbers``."""

    level: int
    form: Form
    first: int
    last: int


@dataclass(frozen=True)
class TableSpec:
    """What a table holds; decides its file's name.

    Attributes:
        kind: ``numbers`` or ``ids``.
        limits: the version of the limits that it was made for.
        ranges: what is in it; none overlaps another of the same level and form.
    """

    kind: Literal["numbers", "ids"]
    limits: str
    ranges: tuple[Range, ...]

    @cached_property
    def entries(self) -> int:
        """How many."""
        return sum(last - first + 1 for _, _, first, last in self.ranges)

    @cached_property
    def blocks(self) -> int:
        """How many blocks they are; the last one may be shorter."""
        return -(-self.entries // BLOCK_ENTRIES)

    @cached_property
    def size(self) -> int:
        """Bytes of its file."""
        return HEADER_BYTES + 12 * self.entries + _CHECKSUM_BYTES * self.blocks

    @cached_property
    def prefix(self) -> str:
        """How the names of files of this kind begin."""
        return f"token-{self.kind}-"

    @cached_property
    def family(self) -> str:
        """How those of this format and this version of the limits begin."""
        return f"{self.prefix}{FORMAT}-{self.limits}-"

    @cached_property
    def file_name(self) -> str:
        """Kind, format, version of the limits, and what is in it (by its hash)."""
        ranges = json.dumps(self.ranges).encode("ascii")
        inside = blake2b(ranges, digest_size=4).hexdigest()
        return f"{self.family}{inside}.table"


def numbers_spec(limits: Limits, *, up_to: int | None = None) -> TableSpec:
    """All numbers up to ``up_to``; by default one million more than the highest limit."""
    if up_to is None:
        up_to = min(max(map(limits.highest, limits.levels)) + _MARGIN, MAX_NUMBER)
    return TableSpec("numbers", limits.version, (Range(0, Form.THREE_DIGITS, 0, up_to),))


def ids_spec(
    limits: Limits,
    *,
    levels: tuple[int, ...] = DEFAULT_LEVELS,
    newlines: bool = False,
    up_to: int | None = None,
) -> TableSpec:
    """The ids of whole levels, with level 1's two-digit form; their limits themselves included.

    Args:
        levels: which; 12 bytes a token.
        newlines: with the forms that end in a line end, which doubles it.
        up_to: no higher number of any level (tests).

    Raises:
        ValueError: no source has tokens of such a level.
    """
    unknown = [level for level in levels if level not in limits.levels]
    if unknown:
        raise ValueError(f"no source of limits has tokens of level {unknown[0]}")
    ranges = []
    for level in sorted(set(levels)):
        last = limits.highest(level) if up_to is None else min(limits.highest(level), up_to)
        for form in Form:
            if (form.digits == 3 or level == 1) and (newlines or not form.end):
                ranges.append(Range(level, form, 0, last))
    return TableSpec("ids", limits.version, tuple(ranges))


def pack(level: int, numbers: Values, form: Form) -> Values:
    """Entries' values: 7 bits of level, 23 of number, 2 of form."""
    return numbers << np.uint32(2) | np.uint32(level << 25 | form)


def unpack(
    values: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Levels, numbers and forms of values."""
    return values >> 25, (values >> 2) & MAX_NUMBER, values & 3


def entries_of(spec: TableSpec) -> Iterator[tuple[Keys, Values]]:
    """All entries in no order, by the chunk; the work of a build: 0.5 to 1 µs an entry."""
    highest = max(span.last for span in spec.ranges)
    for start in range(0, highest + 1, _CHUNK):
        end = start + _CHUNK - 1
        spans = [span for span in spec.ranges if span.first <= end and span.last >= start]
        if not spans:
            continue
        spans = [
            span._replace(first=max(span.first, start), last=min(span.last, end)) for span in spans
        ]
        wanted = np.zeros(_CHUNK, np.bool_)
        for _, _, first, last in spans:
            wanted[first - start : last + 1 - start] = True
        # Each number is hashed once for all levels and forms; `places` says which one it is.
        numbers = (np.flatnonzero(wanted) + start).tolist()
        places = np.cumsum(wanted) - 1
        digests = [sha256(b"%d" % number).digest() for number in numbers]
        texts = [digest.hex().encode() for digest in digests] if spec.kind == "ids" else []
        for level, form, first, last in spans:
            values = np.arange(first, last + 1, dtype=np.uint32)
            place = int(places[first - start])
            if spec.kind == "numbers":
                yield _prefixes(digests[place : place + len(values)]), values
                continue
            head, tail = frame(level, form)
            inside = texts[place : place + len(values)]
            blocks = [sha256(head + text + tail).digest() for text in inside]
            yield _prefixes(blocks), pack(level, values, form)


def _prefixes(digests: list[bytes]) -> Keys:
    whole = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 4)
    return whole[:, 0].astype(np.uint64)


class TokenTable:
    """A table's file, mapped; many processes may have the same one open.

    Attributes:
        path: of the file.
        spec: what it holds.
    """

    def __init__(self, path: str, spec: TableSpec) -> None:
        """Open the file; looks at its header and size only, which takes 0.1 ms.

        Raises:
            FileNotFoundError: there is none.
            TokenTableError: ``token_table_damaged``, by its header or its size.
            OSError: it cannot be read.
        """
        self.path = path
        self.spec = spec
        flags = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_size != spec.size:
                raise damaged(path, f"its size is {status.st_size:,} bytes, not {spec.size:,}")
            self._map = mmap.mmap(handle, spec.size, access=mmap.ACCESS_READ)
        finally:
            os.close(handle)
        self._keys: Keys = np.frombuffer(self._map, "<u8", spec.entries, HEADER_BYTES)
        values_at = HEADER_BYTES + 8 * spec.entries
        self._values: Values = np.frombuffer(self._map, "<u4", spec.entries, values_at)
        self._checksums = self._map[values_at + 4 * spec.entries :]
        if read_header(self._map[:HEADER_BYTES], spec, path) != _hash(self._checksums):
            raise damaged(path, "its checksums are wrong")
        self._proven = np.zeros(spec.blocks, np.bool_)

    def find(self, keys: Keys) -> npt.NDArray[np.int64]:
        """The value under each key, -1 where there is none.

        Two numbers may have the same prefix: `find_all` has the others.

        Raises:
            TokenTableError: ``token_table_damaged``, found out where a key is not there.
        """
        if not len(keys):
            return np.empty(0, np.int64)
        # Sorted ones are three times as fast: neighbours lie on the same pages.
        order = np.argsort(keys)
        wanted = keys[order]
        at = np.searchsorted(self._keys, wanted)
        inside = np.minimum(at, len(self._keys) - 1)
        found = np.full(len(keys), -1, np.int64)
        hits = self._keys[inside] == wanted
        found[order[hits]] = self._values[inside[hits]]
        missed = at[~hits]
        self._prove(np.concatenate((missed - 1, missed)))
        return found

    def find_all(self, key: int) -> list[int]:
        """Every value under one key.

        Raises:
            TokenTableError: ``token_table_damaged``, where they stand.
        """
        wanted = np.uint64(key)
        first, last = (int(np.searchsorted(self._keys, wanted, side)) for side in ("left", "right"))
        self._prove(np.arange(first - 1, last + 1))
        return [int(value) for value in self._values[first:last]]

    def verify(self) -> None:
        """Prove the whole file: 0.1 s for 100 MB.

        Raises:
            TokenTableError: ``token_table_damaged``, it is not what was written.
        """
        self._prove(np.arange(0, self.spec.entries, BLOCK_ENTRIES))

    def _prove(self, entries: npt.NDArray[np.int64]) -> None:
        """Prove the blocks of these entries, each once a process; there may be none such.

        That a number is missing is proven by the two entries around its place: both are what
        was written, there, and they were written in order.
        """
        there = entries[(entries >= 0) & (entries < self.spec.entries)]
        blocks = np.unique(there // BLOCK_ENTRIES)
        for block in blocks[~self._proven[blocks]].tolist():
            rows = slice(block * BLOCK_ENTRIES, (block + 1) * BLOCK_ENTRIES)
            at = block * _CHECKSUM_BYTES
            wanted = self._checksums[at : at + _CHECKSUM_BYTES]
            if block_checksum(self._keys[rows], self._values[rows]) != wanted:
                raise damaged(self.path, "its checksum is wrong")
            self._proven[block] = True


def block_checksum(keys: Keys, values: Values) -> bytes:
    """Of one block's keys and values in a file's order."""
    proof = blake2b(keys.data, digest_size=_CHECKSUM_BYTES)
    proof.update(values.data)
    return proof.digest()


def _hash(checksums: bytes) -> str:
    return blake2b(checksums, digest_size=32).hexdigest()


def damaged(path: str, reason: str) -> TokenTableError:
    """The error for a file that is not what it should be."""
    return TokenTableError(
        f"The table of token numbers {path} is damaged: {reason}.",
        code="token_table_damaged",
        remedy="It is built again by the next run; where this repeats, check the disk.",
        context={"path": path},
    )


def make_header(spec: TableSpec, checksums: bytes) -> bytes:
    """The first 4,096 bytes: magic, the header's checksum, JSON, zeros.

    ``checksums`` are those of all blocks, one after the other.
    """
    text = json.dumps(
        {
            "format": FORMAT,
            "file": spec.file_name,
            "entries": spec.entries,
            "checksums": _hash(checksums),
        }
    ).encode("ascii")
    body = text.ljust(HEADER_BYTES - len(_MAGIC) - 32, b"\0")
    return _MAGIC + blake2b(body, digest_size=32).digest() + body


def read_header(header: bytes, spec: TableSpec, path: str) -> str:
    """The hash of all checksums.

    Raises:
        TokenTableError: ``token_table_damaged``, it is not the header of this table.
    """
    body = header[len(_MAGIC) + 32 :]
    proof = header[len(_MAGIC) : len(_MAGIC) + 32]
    if not header.startswith(_MAGIC) or blake2b(body, digest_size=32).digest() != proof:
        raise damaged(path, "its header is not one")
    try:
        said = json.loads(body.rstrip(b"\0"))
        inside = said["format"], said["file"], said["entries"]
        checksums = str(said["checksums"])
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, "its header says nothing") from error
    if inside != (FORMAT, spec.file_name, spec.entries):
        raise damaged(path, "it holds other numbers than its name says")
    return checksums


assert MAX_LEVEL < 1 << 7
assert MAX_NUMBER < 1 << 23
