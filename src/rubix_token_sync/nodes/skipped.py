"""What discovery finds and does not read: every reason with its sentence and its cure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rubix_token_sync.node_files import STALLED_REMEDY
from rubix_token_sync.records.schema import COLUMN_SIZES

__all__ = ["HIDING", "LINK_SENTENCES", "REMEDIES", "REPOSITORY_SENTENCES", "SENTENCES", "Skipped"]


@dataclass(frozen=True, slots=True, order=True)
class Skipped:
    """Something that was found and not read, with the reason.

    ``path`` is printable UTF-8; bytes of a name that are not are written ``\\xNN``.
    """

    path: str
    reason_code: str
    sentence: str
    hides_nodes: bool = False
    """Whether nodes may be there that were not looked at: such a run is not complete."""
    remedy: str = ""
    """What an operator can do about it."""

    @property
    def said(self) -> str:
        """What is wrong where, without the cure."""
        return f"{self.path}: {self.sentence}"


SENTENCES: Final = {
    "access_denied": "This user may not read it, so any nodes inside were not looked at.",
    "bare_repository": "A directory named .ipfs without config, datastore_spec or blocks is not "
    "an IPFS repository.",
    "beside_rubix": "Beside a directory named Rubix this file is not a node database: a node "
    "started with -enableAuth opens it and keeps no tokens in it.",
    "broken_link": "The symbolic link leads nowhere or in a circle.",
    "io_error": "It cannot be read ({error}).",
    "lost_and_found": "The file system's own directory for recovered files.",
    "no_database": "A directory named Rubix without rubix.db, rubixtest.db or token chains: "
    "it shows no sign of a node's tokens.",
    "no_such_directory": "The directory does not exist.",
    "not_a_directory": "Not a directory.",
    "not_a_file": "Something other than a regular file stands in the database's place.",
    "not_in_rubix": "Only rubix.db and rubixtest.db in a directory named Rubix are node databases.",
    "other_dbms": "Token chains without their rubix.db or rubixtest.db: the node keeps its tokens "
    "in another database system (PostgreSQL, SQL Server or MySQL), which is not read, or its "
    "database was removed.",
    "other_file_system": "Another file system is mounted here.",
    "path_too_long": f"The path is longer than {COLUMN_SIZES['db_path']} characters, the most "
    "that the target stores.",
    "perhaps_stale": "The node's token chains were written {days} days after this database: if the "
    "node keeps its tokens in another database system now, what is read here is out of date.",
    "same_place": "The same file as {other}; it is read there.",
    "stalled": "The file system did not answer for {seconds:g} s; nodes below it were not looked "
    "at.",
    "symlink": "A symbolic link to a directory is followed only where it leads to a node.",
}
"""Every reason code with its sentence."""

REPOSITORY_SENTENCES: Final = {
    "access_denied": "This user may not read the node's repository, so the content of its "
    "tokens was not read.",
    "bare_repository": "Something other than a directory is named .ipfs: it is not an IPFS "
    "repository.",
    "stalled": "The file system did not answer for {seconds:g} s; the content of the node's "
    "tokens was not read.",
}
"""What the same codes say of a node's ``.ipfs``."""

LINK_SENTENCES: Final = {
    "circle": "The symbolic link leads in a circle.",
    "inside": "A symbolic link to a directory is followed only where it leads to a node; the "
    "target of this one is below a root already.",
}
"""What ``symlink`` says of links to directories whose target need not be given as a root."""

_AS_OWNER: Final = "Run as the user that owns it, or as root"

REMEDIES: Final = {
    "access_denied": f"{_AS_OWNER}, or give roots that do not contain it.",
    "bare_repository": "Restore or mount the node's repository if it had one.",
    "broken_link": "Mount or restore what it stands for, make it lead there, or remove it.",
    "io_error": "Check the disk and the mount.",
    "no_such_directory": "Correct the root.",
    "not_a_directory": "Correct the root.",
    "not_a_file": "Put the node's database in its place, or remove what stands there.",
    "not_in_rubix": "Move or link it there to include it.",
    "other_dbms": "Restore the database if it was removed; a node on another database system "
    "cannot be synced: give roots that do not contain it.",
    "other_file_system": "Give it as a root of its own to include it.",
    "path_too_long": "Move the node to a shorter path.",
    "perhaps_stale": "Ask who runs the node.",
    "stalled": STALLED_REMEDY,
    "symlink": "Give the link's target as a root to include what is there.",
}
"""What to do about it; the other reasons need nothing."""

HIDING: Final = frozenset(
    {
        "access_denied",
        "broken_link",
        "io_error",
        "no_such_directory",
        "not_a_directory",
        "not_a_file",
        "other_dbms",
        "path_too_long",
        "stalled",
    }
)
"""Reasons that may hide nodes."""
