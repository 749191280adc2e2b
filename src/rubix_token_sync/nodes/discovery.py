"""Finds the databases of Rubix nodes below the roots a user gives.

A node's database is ``<node>/Rubix/rubix.db`` (main net) or ``<node>/Rubix/rubixtest.db``
(test net); both may be there, and both carry the name of the directory two levels
above.  A file of such a name anywhere else is named and not read.  The node's IPFS
repository is the nearest valid ``.ipfs`` directory upwards from the database, never
above the roots (valid: it holds ``config``, ``datastore_spec`` or ``blocks/``, or may
not be read).

Roots are resolved to their real place, so that a place has one spelling.  Below them
symbolic links named ``Rubix``, ``.ipfs`` and like a database are followed, once, and
so is a link to a node's directory; the node keeps the path of the link.

What a walk does not do, and reports as `Skipped` where it matters:

* follow any other symbolic link;
* leave the file system of a root: mount points are known beforehand from the kernel's
  list, so a dead network mount is skipped without being touched;
* look into IPFS repositories (a block store has millions of files);
* end because of a directory that it may not read, or that stalls.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from rubix_token_sync import node_files
from rubix_token_sync.errors import SourceError
from rubix_token_sync.node_files import text_of
from rubix_token_sync.nodes.found import Found, mount_points, printable
from rubix_token_sync.nodes.skipped import Skipped
from rubix_token_sync.nodes.walk import Walk

__all__ = ["Discovery", "Node", "Skipped", "discover"]


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """One database to sync.  Paths are absolute text, see `rubix_token_sync.node_files`."""

    db_path: str
    """``rubix.db`` or ``rubixtest.db``, below the real place of its root."""
    name: str
    """The directory two levels above the database; a label, not unique."""
    repository: str | None
    """The node's ``.ipfs``, or None when there is none."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found, sorted by path."""

    nodes: list[Node]
    skipped: list[Skipped]
    directories: int
    """How many directories were read."""
    notes: list[Skipped] = field(default_factory=list)
    """Remarks on databases that are read all the same."""
    roots: tuple[str, ...] = ()
    """The roots, as given and at their real places: what lies below one is ours."""


_SOLVED_BY_A_ROOT: Final = frozenset({"other_file_system", "symlink"})


def discover(
    roots: Sequence[str | os.PathLike[str]], *, stall_s: float = node_files.STALL_SECONDS
) -> Discovery:
    """Find every node database below ``roots``, in a stable order.

    Directories reached in several ways count once.  A root that is given together with
    one of its parents is part of that parent, so repositories are looked for up to the
    outer one (unless it is on another file system).

    Args:
        roots: directories; relative ones are taken from the current directory.
        stall_s: what gives no answer for this many seconds is left out, and reported.
    """
    found = Found(mount_points())
    absolute = dict.fromkeys(node_files.from_argument(root) for root in roots)
    real: dict[bytes, bytes] = {}
    for given in absolute:
        try:
            place = node_files.bounded(partial(node_files.realpath, given), stall_s=stall_s)
        except SourceError:
            found.skip(given, "stalled", seconds=stall_s)
        else:
            real.setdefault(place, given)
    # Outer roots first: what lies in an inner one has then been seen.
    walks = [
        Walk(place, real[place], found, stall_s)
        for place in sorted(real, key=lambda path: (path.count(b"/") if path != b"/" else 0, path))
    ]
    for walk in walks:
        walk.run()
    for walk in walks:  # real places first: a link to one of them is not a second node
        walk.follow_links()
    for walk in walks:
        walk.name_strays()
    spellings = {*absolute, *real}
    named = {printable(path) for path in spellings}
    skipped = [
        item
        for item in found.skipped
        if item.path not in named or item.reason_code not in _SOLVED_BY_A_ROOT
    ]
    return Discovery(
        sorted(Node(path, name, home.repository) for path, name, home in found.nodes),
        sorted(skipped),
        found.directories,
        sorted(found.notes),
        tuple(sorted(text_of(path) for path in spellings)),
    )
