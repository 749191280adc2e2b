"""Connections to a SQLite file, and whose turn it is to write.

Durability: WAL with ``synchronous=NORMAL``.  A power cut can lose the last
transactions but never tears the file, and because ProcessedDatabases is
written in the same transactions as the records, the next run repeats exactly
what was lost.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.targets.base import TargetOptions

__all__ = ["driver", "make_engine"]

_BUSY_SECONDS: Final = 60
_PAGE_BYTES: Final = 4_096  # a changed record rewrites whole pages: small ones are less to write
_CACHE_KIB: Final = 32 * 1024
_WAL_PAGES: Final = 16_384  # checkpoint after 64 MiB: fewer writes of the same page


def make_engine(path: Path, options: TargetOptions) -> sa.Engine:
    """An engine on the file; made on first use (mode 600), unless only read."""
    opened = threading.Event()

    def connect() -> sqlite3.Connection:
        # Made once, and only where nothing is: a target that vanishes meanwhile is an error.
        conn = _open(path, options.read_only, may_make=not opened.is_set())
        opened.set()
        return conn

    engine = sa.create_engine(
        "sqlite://",
        creator=connect,
        poolclass=sa.pool.QueuePool,
        # One is kept, and its page cache: it does nearly all. One that was needed beside
        # it for a heartbeat would keep a second cache for the rest of the run.
        pool_size=1,
        max_overflow=min(options.pool_size, 5) - 1,
        pool_timeout=options.call_seconds,
    )
    sa.event.listen(engine, "begin", _begin)
    _notice_another_file(engine, path)
    return engine


def _notice_another_file(engine: sa.Engine, path: Path) -> None:
    """A file that is gone, or another one in its place, is noticed before each transaction.

    An open connection goes on with a file that nobody else can see any more: it would be read
    as if it were the target, or written to in vain.
    """

    def note(_connection: Any, record: Any) -> None:
        record.info["file"] = _file_at(path)

    def check(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info["file"] != _file_at(path):
            raise sa.exc.DisconnectionError("another file is in its place, or none")

    sa.event.listen(engine, "connect", note)
    sa.event.listen(engine, "checkout", check)


def _file_at(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _open(path: Path, read_only: bool, *, may_make: bool) -> sqlite3.Connection:
    failpoints.point("store.open")
    if may_make and not read_only and not path.exists():
        # The records are nobody else's business; SQLite alone would use the umask.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    uri = f"{path.as_uri()}?mode={_mode(path, read_only)}"
    conn = sqlite3.connect(
        uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        if read_only:
            conn.execute("PRAGMA query_only=ON")
        else:
            conn.execute(f"PRAGMA page_size={_PAGE_BYTES}")
            conn.execute("PRAGMA journal_mode=WAL")
            conn.execute("PRAGMA synchronous=NORMAL")
            conn.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
            conn.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    except sqlite3.Error:
        conn.close()
        raise
    return conn


def _mode(path: Path, read_only: bool) -> str:
    """SQLite makes a -wal and a -shm for any reader; one that may write removes them, too."""
    if not read_only:
        return "rw"
    writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return "rw" if writable and not Path(f"{path}-wal").exists() else "ro"


def _begin(conn: sa.Connection) -> None:
    reading = conn.get_execution_options().get("reading", False)
    conn.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def driver(conn: sa.Connection) -> sqlite3.Connection:
    """The driver's connection below SQLAlchemy's."""
    raw: object = conn.connection.dbapi_connection
    if not isinstance(raw, sqlite3.Connection):
        raise TypeError(f"not a SQLite connection: {type(raw).__name__}")
    return raw
