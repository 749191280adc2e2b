"""What the rest of the program knows of a target.

`Target` is the door; `rubix_token_sync.targets.sql.target.SqlTarget` is what stands behind it,
the same for every database, and a folder a database adds how it is spoken to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from rubix_token_sync.errors import Category
from rubix_token_sync.process_identity import Machine
from rubix_token_sync.records.schema import RECORDS, RecordTable
from rubix_token_sync.targets.migration_step import MigrationStep

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "LEASE_SECONDS",
    "SCHEMA_VERSION",
    "ChainsMark",
    "Chunk",
    "DatabaseMark",
    "DatabaseState",
    "ErrorEntry",
    "KnownContent",
    "Lease",
    "MarkCounts",
    "Published",
    "Rejected",
    "SessionTotals",
    "StrayRecord",
    "Target",
    "TargetOptions",
]

SCHEMA_VERSION: Final = "0004"
"""The newest revision in ``migrations/versions``; a test holds the two together."""


LEASE_SECONDS: Final = 60.0
"""How long a lease lasts without a heartbeat where nobody says otherwise."""


@dataclass(frozen=True)
class TargetOptions:
    """How a target is loaded; the guide's settings of the same names."""

    batch_size: int = 2_000
    bulk_insert_size: int = 10_000
    pool_size: int = 10
    attempts: int = 3
    retry_seconds: float = 300.0
    """All attempts of one call together take no longer than this."""
    call_seconds: float = 120.0
    """Our own bound around every call to a server."""
    read_only: bool = False
    """For `verify`, `status` and their like: never writes, never creates."""
    wait_factor: float = 1.0
    """Scales the waits between attempts; tests that inject faults make it small."""


@dataclass(frozen=True)
class Lease:
    """The right to write for one source, held by one session; any process may write under it.

    It ends ``seconds`` after its last heartbeat, by the server's clock.
    """

    source: str
    session_id: str
    seconds: float = LEASE_SECONDS


@dataclass(frozen=True)
class ChainsMark:
    """What ProcessedDatabases says of the token chains beside a database."""

    fingerprint: str | None
    """None: the next sync that reads chains reads them, whatever it finds."""
    error: str | None = None
    """``code: sentence``, where some could not be read."""


@dataclass(frozen=True)
class DatabaseMark:
    """What ProcessedDatabases says of a database once all of it is stored.

    ``record_count`` is the number of live records the target must hold; it is
    counted on the server before the mark is written.  The counts of content
    and validation are the server's own (`MarkCounts`).
    """

    database_key: bytes
    source_ip: str
    node_name: str
    db_path: str
    ipfs_path: str | None
    fingerprint: str | None
    """None: the next sync reads the database, whatever it finds."""
    repository_fingerprint: str | None
    last_modified: datetime
    record_count: int
    rejected_count: int
    processing_duration_seconds: float
    kinds: Mapping[str, int] = field(default_factory=dict)
    """How many records the node has of each kind of token."""
    content_checked: bool = True
    """Failed content was asked for again; False keeps the earlier time."""
    companions: Mapping[str, int | None] = field(default_factory=dict)
    """Live rows that the target must hold in its companion tables, by their names; counted as
    the records are.  None: as many as it does hold.  A table that is not named is left as it
    is."""
    chains: ChainsMark | None = None
    """None: the chains were not read, and what is there stays."""


@dataclass(frozen=True)
class DatabaseState:
    """One row of ProcessedDatabases."""

    database_key: bytes
    source_ip: str
    node_name: str | None
    db_path: str
    ipfs_path: str | None
    fingerprint: str | None
    repository_fingerprint: str | None
    content_checked_at: datetime | None
    last_modified: datetime
    last_processed: datetime
    record_count: int
    ipfs_success_count: int
    ipfs_fail_count: int
    validation_error_count: int
    rejected_count: int
    processing_duration_seconds: float
    chains_fingerprint: str | None = None
    chains_error: str | None = None
    chains_read_at: datetime | None = None
    companions: Mapping[str, int] = field(default_factory=dict)
    """Live rows in the companion tables, by their names."""

    @property
    def counts(self) -> dict[str, int]:
        """Live rows in every table, by its name."""
        return {RECORDS.name: self.record_count, **self.companions}


