"""A Kubo repository on disk: is it one, how does it keep blocks, did it change.

Only reads.  The layout is that of Kubo's fsrepo: ``datastore_spec`` says which
datastore is mounted at ``/blocks``, ``version`` how blocks are keyed, and
``<blocks>/SHARDING`` how flatfs spreads them over directories
(https://github.com/ipfs/go-ds-flatfs).
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, BinaryIO, Final, Literal

from rubix_token_sync.ipfs.content import Failure, FailureCode

__all__ = [
    "NO_REPOSITORY",
    "Repository",
    "Sharding",
    "failure_of",
    "open_repository",
    "read_json",
    "repository_fingerprint",
]

NO_REPOSITORY: Final = Failure(
    FailureCode.NO_REPOSITORY, "the node has no IPFS repository on this machine"
)
MULTIHASH_KEYS_SINCE: Final = 12
"""The repository version since which blocks are keyed by multihash, not by CID."""

_CONFIG_LIMIT = 1 << 20
_SHARDING = re.compile(r"/repo/flatfs/shard/v1/(prefix|suffix|next-to-last)/([1-9][0-9]?)")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,24}")


@dataclass(frozen=True, slots=True)
class Sharding:
    """flatfs's rule from a block's key to its directory; short keys are padded with ``_``."""

    kind: Literal["prefix", "suffix", "next-to-last"]
    length: int

    def shard(self) -> Callable[[str], str]:
        """The function from key to directory name."""
        length = self.length
        if self.kind == "prefix":
            return lambda key: key[:length].ljust(length, "_")
        if self.kind == "suffix":
            return lambda key: key[-length:].rjust(length, "_")
        return lambda key: key[-length - 1 : -1].rjust(length, "_")


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


def open_repository(path: str | None) -> Repository | Failure:
    """Find out what ``path`` (a directory named ``.ipfs``) is.

    A directory is a repository when it holds ``config``, ``datastore_spec`` or
    ``blocks``.  Failures: `NO_REPOSITORY`, ``access_denied``, ``read_error``.
    """
    if path is None:
        return NO_REPOSITORY
    try:
        names = set(os.listdir(path))
        if not names & {"config", "datastore_spec", "blocks"}:
            return NO_REPOSITORY
        version = _version(path)
        mount = _blocks_mount(path, names)
        kind = str(mount.get("type", "flatfs" if "blocks" in names else "unknown"))
        if kind != "flatfs":
            kind = kind if _NAME.fullmatch(kind) else "unknown"
            directory = os.path.join(path, str(mount.get("path", "")))
            return Repository(path, kind, directory, None, version)
        blocks = os.path.join(path, str(mount.get("path", "blocks")))
        sharding = _sharding(blocks, str(mount.get("shardFunc", "")))
        return Repository(path, "flatfs", blocks, sharding, version)
    except (FileNotFoundError, NotADirectoryError):
        return NO_REPOSITORY
    except OSError as error:
        return failure_of(error, path)
    except ValueError:
        return Failure(
            FailureCode.READ_ERROR, "the repository's datastore_spec or config is not valid JSON"
        )


def failure_of(error: OSError, repository: str) -> Failure:
    """What an error of the operating system on a repository's file means for a token."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return Failure(
            FailureCode.ACCESS_DENIED,
            "this user may not read the repository; "
            f"run as its owner ({_owner(repository)}) or as root",
        )
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    return Failure(FailureCode.READ_ERROR, f"the repository could not be read: {reason}")


