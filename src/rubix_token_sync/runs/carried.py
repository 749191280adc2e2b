"""What earlier runs could not read and this one did not look at: it stays an error.

A sync of one node or of other roots says nothing of what lies elsewhere.  What it was
not asked for is written down again in its session, so that the newest completed sync of
a source always says all that is open.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from rubix_token_sync.targets.base import ErrorEntry

__all__ = ["Looked", "carried", "place", "root_of"]


@dataclass(frozen=True)
class Looked:
    """What a run has looked at.

    Attributes:
        roots: as given and at their real places.
        found: paths of all databases that discovery found, this run's or not.
        dealt_with: paths of the databases that this run read, failed at or found unchanged.
        known: paths of databases that have a mark in the target, which says how they stand.
    """

    roots: Collection[str]
    found: Collection[str]
    dealt_with: Collection[str]
    known: Collection[str]


def carried(entries: Iterable[ErrorEntry], looked: Looked) -> list[ErrorEntry]:
    """Those of the open errors that this run says nothing about; each once."""
    newest = {place(entry): entry for entry in entries}
    return [entry for path, entry in newest.items() if _stays(entry, path, looked)]


def place(entry: ErrorEntry) -> str:
    """The path that an open error is about."""
    return entry.db_path or str(entry.context.get("path"))


def _stays(entry: ErrorEntry, path: str, looked: Looked) -> bool:
    if path in looked.known or path in looked.dealt_with:
        return False
    if root_of(path, looked.roots) is not None:
        return entry.db_path is not None and path in looked.found  # left out by --node
    before = entry.context.get("root")
    # Roots within the one before leave it out on purpose.
    return not (isinstance(before, str) and any(_within(root, before) for root in looked.roots))


def root_of(path: str, roots: Iterable[str]) -> str | None:
    """The innermost root that a path lies below (or is); None: it lies outside."""
    around = [root for root in roots if _within(path, root)]
    return max(around, key=len, default=None)


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
