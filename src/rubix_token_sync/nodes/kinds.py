"""Nodes that keep their tokens elsewhere, as far as their files show it.

Read from the node software's source (v0.0.20).  A node of the main net can keep its
tokens in SQL Server, PostgreSQL or MySQL; the development version of 2026 keeps them in
PostgreSQL.  Its settings are encrypted, so what can be seen is the effect: the token
chains, which every node writes below ``Rubix/``, go on without the database.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Final, Literal

from rubix_token_sync import node_files
from rubix_token_sync.node_places import DATABASES

__all__ = ["network_of", "other_dbms", "stale"]

_STALE_AFTER: Final = timedelta(days=7)


def other_dbms(rubix: bytes) -> bool:
    """Whether a net's token chains were written although there is no database for them.

    Args:
        rubix: a directory named ``Rubix``.
    """
    there = [os.path.join(rubix, name) for name in DATABASES]
    main, test = (_exists(path) for path in there)
    # A node of the test net can be configured to write to rubix.db.
    return (not main and _chains_written(rubix, b"MainNet") > 0) or (
        not main and not test and _chains_written(rubix, b"TestNet") > 0
    )


def network_of(db_path: str) -> Literal["main", "test"]:
    """``main`` or ``test``: the network whose tokens a node's database holds.

    ``rubixtest.db`` is the test net's.  ``rubix.db`` is the main net's, unless all token
    chains beside it are the test net's and there is no ``rubixtest.db`` for them: a node of
    the test net can be configured to write to ``rubix.db``.
    """
    rubix, name = os.path.split(node_files.bytes_of(db_path))
    if name == DATABASES[1]:
        return "test"

    def look() -> Literal["main", "test"]:
        elsewhere = _has_content(os.path.join(rubix, DATABASES[1]))
        only_test = not _chains_written(rubix, b"MainNet") and _chains_written(rubix, b"TestNet")
        return "test" if only_test and not elsewhere else "main"

    return node_files.bounded(look)


def stale(rubix: bytes) -> timedelta | None:
    """By how much the main net's chains are newer than ``rubix.db``; None where that is usual."""
    database = os.path.join(rubix, DATABASES[0])
    try:
        written = node_files.stat(database).st_mtime
        if _exists(database + b"-wal"):
            written = max(written, node_files.stat(database + b"-wal").st_mtime)
    except OSError:
        return None
    behind = timedelta(seconds=max(0.0, _chains_written(rubix, b"MainNet") - written))
    return behind if behind > _STALE_AFTER else None


def _chains_written(rubix: bytes, net: bytes) -> float:
    """When the net's whole tokens were last written to their chains; 0 for never."""
    latest = 0.0
    try:
        with node_files.scan(os.path.join(rubix, net, b"tokenchainstorage")) as entries:
            for entry in entries:
                if entry.name.endswith((".ldb", ".log")):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_size > 0:
                        latest = max(latest, status.st_mtime)
    except OSError:  # the chains are another program's: what cannot be read says nothing
        return 0.0
    return latest


def _has_content(path: bytes) -> bool:
    """A node makes its database as an empty file first, and may never get further."""
    try:
        return node_files.lstat(path).st_size > 0
    except OSError:
        return False


def _exists(path: bytes) -> bool:
    try:
        node_files.lstat(path)
    except OSError:
        return False
    return True
