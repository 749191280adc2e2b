"""Changes that a node makes to its own database, and what its files look like."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

__all__ = ["execute", "look"]


def execute(db_path: Path, *statements: str) -> None:
    """Run statements on a node's database as the node would."""
    with closing(sqlite3.connect(db_path)) as db, db:
        for statement in statements:
            db.execute(statement)


def look(root: Path) -> dict[str, tuple[object, ...]]:
    """Name, kind, mode, owner, inode, size, bytes and times (ns) of everything below ``root``.

    The change time is in it: it tells of a write, a touch or a chmod even where
    everything else was put back.  Not of a ``-wal`` or ``-journal`` for root: SQLite sets its
    owner then, to what it is, whenever it opens one.
    """
    found: dict[str, tuple[object, ...]] = {}
    for directory, names, files in os.walk(root):
        for name in [".", *names, *files]:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            held: object = None
            if os.path.islink(path):
                held = os.readlink(path)
            elif os.path.isfile(path):
                held = Path(path).read_bytes()
            owned = os.geteuid() == 0 and name.endswith(("-wal", "-journal"))
            found[os.path.normpath(path)] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_ino, status.st_size,
                status.st_mtime_ns, None if owned else status.st_ctime_ns, held,
            )  # fmt: skip
    return found
