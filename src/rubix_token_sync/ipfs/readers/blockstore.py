"""Content from the files of a repository's own block store (flatfs).

A block is the file ``<blocks>/<shard>/<KEY>.data``; the key is the upper-case
base32 of the block's multihash, in repositories older than version 12 of the
whole binary CID.  Reading beside a running daemon is safe: it renames finished
files into place.  Nothing is locked, nothing is written (nor, where the system lets us, the
time of the last access), and every path is made of a parsed CID.

Where the operating system has the files in memory, one thread is as fast as many.
Where a disk must find them first, several threads touch the files of a batch at
the same time before it is read.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from libipld import encode_multibase

from rubix_token_sync import failpoints, threads
from rubix_token_sync.ipfs.blocks import (
    BLOCK_LIMIT,
    BLOCK_TOO_LARGE,
    block_failure,
    content_of,
    content_of_root,
    refused,
)
from rubix_token_sync.ipfs.cid import DAG_PB, Cid, to_bytes
from rubix_token_sync.ipfs.content import CONTENT_LIMIT, MAX_BLOCK, Failure, FailureCode
from rubix_token_sync.ipfs.options import ContentOptions
from rubix_token_sync.ipfs.readers.bounded import BoundedReader
from rubix_token_sync.ipfs.repository import (
    MULTIHASH_KEYS_SINCE,
    Repository,
    failure_of,
)
from rubix_token_sync.ipfs.unixfs import leaf_content, refuse_oversize
from rubix_token_sync.node_files import bytes_of

try:
    import resource

    _OF_THIS_THREAD = getattr(resource, "RUSAGE_THREAD", None)  # Linux has it
except ImportError:  # Windows
    _OF_THIS_THREAD = None

__all__ = ["NAME", "BlockStoreReader", "open_reader"]

NAME: Final = "blockstore"

_FIRST_READ: Final = 1024
_COLD_SECONDS: Final = 40e-6
"""A block that takes longer may come from the disk: memory gives one in 6 µs."""
_COLD_WAITS: Final = 1 / 8
"""Fewer waits per block mean that it did not: a busy processor makes memory slow, too."""
_COLD_BATCHES: Final = 16
"""Batches that are touched before the need for it is measured again."""
_FEWEST_TOUCHED: Final = 8
"""For fewer blocks a thread costs more than it saves."""
# A FIFO in a block's place must not hang the run, and a link must not lead elsewhere.
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_NO_ACCESS_TIME: Final = getattr(os, "O_NOATIME", 0)
"""Linux, for the files' owner and root: the time of the last access stays as it was."""
_NOT_HERE: Final = Failure(FailureCode.NOT_IN_REPOSITORY, "the node's repository does not hold it")
_NOT_A_FILE: Final = Failure(
    FailureCode.READ_ERROR,
    "the repository could not be read: not a regular file in a block's place",
)


def open_reader(
    path: str | None, repository: Repository | Failure, options: ContentOptions
) -> BoundedReader:
    """The way for one node; see `rubix_token_sync.ipfs.readers`."""
    return BoundedReader(NAME, path, lambda: BlockStoreReader(repository, options.workers))


