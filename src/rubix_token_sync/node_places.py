"""What a node's files are called, and which node a path belongs to.

Nodes and repositories are recognised from the path upwards, so that a place can be
refused before anything is made there and whatever the roots of the run are.
"""

from __future__ import annotations

import os
from typing import Final

from rubix_token_sync import node_files
from rubix_token_sync.node_files import bounded, from_argument, text_of

__all__ = [
    "DATABASES",
    "NODE_DIRECTORY",
    "PRUNE_MARKS",
    "REPOSITORY",
    "STORAGES",
    "is_database",
    "node_around",
]

NODE_DIRECTORY: Final = b"Rubix"
DATABASES: Final = (b"rubix.db", b"rubixtest.db")
"""Of the main net (or wherever the node was configured to write), and of the test net."""
REPOSITORY: Final = b".ipfs"
STORAGES: Final = {
    "tokenchainstorage": "rbt",
    "FTchainstorage": "ft",
    "nftchainstorage": "nft",
    "datachainstorage": "data",
    "smartcontractokenchainstorage": "contract",
}
"""The directories of token chains of a network, and the kind of token whose chains each holds."""
PRUNE_MARKS: Final = frozenset({b"datastore_spec", b"SHARDING"})
"""A directory with one of these files is a block store, or a repository under another name;
there is no node below it."""

_MAGIC: Final = b"SQLite format 3\x00"
_SCHEMA_BYTES: Final = 2**16


def node_around(
    path: str | os.PathLike[str], *, stall_s: float = node_files.STALL_SECONDS
) -> str | None:
    """The node's directory or repository that ``path`` (there or not) is in; None: in none.

    Symbolic links are followed: what counts is where the bytes would go.

    Raises:
        SourceError: ``stalled``.
    """
    return bounded(lambda: _node_around(from_argument(path)), stall_s=stall_s)


def _node_around(path: bytes) -> str | None:
    real = node_files.realpath(path)
    if os.path.basename(real).startswith(DATABASES) or _is_node_database(real):
        return text_of(os.path.dirname(real))  # the database, its -wal, -shm and -journal
    directory = real
    while True:
        name = os.path.basename(directory)
        if name == REPOSITORY or any(_exists(directory, mark) for mark in PRUNE_MARKS):
            return text_of(directory)
        if any(_exists(directory, NODE_DIRECTORY, database) for database in DATABASES):
            return text_of(directory)
        # A database without the usual directory around it: only beside it is in its way.
        beside = directory in (real, os.path.dirname(real)) or name == NODE_DIRECTORY
        if beside and any(_exists(directory, database) for database in DATABASES):
            return text_of(directory)
        if directory == os.path.dirname(directory):
            return None
        directory = os.path.dirname(directory)


def _exists(*parts: bytes) -> bool:
    try:
        node_files.lstat(os.path.join(*parts))
    except OSError:
        return False
    return True


def _is_node_database(path: bytes) -> bool:
    """Whether a file of any name is a node's database: links may lead to one.

    A file that this process has open is not looked at: closing it a second time would
    drop SQLite's locks on it.
    """
    try:
        status = node_files.stat(path)
        if _handle_of(status) is not None:
            return False
        head, _ = node_files.read_file(path, _SCHEMA_BYTES)
    except OSError:
        return False
    return head.startswith(_MAGIC) and b"TokensTable" in head and b"TokenRecords" not in head


def is_database(path: bytes) -> bool:
    """Whether ``path`` is a SQLite database, whoever's, or one of the files beside one."""
    for suffix in (b"-wal", b"-shm", b"-journal"):
        if path.endswith(suffix) and is_database(path.removesuffix(suffix)):
            return True
    try:
        status = node_files.stat(path)
        handle = _handle_of(status)
        if handle is not None:  # not opened again: closing it would drop SQLite's locks
            return os.pread(handle, len(_MAGIC), 0) == _MAGIC
        return node_files.read_file(path, len(_MAGIC))[0] == _MAGIC
    except OSError:  # nothing there, no plain file, or not to be read by this user
        return False


def _handle_of(status: os.stat_result) -> int | None:
    """A handle by which this process has the file open already."""
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            other = os.fstat(int(name))
        except OSError:  # the listing's own
            continue
        if (other.st_dev, other.st_ino) == (status.st_dev, status.st_ino):
            return int(name)
    return None
