"""The copy of a chain directory, opened: its keys in order, and the blocks of several tokens.

A LevelDB directory holds two sorts of keys: ``KIND-TOKEN-NUMBER-HASH`` with a block or the
name of one, and ``rf-…`` with a block of several tokens, each of which has a key that
refers to it.  Such a block can be large and is asked for once for each of its tokens, in no
order.  So all of them are decoded once, beforehand, and what they say of each token goes
into a second, temporary LevelDB beside the copy: memory stays bounded whatever there is.
"""

from __future__ import annotations

import heapq
import marshal
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from hashlib import sha3_256
from importlib import import_module
from types import ModuleType
from typing import Any, Final, NamedTuple

from rubix_token_sync.errors import SettingsError, SourceError
from rubix_token_sync.installation import LEVELDB, extra_command
from rubix_token_sync.nodes.chain_blocks import (
    KINDS,
    REFERENCE,
    Block,
    ChainKey,
    TokenPlace,
    UndecodableError,
    decode_block,
    parse_key,
    parse_reference,
)
from rubix_token_sync.nodes.chain_signatures import Counts, SignatureChecks
from rubix_token_sync.nodes.database_errors import failure

__all__ = ["ChainStore", "Entry", "SharedBlock", "require_leveldb"]

_CACHE_BYTES: Final = 4 * 2**20
_OPEN_FILES: Final = 64
_WRITTEN_AT_ONCE: Final = 10_000
_NO_ROOM: Final = re.compile(r"no space|quota|file too large", re.IGNORECASE)
_NO_HANDLES: Final = re.compile(r"too many open files", re.IGNORECASE)


class Entry(NamedTuple):
    """A key and its value."""

    key: ChainKey
    value: bytes


class SharedBlock(NamedTuple):
    """What a block of several tokens says, for one of them."""

    block: Block
    """With the places of that token only, and without its signatures."""
    signatures: Counts
    whole_right: bool
    """Its bytes have the hash by which it is referred to."""


def require_leveldb() -> ModuleType:
    """The package that reads LevelDB.

    Raises:
        SettingsError: ``extra_missing``.
    """
    try:
        return import_module(LEVELDB)
    except ImportError as error:
        raise SettingsError(
            f"Token chains need the module {LEVELDB}, which is not installed.",
            code="extra_missing",
            remedy=f"Run, with one of these: {extra_command('chains')}",
        ) from error