class BlockStoreReader:
    """Reads verified content from one repository's flatfs; see `ContentReader`."""

    name = NAME

    def __init__(self, repository: Repository | Failure, threads: int = 1) -> None:
        """At most ``threads`` files are waited for at the same time."""
        self._repository = repository
        self._threads = threads
        self._cold = 0
        """Batches to come whose blocks are touched first."""
        self._directory = -1
        self._failure: Failure | None = None
        if isinstance(repository, Failure):
            self._failure = repository
        elif repository.format != "flatfs":
            self._failure = _unsupported(f"({repository.format})")
        else:
            try:
                failpoints.point("content.open")
                self._directory, self._flags = _open_directory(bytes_of(repository.blocks))
            except OSError as error:
                self._failure = failure_of(error, repository.path)
            if repository.sharding is not None:
                self._shard = repository.sharding.shard()
            elif self._failure is None:
                self._failure = _unsupported("(flatfs in an unknown layout)")

    def read(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        """Verified content or a failure for each CID; about 6 µs a token of one small block."""
        if self._failure is not None:
            return [self._failure] * len(cids)
        if self._cold:
            self._cold -= 1
            self._touch_all(cids)
            return self._read(cids)
        started, waited = time.perf_counter(), _waits()
        answers = self._read(cids)
        took, waits = time.perf_counter() - started, _waits() - waited
        if self._threads > 1 and took > _COLD_SECONDS * len(cids):
            self._cold = _COLD_BATCHES if waits >= _COLD_WAITS * len(cids) else 0
        return answers

    def blocks(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        """Verified blocks or a failure for each CID; 0.5 ms for a full chunk of a file."""
        if self._failure is not None:
            return [self._failure] * len(cids)
        return [self._block(cid, MAX_BLOCK) for cid in cids]

    def _read(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        # The loop is written out for the usual token (one small sha2-256 block);
        # whatever differs goes the general way.
        out: list[bytes | Failure] = []
        append = out.append
        os_open, os_read, os_close = os.open, os.read, os.close
        directory, flags = self._directory, self._flags
        shard, whole_keys = self._shard, not self._multihash_keys
        for cid in cids:
            multihash = cid.multihash
            if cid.codec == DAG_PB and len(multihash) == 34 and multihash.startswith(b"\x12\x20"):
                if whole_keys and cid.version:
                    append(content_of(cid, self._block))
                    continue
                key = encode_multibase("B", multihash)[1:]
                try:
                    fd = os_open(f"{shard(key)}/{key}.data", flags, dir_fd=directory)
                except OSError:
                    append(content_of(cid, self._block))
                    continue
                try:
                    block = os_read(fd, _FIRST_READ)
                except OSError:
                    block = b""
                finally:
                    os_close(fd)
                if len(block) < _FIRST_READ and sha256(block).digest() == multihash[2:]:
                    content = leaf_content(block)
                    append(content_of_root(cid, block, self._block) if content is None else content)
                    continue
            append(content_of(cid, self._block))
        return out

    def close(self) -> None:
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1
            self._failure = Failure(FailureCode.READ_ERROR, "the block store has been closed")

    @property
    def _multihash_keys(self) -> bool:
        repository = self._repository
        return (
            isinstance(repository, Repository)
            and repository.version is not None
            and repository.version >= MULTIHASH_KEYS_SINCE
        )

    def _touch_all(self, cids: Sequence[Cid]) -> None:
        """Have the operating system read all blocks."""
        count = min(self._threads, -(-len(cids) // _FEWEST_TOUCHED))
        # Daemons: a file system that never answers must not hold the process up at its end.
        started = []
        for part in range(count):
            try:
                started.append(threads.daemon(self._touch, "rubix-blocks", cids[part::count]))
            except RuntimeError:  # no more threads for this process
                self._threads = 1
                break
        for thread in started:
            thread.join()

    def _touch(self, cids: Sequence[Cid]) -> None:
        for cid in cids:
            key = self._keys(cid)[0]
            # Reading it afterwards shows what is wrong with it.
            with contextlib.suppress(OSError):
                fd = self._open(key)
                try:
                    os.read(fd, _FIRST_READ)
                finally:
                    os.close(fd)

    def _block(self, cid: Cid, limit: int = BLOCK_LIMIT) -> bytes | Failure:
        """One verified block of at most ``limit`` bytes, or why there is none."""
        failure: Failure = _NOT_HERE
        for key in self._keys(cid):
            try:
                fd = self._open(key)
            except FileNotFoundError:
                continue
            except OSError as error:
                return self._os_failure(error)
            try:
                block = self._read_block(cid, fd, limit)
            except OSError as error:
                return self._os_failure(error)
            finally:
                os.close(fd)
            if isinstance(block, Failure):
                failure = block
                continue
            problem = block_failure(cid, block)
            if problem is None:
                return block
            failure = problem
        return failure

    def _open(self, key: str) -> int:
        path = f"{self._shard(key)}/{key}.data"
        try:
            return os.open(path, self._flags, dir_fd=self._directory)
        except PermissionError:
            if self._flags == _FLAGS:
                raise
            return os.open(path, _FLAGS, dir_fd=self._directory)  # this one is not ours

    def _keys(self, cid: Cid) -> list[str]:
        by_hash: str = encode_multibase("B", cid.multihash)[1:]
        if cid.version == 0 or self._multihash_keys:
            return [by_hash]
        # Old repositories key by CID; without a version file it may be either.
        return [encode_multibase("B", to_bytes(cid))[1:], by_hash]

    @staticmethod
    def _read_block(cid: Cid, fd: int, limit: int) -> bytes | Failure:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return _NOT_A_FILE
        if status.st_size > MAX_BLOCK:
            return BLOCK_TOO_LARGE
        if status.st_size > limit:
            return refused(refuse_oversize(cid.codec, os.read(fd, _FIRST_READ), status.st_size))
        parts, left = [], limit + 1
        while left:
            part = os.read(fd, left)
            if not part:
                break
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _os_failure(self, error: OSError) -> Failure:
        path = self._repository.path if isinstance(self._repository, Repository) else "."
        return failure_of(error, path)


def _open_directory(path: bytes) -> tuple[int, int]:
    """A handle, and the flags with which files below it are opened."""
    flags = os.O_RDONLY | os.O_DIRECTORY
    try:
        return os.open(path, flags | _NO_ACCESS_TIME), _FLAGS | _NO_ACCESS_TIME
    except PermissionError:  # another user owns it
        return os.open(path, flags), _FLAGS


def _waits() -> int:
    """How often this thread has waited; where that is not counted, all time counts as waits."""
    if _OF_THIS_THREAD is None:
        return time.perf_counter_ns() // 1_000
    return resource.getrusage(_OF_THIS_THREAD).ru_nvcsw


def _unsupported(form: str) -> Failure:
    return Failure(
        FailureCode.UNSUPPORTED_FORMAT,
        f"the repository keeps blocks in a form {form} that only the node's own daemon "
        "or program can read",
    )


assert _FIRST_READ <= CONTENT_LIMIT  # the loop needs no check of the limit