def repository_fingerprint(path: str | None) -> str:
    """32 hexadecimal digits that change when blocks were added or removed.

    From names and modification times of the directories of blocks, not of the
    blocks: about a millisecond a repository.  Where other code keeps the blocks,
    the names, sizes and times of its files count, and whether a daemon runs.
    An unreadable repository has a fingerprint too (of why it is unreadable).
    """
    digest = blake2b(digest_size=16, person=b"rubix-ipfs-repo")
    repository = open_repository(path)
    if isinstance(repository, Failure):
        digest.update(str(repository).encode())
        return digest.hexdigest()
    digest.update(repr((repository.format, repository.sharding, repository.version)).encode())
    try:
        for line in sorted(_traces(repository)):
            digest.update(line.encode(errors="surrogateescape"))
    except OSError as error:
        digest.update(str(failure_of(error, repository.path)).encode())
    return digest.hexdigest()


def read_json(path: str, *, own: bool = False) -> Any:
    """A JSON file of at most 1 MiB; raises OSError or ValueError.

    With ``own`` it must not be a link, and belong to who owns its directory.
    """
    with _opened(path, os.O_NOFOLLOW if own else 0) as file:
        if own and os.fstat(file.fileno()).st_uid != os.stat(os.path.dirname(path)).st_uid:
            raise ValueError("the file belongs to somebody else")
        text = file.read(_CONFIG_LIMIT + 1)
    if len(text) > _CONFIG_LIMIT:
        raise ValueError("the file is larger than any configuration")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("the file is nested too deeply") from error


def _opened(path: str, flags: int = 0) -> BinaryIO:
    # A FIFO in a file's place must not hang the run: do not wait for a writer.
    return open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags), "rb")


def _traces(repository: Repository) -> list[str]:
    if repository.readable:
        with os.scandir(repository.blocks) as entries:
            # .temp changes with every write, even one that ends in nothing.
            return [
                f"{entry.name} {entry.stat().st_mtime_ns}\n"
                for entry in entries
                if not entry.name.startswith(".")
                and len(entry.name) <= 64
                and entry.name != "diskUsage.cache"
            ]
    lines = [f"api {os.path.lexists(os.path.join(repository.path, 'api'))}\n"]
    with os.scandir(repository.blocks) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            lines.append(f"{entry.name} {status.st_size} {status.st_mtime_ns}\n")
    return lines


def _version(path: str) -> int | None:
    try:
        with _opened(os.path.join(path, "version")) as file:
            text = file.read(32).strip()
    except FileNotFoundError:
        return None
    return int(text) if text.isdigit() else None


def _blocks_mount(path: str, names: set[str]) -> dict[str, Any]:
    """The part of the datastore's specification that is about blocks; may be empty."""
    spec: Any = {}
    if "datastore_spec" in names:
        spec = read_json(os.path.join(path, "datastore_spec"))
    elif "config" in names:
        config = read_json(os.path.join(path, "config"))
        spec = config.get("Datastore", {}) if isinstance(config, dict) else {}
        spec = spec.get("Spec", {}) if isinstance(spec, dict) else {}
    for _ in range(8):  # wrappers such as measure, and one mount table
        if not isinstance(spec, dict):
            break
        if isinstance(spec.get("mounts"), list):
            mounts = [mount for mount in spec["mounts"] if isinstance(mount, dict)]
            points = {mount.get("mountpoint"): mount for mount in reversed(mounts)}
            spec = points.get("/blocks") or points.get("/")
        elif "child" in spec:
            spec = spec["child"]
        else:
            return spec
    raise ValueError("the datastore's specification says nothing about blocks")


def _sharding(blocks: str, declared: str) -> Sharding | None:
    """The layout that flatfs wrote beside the blocks, else the one it was told to use."""
    try:
        with _opened(os.path.join(blocks, "SHARDING")) as file:
            declared = file.read(256).decode("ascii", "replace").strip()
    except FileNotFoundError:
        pass  # as old as the file's invention: the specification has to do
    found = _SHARDING.fullmatch(declared)
    if found is None:
        return None
    kind, length = found.groups()
    return Sharding(kind, int(length))  # type: ignore[arg-type]


def _owner(path: str) -> str:
    try:
        uid = os.stat(path).st_uid
    except OSError:
        return "unknown"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
