"""What may not be written over: a node's directories, databases, and what is not a file."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final, Literal

from rubix_token_sync import node_files
from rubix_token_sync.errors import SettingsError, SourceError
from rubix_token_sync.node_files import bounded, from_argument
from rubix_token_sync.node_places import is_database, node_around

__all__ = ["Output", "keep_out", "node_around"]

Output = Literal["place", "file", "stream"]
"""``place``: a directory, or a target; ``file``: it gets its name when it is complete, so that
only a plain file can be replaced by it; ``stream``: pipes and devices take it as well."""

_KINDS: Final = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def keep_out(
    path: str | os.PathLike[str],
    what: str,
    output: Output = "place",
    *,
    stall_s: float = node_files.STALL_SECONDS,
) -> None:
    """Refuse a place for ``what`` (``The report``) that belongs to a node, or is taken.

    Raises:
        SettingsError: ``inside_a_node``; ``place_taken``; ``stalled``, it does not answer.
    """
    try:
        _refuse(path, what, output, stall_s)
    except SourceError as error:
        raise SettingsError(
            f"{what} would go to {os.fspath(path)}. {error.message}",
            code=error.code,
            remedy=error.remedy,
            context={"path": os.fspath(path)},
        ) from error


def _refuse(path: str | os.PathLike[str], what: str, output: Output, stall_s: float) -> None:
    node = node_around(path, stall_s=stall_s)
    if node is not None:
        raise SettingsError(
            f"{what} would go to {os.fspath(path)}, which is inside the node's directory {node}.",
            code="inside_a_node",
            remedy="Choose a place outside: nothing is ever written into a node's directories.",
            context={"path": os.fspath(path), "node": node},
        )
    if output == "place":
        return
    there = bounded(lambda: _there(from_argument(path), output), stall_s=stall_s)
    if there is not None:
        raise SettingsError(
            f"{what} would go to {os.fspath(path)}, where {there} is already.",
            code="place_taken",
            remedy="Choose another name: databases are never written over, and only a plain file "
            "can be replaced.",
            context={"path": os.fspath(path)},
        )


def _there(path: bytes, output: Output) -> str | None:
    """What is at a path and must stay; None: nothing, or a file that may be replaced."""
    if is_database(path):
        return "a SQLite database, or a file of one,"
    try:
        mode = node_files.stat(path).st_mode
    except OSError:  # nothing there; whoever writes says why it cannot
        return None
    if output == "stream":
        waits = stat.S_ISFIFO(mode) and not _has_reader(path)
        return "a named pipe that nobody reads" if waits else None
    return next((name for is_one, name in _KINDS if is_one(mode)), None)


def _has_reader(pipe: bytes) -> bool:
    """Whether opening it would not wait for one."""
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno != errno.ENXIO
    return True
