"""Nothing of ours goes into a node's directories: not the target, not the log, not a report."""

from __future__ import annotations

import os

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.node_places import node_around

__all__ = ["keep_out", "node_around"]


def keep_out(path: str | os.PathLike[str], what: str) -> None:
    """Refuse a place for ``what`` (``The report``) that belongs to a node.

    Raises:
        SettingsError: ``inside_a_node``.
        SourceError: ``stalled``.
    """
    node = node_around(path)
    if node is not None:
        raise SettingsError(
            f"{what} would go to {os.fspath(path)}, which is inside the node's directory {node}.",
            code="inside_a_node",
            remedy="Choose a place outside: nothing is ever written into a node's directories.",
            context={"path": os.fspath(path), "node": node},
        )