class ChainStore:
    """The private copy of a chain directory; to be closed.

    Args:
        path: the copy, which is written to.
        work: a path at which nothing is yet.
        checks: for the signatures of blocks of several tokens.
        value_bytes: larger values are not blocks.

    Raises:
        SourceError: ``chains_damaged``, ``no_scratch_space``, ``too_many_files``.
        SettingsError: ``extra_missing``.
    """

    def __init__(self, path: str, work: str, checks: SignatureChecks, value_bytes: int) -> None:
        self._leveldb = require_leveldb()
        self._work = work
        self._checks = checks
        self._value_bytes = value_bytes
        self._shared: Any = None
        self.stray_keys = 0
        """Keys that are of no known form, as far as `entries` has come."""
        with self._translated():
            self._db = self._open(path, create_if_missing=False)
        try:
            with self._translated():
                self._read_shared()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files; the directory is its owner's to remove."""
        self._db.close()
        if self._shared is not None:
            self._shared.close()

    def entries(self) -> Iterator[Entry]:
        """Every key of a known form: by token, then by kind, then as the keys sort.

        Raises:
            SourceError: the rest cannot be read.
        """
        with self._translated():
            self._count_strays()
            parts = [self._of_kind(kind) for kind in KINDS if self._has(kind)]
            if len(parts) == 1:
                yield from parts[0]
            else:
                yield from heapq.merge(*parts, key=lambda entry: (entry.key.token, entry.key.kind))

    def shared(self, value: bytes, token: str) -> SharedBlock | str:
        """The block that ``value`` refers to, for one token; one of `PROBLEMS` for none."""
        if self._shared is None:
            return "block_missing"
        with self._translated():
            common = self._shared.get(value)
            place = self._shared.get(value + token.encode())
        if common is None:
            return "block_missing"
        facts = marshal.loads(common)  # noqa: S302 - written by this process, in its own directory
        if isinstance(facts, str):
            return facts
        hash_, type_, owner, epoch, counts, right = facts
        places = {token: TokenPlace(*marshal.loads(place))} if place is not None else {}  # noqa: S302
        return SharedBlock(Block(hash_, type_, owner, epoch, places, (), 0), Counts(*counts), right)

    def _open(self, path: str, **options: Any) -> Any:
        return self._leveldb.DB(
            path, max_open_files=_OPEN_FILES, lru_cache_size=_CACHE_BYTES, paranoid_checks=True,
            **options,
        )  # fmt: skip

    def _scan(
        self, start: bytes, stop: bytes | None, *, values: bool = True
    ) -> Generator[tuple[bytes, bytes], None, None]:
        """Keys from ``start`` to before ``stop``, with their values.

        Its iterators of a range end without an error where the range begins in a
        damaged block; the raw ones do not.
        """
        at = self._db.raw_iterator(verify_checksums=True, fill_cache=False)
        try:
            at.seek(start)
            while at.valid():
                key = at.key()
                if stop is not None and key >= stop:
                    return
                yield key, at.value() if values else b""
                at.next()
        finally:
            at.close()

    def _of_kind(self, kind: str) -> Iterator[Entry]:
        for raw, value in self._scan(*_range(kind.encode() + b"-")):
            key = parse_key(raw)
            if key is None:
                self.stray_keys += 1
            else:
                yield Entry(key, value)

    def _has(self, kind: str) -> bool:
        keys = self._scan(*_range(kind.encode() + b"-"), values=False)
        try:
            return next(keys, None) is not None
        finally:
            keys.close()

    def _count_strays(self) -> None:
        """Count the keys between those of the known kinds."""
        begin = b""
        for prefix in sorted([kind.encode() + b"-" for kind in KINDS] + [REFERENCE]):
            first, following = _range(prefix)
            self.stray_keys += sum(1 for _ in self._scan(begin, first, values=False))
            begin = following
        self.stray_keys += sum(1 for _ in self._scan(begin, None, values=False))

    def _read_shared(self) -> None:
        waiting: list[tuple[bytes, bytes]] = []
        for key, value in self._scan(*_range(REFERENCE)):
            names = parse_reference(key)
            if names is None:
                self.stray_keys += 1
                continue
            waiting += self._facts(key, value, names)
            if len(waiting) >= _WRITTEN_AT_ONCE:
                self._keep(waiting)
                waiting = []
        if waiting:
            self._keep(waiting)

    def _facts(
        self, key: bytes, value: bytes, names: tuple[str, str]
    ) -> Iterator[tuple[bytes, bytes]]:
        """What is kept of one block of several tokens."""
        if len(value) > self._value_bytes:
            yield key, marshal.dumps("block_too_large")
            return
        try:
            block = decode_block(value)
        except UndecodableError:
            yield key, marshal.dumps("block_undecodable")
            return
        counts = tuple(self._checks.count(block.signatures, block.uncheckable))
        right = names == (sha3_256(value).hexdigest(), block.hash)
        yield key, marshal.dumps((block.hash, block.type, block.owner, block.epoch, counts, right))
        for token, place in block.tokens.items():
            yield key + token.encode(), marshal.dumps(tuple(place))

    def _keep(self, pairs: list[tuple[bytes, bytes]]) -> None:
        if self._shared is None:
            self._shared = self._open(self._work, create_if_missing=True)
        with self._shared.write_batch() as batch:
            for key, facts in pairs:
                batch.put(key, facts)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except self._leveldb.Error as error:
            raise _from_leveldb_error(error) from error


def _range(prefix: bytes) -> tuple[bytes, bytes]:
    """Where the keys with a prefix that ends with ``-`` begin, and where others follow."""
    return prefix, prefix[:-1] + b"."


def _from_leveldb_error(error: Exception) -> SourceError:
    """Translate an error of LevelDB, which has classes for little and says the rest in words."""
    said = str(error)
    if _NO_ROOM.search(said):
        return failure("no_scratch_space", "The scratch directory is full.")
    if _NO_HANDLES.search(said):
        return failure("too_many_files", "LevelDB cannot open the files it needs.")
    return failure("chains_damaged", "LevelDB cannot read the token chains.")
