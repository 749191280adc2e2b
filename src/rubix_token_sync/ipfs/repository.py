"""A Kubo repository on disk: is it one, how does it keep blocks, did it change.

Only reads.  The layout is that of Kubo's fsrepo: ``datastore_spec`` says which
datastore is mounted at ``/blocks``, ``version`` how blocks are keyed, and
``<blocks>/SHARDING`` how flatfs spreads them over directories
(https://github.com/ipfs/go-ds-flatfs).
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import time
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from rubix_token_sync import node_files
from rubix_token_sync.errors import SourceError
from rubix_token_sync.ipfs.content import Failure, FailureCode
from rubix_token_sync.ipfs.repository_files import (
    MalformedFileError,
    Sharding,
    declared_datastore,
    read_sharding,
    read_version,
    require_blocks,
)

__all__ = [
    "NO_REPOSITORY",
    "Repository",
    "failure_of",
    "open_repository",
    "repository_fingerprint",
]

NO_REPOSITORY: Final = Failure(
    FailureCode.NO_REPOSITORY, "the node has no IPFS repository on this machine"
)
MULTIHASH_KEYS_SINCE: Final = 12
"""The repository version since which blocks are keyed by multihash, not by CID."""
_STALLED_FOR: Final = 300.0
"""Seconds for which a repository that stalled is not asked again by this process."""
_stalled: dict[str, tuple[float, SourceError]] = {}


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository; picklable, holds no handles.

    ``format`` is the type of datastore that holds the blocks (``flatfs``,
    ``badgerds``, ``pebbleds``, ``levelds`` …); ``blocks`` the directory of its
    files and ``sharding`` its layout where the format is flatfs, else None.
    ``version`` is the number in the repository's ``version`` file, if any.
    """

    path: str
    format: str
    blocks: str
    sharding: Sharding | None
    version: int | None

    @property
    def readable(self) -> bool:
        """Whether the blocks can be read without the node's software."""
        return self.sharding is not None


def open_repository(
    path: str | None, *, stall_s: float = node_files.STALL_SECONDS
) -> Repository | Failure:
    """Find out what ``path`` (a directory named ``.ipfs``) is.

    A directory is a repository when it holds ``config``, ``datastore_spec`` or
    ``blocks``.  Failures: `NO_REPOSITORY`, ``access_denied``, ``read_error`` (also of a
    file system that gives no answer for ``stall_s`` seconds).
    """
    if path is None:
        return NO_REPOSITORY
    try:
        _refuse_stalled(path)
        return node_files.bounded(lambda: _open(path), stall_s=stall_s)
    except SourceError as error:
        return note_stall(path, error)


def note_stall(path: str, error: SourceError) -> Failure:
    """Remember that a repository's file system does not answer; what that means for a token."""
    _stalled.setdefault(path, (time.monotonic(), error))
    return Failure(FailureCode.READ_ERROR, f"the repository could not be read: {error.message}")


def known_stall(path: str) -> Failure | None:
    """The failure of a repository that stalled a short time ago; None: it may be asked."""
    try:
        _refuse_stalled(path)
    except SourceError as error:
        return note_stall(path, error)
    return None


def _refuse_stalled(path: str) -> None:
    """Raise the error of a repository that stalled a short time ago."""
    if path in _stalled:
        since, error = _stalled[path]
        if time.monotonic() - since < _STALLED_FOR:
            raise error
        del _stalled[path]


def _open(path: str) -> Repository | Failure:
    try:
        names = set(node_files.listdir(path))
    except FileNotFoundError:
        return NO_REPOSITORY
    except OSError as error:
        return failure_of(error, path)
    if not names & {b"config", b"datastore_spec", b"blocks"}:
        return NO_REPOSITORY
    try:
        version = read_version(path)
        store = declared_datastore(path, names)
        kind = store.kind or ("flatfs" if b"blocks" in names else "unknown")
        if kind != "flatfs":
            place = node_files.join(path, store.path) if store.path else path
            return Repository(path, kind, place, None, version)
        blocks = node_files.join(path, store.path or "blocks")
        require_blocks(blocks)
        return Repository(path, "flatfs", blocks, read_sharding(blocks, store.shard_func), version)
    except OSError as error:
        return failure_of(error, path)
    except MalformedFileError as error:
        return Failure(FailureCode.READ_ERROR, f"the repository could not be read: its {error}")


def failure_of(error: OSError, repository: str) -> Failure:
    """What an error of the operating system on a repository's file means for a token."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return Failure(
            FailureCode.ACCESS_DENIED,
            "this user may not read the repository; "
            f"run as its owner ({_owner(repository)}) or as root",
        )
    reason = error.strerror or type(error).__name__
    return Failure(FailureCode.READ_ERROR, f"the repository could not be read: {reason}")


def repository_fingerprint(path: str | None, *, stall_s: float = node_files.STALL_SECONDS) -> str:
    """32 hexadecimal digits that change when blocks were added or removed.

    From names and modification times of the directories of blocks, not of the
    blocks: about a millisecond a repository.  Where other code keeps the blocks,
    the names, sizes and times of its files count, and whether a daemon runs.
    An unreadable repository has a fingerprint too (of why it is unreadable).

    Raises:
        SourceError: ``stalled``, the file system gave no answer for ``stall_s`` seconds.
    """
    digest = blake2b(digest_size=16, person=b"rubix-ipfs-repo")
    repository = open_repository(path, stall_s=stall_s)
    _refuse_stalled(path or "")
    if isinstance(repository, Failure):
        digest.update(str(repository).encode())
        return digest.hexdigest()
    digest.update(repr((repository.format, repository.sharding, repository.version)).encode())
    try:
        for line in sorted(node_files.bounded(lambda: _traces(repository), stall_s=stall_s)):
            digest.update(line)
    except OSError as error:
        digest.update(str(failure_of(error, repository.path)).encode())
    except SourceError as error:
        note_stall(repository.path, error)
        raise
    return digest.hexdigest()


def _traces(repository: Repository) -> list[bytes]:
    if repository.readable:
        with node_files.scan(repository.blocks) as entries:
            # .temp changes with every write, even one that ends in nothing.
            return [
                b"%b %d\n" % (os.fsencode(entry.name), entry.stat().st_mtime_ns)
                for entry in entries
                if not entry.name.startswith(".")
                and len(entry.name) <= 64
                and entry.name != "diskUsage.cache"
            ]
    lines = [f"api {b'api' in node_files.listdir(repository.path)}\n".encode()]
    with node_files.scan(repository.blocks) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            line = (os.fsencode(entry.name), status.st_size, status.st_mtime_ns)
            lines.append(b"%b %d %d\n" % line)
    return lines


def _owner(path: str) -> str:
    try:
        uid = node_files.stat(path).st_uid
    except OSError:
        return "unknown"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def is_directory(path: str) -> bool:
    """Whether there is a directory at ``path``."""
    try:
        return stat.S_ISDIR(node_files.stat(path).st_mode)
    except OSError:
        return False
