"""What goes to a worker and what comes back; all of it can cross a process border.

A job is one database.  What comes back is numbers: how far it is, what was
published, and a summary at its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from rubix_token_sync.audit.judging import JudgeFiles
from rubix_token_sync.errors import SyncError
from rubix_token_sync.ipfs.fetch import ContentOptions
from rubix_token_sync.nodes.discovery import Node
from rubix_token_sync.records.schema import RECORDS
from rubix_token_sync.scratch import Scratch
from rubix_token_sync.targets.base import Lease, MarkCounts, TargetOptions
from rubix_token_sync.targets.registry import TargetAddress

__all__ = [
    "ChunkPublished",
    "Difference",
    "Job",
    "JobDone",
    "JobFailed",
    "Report",
    "RowsRead",
    "Send",
    "Summary",
    "Tally",
    "WorkerContext",
]


@dataclass(frozen=True)
class WorkerContext:
    """What every job of a run shares."""

    target: TargetAddress | None
    """None where there is nothing to compare with (a dry run before the first sync)."""
    target_options: TargetOptions
    content: ContentOptions
    lease: Lease | None = None
    """The right to publish; None: jobs only read and compare."""
    scratch: Scratch | None = None
    judge: JudgeFiles | None = None
    """None: records get no verdicts."""


@dataclass(frozen=True)
class Job:
    """One database to read.

    ``max_shrink`` is the share of known records that may vanish at once (None
    accepts any); losses of fewer than ``max_shrink_rows`` are never held back.
    """

    number: int
    source: str
    node: Node
    database_key: bytes
    task: Literal["sync", "compare", "repair"] = "sync"
    """``repair`` compares record by record and publishes what differs."""
    read_known: bool = True
    ask_target: bool = True
    retry_content: bool = True
    max_shrink: float | None = 0.5
    max_shrink_rows: int = 20
    held: Mapping[str, int] | None = None
    """Live rows that the target holds in companion tables, by their names; None: not known."""
    chains: bool = False
    """Read the token chains beside the database, where they are not those of ``chains_held``."""
    chains_held: str | None = None
    """Fingerprint of the chains that the target holds."""
    asked_repository: str | None = None
    """Stays in force when failed content is not asked for again, so that it will be."""


@dataclass
class Tally:
    """Counters that add up from batches to a run."""

    read: int = 0
    changed: int = 0
    """New ones included."""
    new: int = 0
    fetched: int = 0
    known: int = 0
    invalid: int = 0
    healed: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    via: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Sum up in place."""
        self.read += other.read
        self.changed += other.changed
        self.new += other.new
        self.fetched += other.fetched
        self.known += other.known
        self.invalid += other.invalid
        self.healed += other.healed
        self.failures.update(other.failures)
        self.via.update(other.via)


@dataclass(frozen=True)
class Difference:
    """One record that differs between a node and the target.

    ``token_id`` is what people know it by; of a companion ``table``: its `RecordTable.label`.
    ``letter``: ``+`` only the node has it, ``-`` only the target has it, ``*``
    columns differ, ``c`` the content differs.
    """

    letter: Literal["+", "-", "*", "c"]
    db_path: str
    token_id: str | None
    columns: tuple[str, ...] = ()
    table: str = RECORDS.name


@dataclass(frozen=True)
class Summary:
    """A database that was read to its end."""

    records: int
    """Live records of the node."""
    vanished: int
    rejected: int
    seconds: float
    unverified: int = 0
    """Compared content that only the target has and that cannot be proven from it alone."""
    chains_unread: int = 0
    """Directories of token chains that could not be read, or not all of a chain there."""
    content_failures: Mapping[str, int] = field(default_factory=dict)
    """Of a comparison: why content is missing, by code; a sync has it in its tallies."""


@dataclass(frozen=True)
class RowsRead:
    """Rows of a database were read and compared."""

    job: int
    tally: Tally
    expected: int
    """Rows of the whole database, for progress."""
    differences: tuple[Difference, ...] = ()
    ends_job: ClassVar[bool] = False


@dataclass(frozen=True)
class ChunkPublished:
    """One chunk is in the target; ``marked`` comes with a database's last one."""

    job: int
    inserted: int
    updated: int
    vanished: int
    rejected: int
    bulk_loads: int
    batches: int
    retries: int
    marked: MarkCounts | None = None
    table: str = RECORDS.name
    """The `RecordTable` that its rows are of."""
    ends_job: ClassVar[bool] = False


@dataclass(frozen=True)
class JobDone:
    """A job ended well."""

    job: int
    summary: Summary
    ends_job: ClassVar[bool] = True


@dataclass(frozen=True)
class JobFailed:
    """A job's database could not be processed; the run goes on with the others."""

    job: int
    error: SyncError
    ends_job: ClassVar[bool] = True


Report: TypeAlias = RowsRead | ChunkPublished | JobDone | JobFailed
Send: TypeAlias = Callable[[Report], None]
