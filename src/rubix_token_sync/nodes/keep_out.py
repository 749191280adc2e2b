"""Nothing of ours goes into a node's directories: not the target, not the log, not a report.

Nodes and repositories are recognised from the path upwards, by the same names
that `rubix_token_sync.nodes.discovery` goes by, so that a place can be refused before
anything is made there and whatever the roots of the run are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.nodes.discovery import DATABASE_NAME

__all__ = ["keep_out", "node_around"]

_REPOSITORY_NAME: Final = ".ipfs"
_REPOSITORY_MARKS: Final = ("datastore_spec", "SHARDING")
_NODE_NAME: Final = "Rubix"


def node_around(path: str | os.PathLike[str]) -> str | None:
    """The node's directory or repository that ``path`` (there or not) is in; None: in none.

    Symbolic links are followed: what counts is where the bytes would go.
    """
    real = Path(os.path.realpath(path))
    if real.name.startswith(DATABASE_NAME):  # rubix.db itself, its -wal, -shm and -journal
        return str(real.parent)
    for directory in (real, *real.parents):
        if directory.name == _REPOSITORY_NAME or any(
            os.path.lexists(directory / mark) for mark in _REPOSITORY_MARKS
        ):
            return str(directory)
        if os.path.lexists(directory / _NODE_NAME / DATABASE_NAME):
            return str(directory)
        # A database without the usual directory around it: only beside it is in its way.
        beside = directory in (real, real.parent) or directory.name == _NODE_NAME
        if beside and os.path.lexists(directory / DATABASE_NAME):
            return str(directory)
    return None


def keep_out(path: str | os.PathLike[str], what: str) -> None:
    """Refuse a place for ``what`` (``The report``) that belongs to a node.

    Raises:
        SettingsError: it does.
    """
    node = node_around(path)
    if node is not None:
        raise SettingsError(
            f"{what} would go to {os.fspath(path)}, which is inside the node's directory {node}.",
            code="inside_a_node",
            remedy="Choose a place outside: nothing is ever written into a node's directories.",
            context={"path": os.fspath(path), "node": node},
        )