@dataclass(frozen=True)
class ErrorEntry:
    """One row of SyncErrors; ``context`` holds plain JSON values."""

    category: Category
    code: str
    message: str
    node_name: str | None = None
    db_path: str | None = None
    token_id: str | None = None
    occurrences: int = 1
    context: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rejected:
    """A record that the target refuses, and why."""

    record_key: bytes
    token_id: str | None
    """What people know it by; of a companion table: its `RecordTable.label`."""
    reason: str


@dataclass(frozen=True)
class Chunk:
    """What goes into the target in one transaction.

    ``rows`` has RECORD_SCHEMA, or the schema of the companion ``table``, and holds each
    record_key once.  ``vanished`` is record keys (24 bytes each, concatenated) of that
    table that the source no longer has.
    ``mark`` comes with a database's last chunk.  ``bulk`` asks for the bulk
    path (the database has BULK_INSERT_SIZE changed records or more).  ``new``: the
    target held none of the rows when the run looked, so they may go straight in.
    ``replace``: what the target holds under the rows' keys was changed behind the
    program's back; none of it is to stay.
    ``migration`` is what a migration notes in the same transaction.
    """

    rows: pa.RecordBatch
    vanished: bytes = b""
    mark: DatabaseMark | None = None
    errors: tuple[ErrorEntry, ...] = ()
    bulk: bool = False
    new: bool = False
    replace: bool = False
    migration: MigrationStep | None = None
    table: str = RECORDS.name
    """The `RecordTable` that ``rows`` and ``vanished`` are of."""


@dataclass(frozen=True)
class MarkCounts:
    """Live records of a database when it was marked, counted by the server."""

    records: int
    ipfs_success: int
    validation_errors: int

    @property
    def ipfs_failures(self) -> int:
        """Records without content."""
        return self.records - self.ipfs_success


@dataclass
class Published:
    """What a chunk did, counted by the server."""

    inserted: int = 0
    updated: int = 0
    vanished: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    bulk_loads: int = 0
    batches: int = 0
    retries: int = 0
    marked: MarkCounts | None = None

    def add(self, other: Published) -> None:
        """Sum up in place."""
        self.inserted += other.inserted
        self.updated += other.updated
        self.vanished += other.vanished
        self.rejected += other.rejected
        self.bulk_loads += other.bulk_loads
        self.batches += other.batches
        self.retries += other.retries
        self.marked = other.marked or self.marked


@dataclass(frozen=True)
class KnownContent:
    """What a record holds of its content."""

    ipfs_data: str | None
    ipfs_fetched: bool
    ipfs_error: str | None
    attributes: str | None = None
    """Of kinds whose contents name trees (`TokenKind.names_trees`); None of all others."""


@dataclass(frozen=True)
class StrayRecord:
    """A live record of a source that belongs to none of its databases."""

    record_key: bytes
    db_path: str
    token_id: str | None
    table: str = RECORDS.name


@dataclass
class SessionTotals:
    """The counters of a SyncSessions row."""

    total_databases_found: int = 0
    total_databases_processed: int = 0
    total_records_processed: int = 0
    total_ipfs_success: int = 0
    total_ipfs_failures: int = 0
    total_sql_inserts: int = 0
    total_sql_errors: int = 0
    total_validation_errors: int = 0
    progress_percent: float = 0.0


