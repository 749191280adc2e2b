"""Where private copies go: never into a node, below a root, or the current directory.

`tempfile` falls back to the current directory when nothing else can be written, which
may be a node's; so the place is chosen here.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rubix_token_sync import node_files
from rubix_token_sync.errors import SourceError
from rubix_token_sync.node_files import from_argument
from rubix_token_sync.node_places import node_around

__all__ = ["NO_SCRATCH_REMEDY", "Scratch"]

NO_SCRATCH_REMEDY: Final = (
    "Set `scratch` in the settings (or TMPDIR) to a directory on a local disk with room, "
    "outside of the roots and of every node."
)
_VARIABLES: Final = ("TMPDIR", "TEMP", "TMP")
_USUAL: Final = ("/tmp", "/var/tmp", "/usr/tmp")  # noqa: S108 - each is checked before it is used
_MARGIN_BYTES: Final = 32 * 2**20  # left free for others, and for SQLite's own needs


@dataclass(frozen=True)
class Scratch:
    """The places that may be used; picklable, nothing is looked at before `choose`.

    Attributes:
        directory: the only place, where the settings name one.
        roots: what nothing is put below.
        margin_bytes: room that is left free for others.
    """

    directory: str | None = None
    roots: tuple[str, ...] = ()
    margin_bytes: int = _MARGIN_BYTES

    def choose(self, needed: int = 0) -> str:
        """A directory that can be written and has room for ``needed`` bytes.

        Raises:
            SourceError: ``no_scratch_space``, with the reason for each place.
        """
        reasons: list[str] = []
        room: dict[str, int] = {}
        for place in dict.fromkeys(self._places()):
            reason = self._refusal(place) or _unwritable(place)
            if reason is None:
                status = os.statvfs(place)
                room[place] = status.f_bavail * status.f_frsize
                if room[place] >= needed + self.margin_bytes:
                    return place
                reason = f"{room[place]:,} bytes are free, {needed:,} are needed"
            reasons.append(f"{place} ({reason})")
        why = "; ".join(reasons) or "neither scratch nor TMPDIR names one, and there is no default"
        raise SourceError(
            f"No directory can take a private copy: {why}.",
            code="no_scratch_space",
            remedy=NO_SCRATCH_REMEDY,
            context={"needed": needed, "free": max(room.values(), default=0)},
        )

    def _places(self) -> Sequence[str]:
        if self.directory is not None:
            return [os.path.abspath(self.directory)]
        named = [os.environ.get(variable) for variable in _VARIABLES]
        # A relative TMPDIR would be the current directory, or below it.
        return [*(path for path in named if path and os.path.isabs(path)), *_USUAL]

    def _refusal(self, place: str) -> str | None:
        """Why a place is not ours to write to, whatever its rights; None: it is."""
        node = node_around(place)
        if node is not None:
            return f"it belongs to the node {node}"
        real = os.path.realpath(place)
        if self.directory is None and real == os.path.realpath(os.curdir):
            return "it is the current directory"
        for root in self.roots:
            above = os.fsdecode(node_files.realpath(from_argument(root)))
            if real == above or real.startswith(os.path.join(above, "")):
                return f"it is below the root {root}"
        return None


def _unwritable(place: str) -> str | None:
    """Why nothing can be made there; found out by trying, for rights do not say it all."""
    probe = os.path.join(place, f"rubix-token-sync-{secrets.token_hex(8)}")
    try:
        os.mkdir(probe, 0o700)
        os.rmdir(probe)
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()
    return None
