"""The files of a Kubo repository, read as hostile input by one strict parser.

Anybody who can write to a node's directory can write these files.  Whatever is not
what Kubo writes (another type, a NUL, a lone surrogate, a number or nesting without
end) is `MalformedFileError`; nothing else but an OSError comes out of here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from rubix_token_sync import node_files

__all__ = [
    "Datastore",
    "MalformedFileError",
    "Sharding",
    "authorizations",
    "declared_datastore",
    "parse_datastore",
    "read_api",
    "read_sharding",
    "read_version",
    "require_blocks",
]

JSON_LIMIT: Final = 1 << 20
"""Bytes of a configuration that are read at most."""
_TEXT_LIMIT: Final = 1024
_DEPTH_LIMIT: Final = 32
_DIGITS_LIMIT: Final = 19
_PATH_LIMIT: Final = 1024
_WRAPPERS: Final = 8
_SHARDING: Final = re.compile(r"/repo/flatfs/shard/v1/(prefix|suffix|next-to-last)/([1-9][0-9]?)")
_SHARDING_PREFIX: Final = "/repo/flatfs/shard/"
_UNMOUNTED: Final = ": its disk may not be mounted"
_TYPE: Final = re.compile(r"[A-Za-z0-9_-]{1,24}")
_DIGITS: Final = re.compile(rb"[0-9]{1,9}")

Json = Mapping[str, object]


class MalformedFileError(ValueError):
    """A file of the repository is not what Kubo writes; the message completes 'its …'."""


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
class Datastore:
    """What a specification says of the blocks.

    ``kind`` is the type of datastore (``flatfs``, ``badgerds`` …), '' where nothing is
    said; ``path`` its place, relative to the repository or absolute, None where nothing
    is said; ``shard_func`` flatfs's layout, '' where nothing is said.
    """

    kind: str = ""
    path: str | None = None
    shard_func: str = ""


def declared_datastore(repository: str, names: set[bytes]) -> Datastore:
    """What ``datastore_spec``, else ``config``, says of the blocks.

    Args:
        repository: its path.
        names: the names of its files.

    Raises:
        MalformedFileError, OSError: the file cannot be understood or read.
    """
    if b"datastore_spec" in names:
        return parse_datastore(_json(repository, "datastore_spec"))
    if b"config" in names:
        config = _json(repository, "config")
        store = config.get("Datastore", {})
        spec = store.get("Spec", {}) if isinstance(store, dict) else None
        return parse_datastore(spec)
    return Datastore()


def parse_datastore(spec: object) -> Datastore:
    """The part of a datastore's specification that is about blocks.

    Raises:
        MalformedFileError: it says nothing about blocks, or not in Kubo's form.
    """
    for _ in range(_WRAPPERS):  # measure and its like, and one table of mounts
        if not isinstance(spec, dict):
            break
        if "mounts" in spec:
            spec = _mounted(spec["mounts"])
        elif "child" in spec:
            spec = spec["child"]
        else:
            return Datastore(
                _kind(spec.get("type", "")), _path(spec.get("path")), _text(spec, "shardFunc")
            )
    raise MalformedFileError("datastore's specification says nothing about blocks")


def _mounted(mounts: object) -> object:
    if not isinstance(mounts, list) or not all(isinstance(mount, dict) for mount in mounts):
        raise MalformedFileError("datastore's mounts are not a list of objects")
    points = [_text(mount, "mountpoint") for mount in mounts]
    for point in ("/blocks", "/"):
        if point in points:
            return mounts[points.index(point)]
    return None


def _kind(value: object) -> str:
    if not isinstance(value, str):
        raise MalformedFileError("datastore's type is not text")
    return value if not value or _TYPE.fullmatch(value) else "unknown"


def _path(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= _PATH_LIMIT or not _is_clean(value):
        raise MalformedFileError("datastore's path is not the path of a file")
    return value


def _text(entry: Json, name: str) -> str:
    value = entry.get(name, "")
    if not isinstance(value, str) or len(value) > _TEXT_LIMIT or not _is_clean(value):
        raise MalformedFileError(f"datastore's {name} is not text")
    return value


def _is_clean(text: str) -> bool:
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def read_sharding(blocks: str, declared: str) -> Sharding | None:
    """The layout that flatfs wrote beside the blocks, else the declared one; None: unknown."""
    try:
        text, _ = node_files.read_file(node_files.join(blocks, "SHARDING"), 256)
    except FileNotFoundError:
        pass  # as old as the file's invention: the specification has to do
    else:
        declared = text.decode("ascii", "replace").strip()
        if not declared.startswith(_SHARDING_PREFIX):
            raise MalformedFileError("file SHARDING names no layout of flatfs")
    found = _SHARDING.fullmatch(declared)
    if found is None:
        return None
    kind, length = found.groups()
    return Sharding(kind, int(length))  # type: ignore[arg-type]


def require_blocks(blocks: str) -> None:
    """Refuse a place of blocks that no flatfs left so: a disk that is not mounted, mostly.

    Blocks that are not there would be taken for blocks that the node never had.

    Raises:
        MalformedFileError: it is missing, empty or not a directory.
        OSError: it cannot be read.
    """
    try:
        with node_files.scan(blocks) as entries:
            if next(entries, None) is None:
                raise MalformedFileError(f"directory of blocks is empty{_UNMOUNTED}")
    except FileNotFoundError as error:
        raise MalformedFileError(f"directory of blocks is missing{_UNMOUNTED}") from error
    except NotADirectoryError as error:
        raise MalformedFileError("place of blocks is not a directory") from error


def read_version(repository: str) -> int | None:
    """The number in the repository's ``version`` file; None where there is none."""
    try:
        text, _ = node_files.read_file(node_files.join(repository, "version"), 32)
    except FileNotFoundError:
        return None
    return int(text) if _DIGITS.fullmatch(text := text.strip()) else None


