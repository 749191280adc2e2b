"""What a run is given, and what it reports when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from rubix_token_sync.audit.judging import JudgeOptions
from rubix_token_sync.errors import (
    SyncError,
)
from rubix_token_sync.ipfs.fetch import ContentOptions
from rubix_token_sync.nodes.discovery import Discovery
from rubix_token_sync.runs.progress import Counters
from rubix_token_sync.runs.session import Status
from rubix_token_sync.targets.base import (
    DatabaseState,
    ErrorEntry,
    TargetOptions,
)
from rubix_token_sync.targets.registry import TargetAddress

if TYPE_CHECKING:
    from rubix_token_sync.runs.worker_pool import Executor

__all__ = ["ContentLeft", "DatabaseOutcome", "RunOptions", "RunResult"]


@dataclass(frozen=True)
class RunOptions:
    """What a run needs to know; see the settings of the same names."""

    roots: tuple[str, ...]
    source: str
    target: TargetAddress
    store: TargetOptions = field(default_factory=TargetOptions)
    content: ContentOptions = field(default_factory=ContentOptions)
    command: str = "sync"
    nodes: frozenset[str] = frozenset()
    """Only nodes of these names; empty: all."""
    force: bool = False
    only_failed: bool = False
    dry_run: bool = False
    adopt_source: bool = False
    """Take the source over where it belongs to another machine."""
    max_shrink: float | None = 0.5
    max_shrink_rows: int = 20
    recheck: timedelta = timedelta(days=7)
    heartbeat_seconds: float = 10.0
    lease_seconds: float = 60.0
    chains: bool = False
    """Read the token chains, too."""
    scratch: str | None = None
    judge: JudgeOptions | None = None
    """None: records get no verdicts."""
    processes: int | None = None
    """Worker processes; 0: none; None: one a CPU, two where the target is more than 8 ms away, at
    most the content workers."""
    executor: Executor | None = None
    """Who reads the databases; None: worker processes of this run."""


@dataclass
class DatabaseOutcome:
    """What became of one database, for the report."""

    db_path: str
    node_name: str
    status: str
    """``processed``, ``current`` (unchanged), ``failed``, ``missing``, ``pending``."""
    reason: str = ""
    records: int = 0
    read: int = 0
    inserted: int = 0
    updated: int = 0
    vanished: int = 0
    rejected: int = 0
    ipfs_success: int = 0
    ipfs_failures: int = 0
    validation_errors: int = 0
    chains_unread: int = 0
    """Directories of token chains that could not be read, or not all of a chain there."""
    seconds: float = 0.0


@dataclass(frozen=True)
class ContentLeft:
    """What a comparison of one database could not compare: content that nobody has."""

    node_name: str
    db_path: str
    records: int
    failures: Mapping[str, int]
    """Records by the code of what is in the way."""
    has_repository: bool


@dataclass
class RunResult:
    """How a run ended; `rubix_token_sync.reports.report` turns it into the report."""

    options: RunOptions
    session_id: str | None
    started_at: datetime
    seconds: float
    status: Status
    counters: Counters
    discovery: Discovery
    databases: list[DatabaseOutcome]
    errors: list[ErrorEntry]
    dead_sessions: int = 0
    place: str = ""
    signal_number: int | None = None
    throttled_seconds: float = 0.0
    failed: list[tuple[str, SyncError]] = field(default_factory=list)
    """Paths of databases that could not be processed, and why."""
    missing: list[DatabaseState] = field(default_factory=list)
    """Databases that the target holds records of and that are gone from the disk."""
    unread: int = 0
    """Directories that could not be read and may hide nodes."""
    content_left: list[ContentLeft] = field(default_factory=list)
    """Of a comparison, by database."""
    error: SyncError | None = None
    """What ended the run, where its status is FAILED."""

    @property
    def exit_code(self) -> int:
        """0 all done, 1 something left undone, 128 + signal, or the ending error's own."""
        if self.signal_number is not None:
            return 128 + self.signal_number
        if self.error is not None:
            return self.error.exit_code
        undone = any(
            d.status in ("failed", "missing", "pending") or d.chains_unread for d in self.databases
        )
        return 1 if undone or self.unread or self.counters.rejected else 0
