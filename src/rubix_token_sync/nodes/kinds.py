"""Nodes that keep their tokens elsewhere, as far as their files show it.

Read from the node software's source (v0.0.20).  A node of the main net can keep its
tokens in SQL Server, PostgreSQL or MySQL; the development version of 2026 keeps them in
PostgreSQL.  Its settings are encrypted, so what can be seen is the effect: the token
chains, which every node writes below ``Rubix/``, go on without the database.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Final

from rubix_token_sync import node_files
from rubix_token_sync.ipfs import cid as cids
from rubix_token_sync.node_places import DATABASES, STORAGES
from rubix_token_sync.nodes.did_keys import LONGEST_DID, TEST_DIDS, Network

__all__ = ["as_read", "chains_network", "network_of", "other_dbms", "stale"]

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


def network_of(db_path: str) -> Network | None:
    """The network whose tokens a node's database holds; None where nothing there says it.

    ``rubixtest.db`` is the test net's.  A node of the test net can be configured to write to
    ``rubix.db``, so its name proves nothing: it is the main net's where a ``rubixtest.db`` with
    content lies beside it, else that of the token chains beside it, or of the keys of DIDs,
    where those are of one network only.  A copy of a database alone says nothing.
    """
    rubix, name = os.path.split(node_files.bytes_of(db_path))
    if name == DATABASES[1]:
        return "test"

    def look() -> Network | None:
        if _has_content(os.path.join(rubix, DATABASES[1])):
            return "main"
        for main, test in (
            (_has_chains(rubix, b"MainNet"), _has_chains(rubix, b"TestNet")),
            (_has_dids(rubix), _has_dids(os.path.join(rubix, TEST_DIDS))),
        ):
            if main or test:
                return None if main and test else "main" if main else "test"
        return None

    return node_files.bounded(look)


def chains_network(network: Network | None) -> Network:
    """Whose token chains are read beside such a database."""
    return network or "main"


def as_read(fingerprint: str, network: Network | None) -> str:
    """The fingerprint of a database together with what was known of its network.

    Where nothing said whose tokens these are, the database is read again once something does.
    """
    return fingerprint if network else f"{fingerprint};network unknown"


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


def _chains_written(rubix: bytes, net: bytes, storage: bytes = b"tokenchainstorage") -> float:
    """When the net's whole tokens were last written to their chains; 0 for never."""
    latest = 0.0
    try:
        with node_files.scan(os.path.join(rubix, net, storage)) as entries:
            for entry in entries:
                if entry.name.endswith((".ldb", ".log")):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_size > 0:
                        latest = max(latest, status.st_mtime)
    except OSError:  # the chains are another program's: what cannot be read says nothing
        return 0.0
    return latest


def _has_chains(rubix: bytes, net: bytes) -> bool:
    """Whether a token of any kind has a chain there."""
    return any(_chains_written(rubix, net, storage.encode()) > 0 for storage in STORAGES)


def _has_dids(directory: bytes) -> bool:
    """Whether the keys of a DID are there, in a directory that is named after it."""
    try:
        with node_files.scan(directory) as entries:
            return any(
                len(entry.name) <= LONGEST_DID
                and cids.parse(os.fsdecode(entry.name)) is not None
                and entry.is_dir(follow_symlinks=False)
                for entry in entries
            )
    except OSError:
        return False


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