def read_api(repository: str) -> str:
    """What the file ``api`` says: the multiaddr of a daemon that runs, or once ran.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    text, _ = node_files.read_file(node_files.join(repository, "api"), _TEXT_LIMIT)
    return text.decode("ascii", "replace").strip()


def authorizations(repository: str) -> list[tuple[str, list[str]]]:
    """Secrets that the daemon lets in (``API.Authorizations``), each with its paths.

    Raises:
        MalformedFileError: also where the file is a link, or belongs to another user than
            the repository: an owner's secret goes to the owner's daemon only.
        OSError: it cannot be read.
    """
    config = _json(repository, "config", own=True)
    api = config.get("API")
    entries = api.get("Authorizations") if isinstance(api, dict) else None
    found = []
    for entry in entries.values() if isinstance(entries, dict) else ():
        secret = entry.get("AuthSecret") if isinstance(entry, dict) else None
        paths = entry.get("AllowedPaths") if isinstance(entry, dict) else None
        if isinstance(secret, str) and isinstance(paths, list):
            found.append((secret, [path for path in paths if isinstance(path, str)]))
    return found


def _json(repository: str, name: str, *, own: bool = False) -> Json:
    """A JSON object of at most 1 MiB."""
    flags = os.O_NOFOLLOW if own else 0
    data, status = node_files.read_file(
        node_files.join(repository, name), JSON_LIMIT + 1, flags=flags
    )
    if own and status.st_uid != node_files.stat(repository).st_uid:
        raise MalformedFileError(f"{name} belongs to another user")
    if len(data) > JSON_LIMIT:
        raise MalformedFileError(f"{name} is larger than any configuration")
    try:
        value = json.loads(data.decode(), parse_constant=_refuse, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise MalformedFileError(f"{name} is not valid JSON") from error
    if not isinstance(value, dict):
        raise MalformedFileError(f"{name} is not a JSON object")
    if _too_deep(value):
        raise MalformedFileError(f"{name} is nested too deeply")
    return value


def _refuse(constant: str) -> object:
    raise ValueError(constant)


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS_LIMIT:
        raise ValueError("a number without end")
    return int(digits)


def _too_deep(value: object) -> bool:
    level = [value]
    for _ in range(_DEPTH_LIMIT):
        below: list[object] = []
        for part in level:
            if isinstance(part, dict):
                below.extend(part.values())
            elif isinstance(part, list):
                below.extend(part)
        if not below:
            return False
        level = below
    return True