class Target(Protocol):
    """A target.  Every method raises `TargetError` (see errors.py), nothing else on purpose.

    Methods may be called from several threads at once.
    """

    kind: str
    """``sqlite``, ``postgresql`` or ``mssql``."""
    place: str
    """Where it is, for people: no secrets."""
    one_writer: bool
    """Whether it lets one writer in at a time, so that workers had better take turns."""
    bulk_differs: bool
    """Whether rows of a bulk load (`Chunk.bulk`) come another way than others."""

    def answer_seconds(self) -> float:
        """How long it takes to answer, the shortest of three times: about a round trip."""

    def close(self) -> None:
        """Give back every connection."""

    # schema
    def schema_version(self) -> str | None:
        """The revision found; None where there is no schema."""

    def ensure_schema(self) -> bool:
        """Create or upgrade under a lock where needed; True if anything was done.

        Raises SchemaError where rights are missing or the schema is newer.
        """

    def schema_script(self) -> str:
        """The DDL for an empty database, for a DBA to read and run."""

    def describe_connection(self) -> str:
        """Connect and say, for people: version, encryption, user.  No secrets."""

    def server_time(self) -> datetime:
        """UTC without a zone, by the server's clock."""

    # runs
    def leases(self) -> list[Lease]:
        """Leases that are held now: they have not expired, by the server's clock."""

    def start_session(self, session_id: str, source: str, host: str, pid: int, command: str) -> int:
        """Write the RUNNING row; only under the lease.

        The source's other RUNNING sessions are dead: they become INTERRUPTED.  Returns how
        many there were.
        """

    def heartbeat(self, lease: Lease, totals: SessionTotals) -> None:
        """Renew lease and session.  Raises LeaseLost."""

    def finish_session(
        self, lease: Lease, status: str, totals: SessionTotals, error_summary: str | None
    ) -> None:
        """Write status (COMPLETED, FAILED, INTERRUPTED), end time and totals; free the lease."""

    def acquire_lease(self, lease: Lease, holder: str, machine: Machine | None = None) -> None:
        """Take the source's lease, or take it over from a dead holder.

        ``holder`` names a process and ``machine`` where it runs (see process_identity); without
        a machine it is not asked whose the source is.  Raises LeaseHeld, SourceTaken.
        """

    def check_source(self, source: str, machine: Machine) -> bool:
        """Whether the source is this machine's already; False: nobody's.  Raises SourceTaken."""

    def adopt_source(self, source: str, machine: Machine) -> None:
        """Let the source belong to this machine from now on, whose ever it was."""

    def release_lease(self, lease: Lease) -> None:
        """Give the lease back if we still hold it."""

    def record_errors(self, lease: Lease, entries: Sequence[ErrorEntry]) -> None:
        """Append to SyncErrors."""

    # what is known
    def database_states(self, source: str | None) -> list[DatabaseState]:
        """ProcessedDatabases, of one source or all."""

    def holds_records(self) -> bool:
        """Whether there is any record at all."""

    def holds_content(self) -> bool:
        """Whether `content_of_tokens` is worth asking: any record has verified content.

        Not before a first load has ended, however often it was begun.
        """

    def open_errors(self, source: str) -> list[ErrorEntry]:
        """What the source's runs could not read and no completed sync has settled since.

        Directories (``directory_unread``) and whole databases.
        """

    def known_rows(self, database_key: bytes, table: RecordTable = RECORDS) -> tuple[bytes, bytes]:
        """Live rows of a database: all keys (24 bytes each) and row digests (16 each)."""

    def known_content(self, record_keys: Sequence[bytes]) -> dict[bytes, KnownContent]:
        """What these records (vanished ones too) hold of their content."""

    def content_of_tokens(self, token_ids: Sequence[str]) -> dict[str, KnownContent]:
        """What any record with verified content holds for these ids."""

    def failed_tokens(self, database_key: bytes) -> set[bytes]:
        """Keys of live records whose content failed."""

    def records_by_key(
        self, record_keys: Sequence[bytes], table: RecordTable = RECORDS
    ) -> dict[bytes, dict[str, Any]]:
        """Whole rows (the names of the table's schema) for some keys, vanished ones too."""

    def count_live(self, database_keys: Collection[bytes]) -> dict[bytes, dict[str, int]]:
        """How many live rows of each of these databases the target holds, by table."""

    def stray_records(self, source: str, database_keys: Collection[bytes]) -> list[StrayRecord]:
        """A source's live rows, of every table, outside of these databases' keys."""

    def stored_records(
        self, database_key: bytes, table: RecordTable = RECORDS
    ) -> Iterator[pa.RecordBatch]:
        """Live rows of a database, as the table's schema, in key order, in bounded batches."""

    # writing
    def prepare_load(self) -> None:
        """Once a run before the first chunk: remove dead staging, heal or defer indexes."""

    def publish(self, lease: Lease, chunk: Chunk) -> Published:
        """Store a chunk in one transaction; idempotent; retries and isolates by itself.

        Any process may call it, several at once for one lease: everything it needs comes with
        the arguments.

        Raises LeaseLost, ReportMismatch (the mark's count is not what the
        server counts), TargetError.
        """

    def note_seen(self, lease: Lease, database_keys: Sequence[bytes]) -> None:
        """These databases were found unchanged: what the target holds of them is current."""

    def retire_database(self, lease: Lease, database_key: bytes) -> int:
        """Mark all of a database's rows as deleted at the source and forget its state.

        Returns how many records there were.
        """

    def remove_records(self, lease: Lease, database_key: bytes) -> None:
        """Delete a database's rows and state for good."""

    def withdraw(self, lease: Lease, database_key: bytes) -> None:
        """The same, and give the lease back; only `check` does that, to its own."""

    def finish_load(self) -> None:
        """Once a run after the last chunk: build deferred indexes, statistics."""
