"""Small databases, processes that write them, and looks at whole trees."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from rubix_token_sync.nodes.snapshot import Snapshot, open_snapshot
from rubix_token_sync.records.schema import SourceRow

WRITER = Path(__file__).with_name("writer.py")

Tree = dict[str, tuple[Any, ...]]

GORM = (
    "CREATE TABLE `TokensTable` (`token_id` text,`parent_token_id` text,`token_value` real,"
    "`did` text,`token_status` integer,`token_state_hash` text,`transaction_id` text,"
    "`added` numeric,PRIMARY KEY (`token_id`))"
)


def tree(directory: Path) -> Tree:
    """Every name below a directory with kind, mode, size, mtime and bytes."""
    found: Tree = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        name = str(path.relative_to(directory))
        found[name] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino, content)
    return found


def everything(snapshot: Snapshot, batch_size: int = 1000) -> list[SourceRow]:
    """All rows of a snapshot."""
    return [row for batch in snapshot.rows(batch_size) for row in batch.rows]


def read(path: Path, scratch: Path | None = None, **options: Any) -> list[SourceRow]:
    """All rows of a database."""
    with open_snapshot(str(path), str(scratch) if scratch else None, **options) as snapshot:
        return everything(snapshot)


def fill(path: Path, rows: int = 200, *, mode: str = "delete", schema: str = GORM) -> Path:
    """Make a database with plain rows; closed cleanly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with_rows = sqlite3.connect(path, isolation_level=None)
    with_rows.execute(f"PRAGMA journal_mode={mode}")
    with_rows.execute("PRAGMA synchronous=OFF")
    with_rows.execute(schema)
    with_rows.execute("BEGIN")
    with_rows.executemany(
        "INSERT INTO TokensTable (token_id, did, token_value) VALUES (?, ?, 1.0)",
        ((f"token{number:06}", f"did{number % 7}") for number in range(rows)),
    )
    with_rows.execute("COMMIT")
    with_rows.close()
    return path


class Writer:
    """A process that writes a database as `writer.py` says."""

    def __init__(self, path: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(WRITER), str(path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )

    def line(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline().strip()
        assert said, f"the writer ended with {self.process.wait(10)}"
        return said

    def finish(self) -> str:
        """Ask it to end; what it says then."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        said = self.line()
        assert self.process.wait(30) == 0
        return said

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(30)

    def close(self) -> None:
        """Leave nothing behind."""
        self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
