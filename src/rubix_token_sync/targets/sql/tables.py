"""The tables, stated once: Alembic makes them and every statement uses them.

The guide's tables keep its column names and sizes; what correctness adds is
marked.  How a database spells them is its `Spelling`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync.records.companions import CHAINS, COMPANIONS
from rubix_token_sync.records.schema import (
    DATABASE_KEY_BYTES,
    RECORD_KEY_BYTES,
    RECORDS,
    Column,
    RecordTable,
)
from rubix_token_sync.targets.sql.audit_tables import AuditTables, add_audit_tables
from rubix_token_sync.targets.sql.column_types import ID as _ID
from rubix_token_sync.targets.sql.column_types import NOT_A_TIME, type_of
from rubix_token_sync.targets.sql.column_types import TEXT as _TEXT
from rubix_token_sync.targets.sql.column_types import TIME as _TIME
from rubix_token_sync.targets.sql.column_types import UUID as _UUID
from rubix_token_sync.targets.sql.column_types import fixed_bytes as _fixed_bytes
from rubix_token_sync.targets.sql.history_tables import add_history, add_runs

__all__ = ["NOT_A_TIME", "Spelling", "StoredTable", "Tables", "build_tables"]

_OF_THE_GUIDE: Final = frozenset({"now", "false"})
"""Defaults of columns that the guide's tables allow to be NULL."""


@dataclass(frozen=True)
class Spelling:
    """What differs between databases in the tables."""

    now: str
    """The server's UTC time, as a column's default."""
    false: str = "0"
    new_uuid: str | None = None
    """A new UUID, as a column's default; None where the server makes none."""
    lower_case: bool = False
    """Names of tables, as the older system had them."""
    include: bool = True
    """An index can carry columns beside its key."""
    filtered: bool = True
    """An index can be of the records with validation errors alone."""
    not_indexed: frozenset[str] = frozenset()
    """Columns whose values are longer than a key of an index may be."""
    staging: bool = False
    """Rows wait in a table of their own before they are published."""
    after: tuple[str, ...] = ()
    """Statements that follow when the tables are made."""


@dataclass(frozen=True)
class StoredTable:
    """One table of records, of whichever sort, in a target."""

    columns: RecordTable
    table: sa.Table
    staging: sa.Table | None
    """Where its rows wait for their publication, where the database needs such a table."""
    history: sa.Table | None
    """Old versions of its rows, where they are kept."""

    def all(self) -> list[sa.Table]:
        """Those of the three that there are."""
        tables = (self.table, self.staging, self.history)
        return [table for table in tables if table is not None]


@dataclass(frozen=True)
class Tables:
    """The tables of one target, ready for SQLAlchemy statements."""

    spelling: Spelling
    metadata: sa.MetaData
    stored: Mapping[str, StoredTable]
    """Those of records, by the name that their `RecordTable` has: TokenRecords comes first."""
    records: sa.Table
    databases: sa.Table
    sessions: sa.Table
    errors: sa.Table
    runs: sa.Table
    leases: sa.Table
    sources: sa.Table
    duplicates: sa.Table
    migrations: sa.Table
    migrated: sa.Table
    set_aside: sa.Table
    audit: AuditTables

    def all(self) -> list[sa.Table]:
        """Every table, in order of creation."""
        return list(self.metadata.tables.values())

    @property
    def columns(self) -> RecordTable:
        """The columns of TokenRecords."""
        return self.stored[RECORDS.name].columns

    @property
    def companions(self) -> list[StoredTable]:
        """The tables of records beside TokenRecords."""
        return [stored for name, stored in self.stored.items() if name != RECORDS.name]

    def late_indexes(self) -> list[sa.Index]:
        """The guide's secondary indexes of the records, which a first load builds at its end."""
        late = {_index(RECORDS, name) for name in (*self.columns.indexed, "known")}
        found = [index for index in self.records.indexes if index.name in late]
        return sorted(found, key=lambda index: str(index.name))


def _index(table: RecordTable, column: str) -> str:
    return f"ix_{table.name.lower()}_{column}"


def _sql(column: Column, default: str | None = None) -> sa.Column[Any]:
    return sa.Column(
        column.name,
        type_of(column),
        nullable=not column.required or column.default in _OF_THE_GUIDE,
        server_default=None if default is None else sa.text(default),
    )


@lru_cache(maxsize=4)
def build_tables(
    spelling: Spelling,
    columns: RecordTable = RECORDS,
    companions: tuple[RecordTable, ...] = COMPANIONS,
) -> Tables:
    """The tables as a database spells them, with these columns of the records.

    Made once a process (40 ms of a processor): nothing may change them.
    """
    metadata = sa.MetaData()
    now = sa.text(spelling.now)
    defaults = _defaults(spelling)

    def name(text: str) -> str:
        return text.lower() if spelling.lower_case else text

    def counter(column: str) -> sa.Column[int]:
        return sa.Column(column, sa.Integer(), server_default=sa.text("0"))

    stored = {
        table.name: StoredTable(
            table,
            _add_records(metadata, spelling, table),
            _add_staging(metadata, spelling, table) if spelling.staging else None,
            add_history(metadata, table, name) if table.versioned else None,
        )
        for table in (columns, *companions)
    }
    records = stored[RECORDS.name].table

    databases = sa.Table(
        name("ProcessedDatabases"),
        metadata,
        # The guide's key is db_path alone; two machines may have the same path.
        sa.Column(
            "database_key", _fixed_bytes(DATABASE_KEY_BYTES), primary_key=True, nullable=False
        ),
        sa.Column("db_path", sa.Unicode(500), nullable=False),
        sa.Column("last_modified", _TIME, nullable=False),
        sa.Column("last_processed", _TIME, nullable=False),
        counter("record_count"),
        counter("ipfs_success_count"),
        counter("ipfs_fail_count"),
        counter("validation_error_count"),
        sa.Column("processing_duration_seconds", sa.Float(53), server_default=sa.text("0")),
        # Added.
        sa.Column("source_ip", sa.Unicode(45), nullable=False),
        sa.Column("node_name", sa.Unicode(255)),
        sa.Column("ipfs_path", sa.Unicode(500)),
        sa.Column("fingerprint", sa.Unicode(200)),
        sa.Column("repository_fingerprint", sa.Unicode(200)),
        sa.Column("content_checked_at", _TIME),
        # The end of the last sync that read it or found it unchanged.
        sa.Column("last_seen_at", _TIME),
        counter("rejected_count"),
        # Records by kind of token, as JSON.
        sa.Column("kind_counts", sa.Unicode(200)),
        *(counter(table.counted_as) for table in companions),
        sa.Column("chains_fingerprint", sa.Unicode(200)),
        sa.Column("chains_error", sa.Unicode(1000)),
        sa.Column("chains_read_at", _TIME),
    )
    sa.Index("ix_processeddatabases_source_ip", databases.c.source_ip)

    session_id = sa.Column("session_id", _UUID, primary_key=True)
    if spelling.new_uuid is not None:
        session_id.server_default = sa.DefaultClause(sa.text(spelling.new_uuid))
    sessions = sa.Table(
        name("SyncSessions"),
        metadata,
        session_id,
        sa.Column("start_time", _TIME, server_default=now),
        sa.Column("end_time", _TIME),
        sa.Column("source_ip", sa.Unicode(45), nullable=False),
        counter("total_databases_found"),
        counter("total_databases_processed"),
        counter("total_records_processed"),
        counter("total_ipfs_success"),
        counter("total_ipfs_failures"),
        counter("total_sql_inserts"),
        counter("total_sql_errors"),
        counter("total_validation_errors"),
        sa.Column("status", sa.Unicode(20), server_default=sa.text("'RUNNING'")),
        sa.Column("error_summary", _TEXT),
        # Added.
        sa.Column("heartbeat_at", _TIME),
        sa.Column("host", sa.Unicode(255)),
        sa.Column("pid", sa.Integer()),
        sa.Column("command", sa.Unicode(50)),
        sa.Column("program_version", sa.Unicode(50)),
        sa.Column("progress_percent", sa.Float(53)),
    )
    sa.Index("ix_syncsessions_start_time", sessions.c.start_time)

    errors = sa.Table(
        name("SyncErrors"),
        metadata,
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("session_id", _UUID, nullable=False),
        sa.Column("occurred_at", _TIME, nullable=False, server_default=now),
        sa.Column("category", sa.Unicode(20), nullable=False),
        sa.Column("code", sa.Unicode(50), nullable=False),
        sa.Column("message", _TEXT, nullable=False),
        sa.Column("occurrences", sa.Integer(), nullable=False, server_default=sa.text("1")),
        sa.Column("source_ip", sa.Unicode(45), nullable=False),
        sa.Column("node_name", sa.Unicode(255)),
        sa.Column("db_path", sa.Unicode(500)),
        sa.Column("token_id", sa.Unicode(500)),
        sa.Column("context", _TEXT),
    )
    sa.Index("ix_syncerrors_session_id", errors.c.session_id)
    sa.Index("ix_syncerrors_occurred_at", errors.c.occurred_at)

    runs = add_runs(metadata, name)
    leases = sa.Table(
        name("SyncLeases"),
        metadata,
        sa.Column("source_ip", sa.Unicode(45), primary_key=True),
        sa.Column("session_id", _UUID, nullable=False),
        sa.Column("holder", sa.Unicode(500), nullable=False),
        sa.Column("acquired_at", _TIME, nullable=False),
        sa.Column("heartbeat_at", _TIME, nullable=False),
        # By the server's clock; NULL in a lease of the first edition, which knew 60 s.
        sa.Column("expires_at", _TIME),
        # What is written under this lease belongs to this run.
        sa.Column("run_number", sa.BigInteger()),
    )
    sources = sa.Table(
        name("SyncSources"),
        metadata,
        sa.Column("source_ip", sa.Unicode(45), primary_key=True),
        # Which machine the source belongs to: see process_identity.own_machine.
        sa.Column("machine", sa.Unicode(200), nullable=False),
        sa.Column("host", sa.Unicode(255), nullable=False),
        sa.Column("first_seen_at", _TIME, nullable=False),
    )

    duplicates = sa.Table(
        name("TokenRecordDuplicates"),
        metadata,
        sa.Column("original_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        *(
            _sql(column, None if column.default == "now" else defaults.get(column.default or ""))
            for column in columns.columns
            if column.name not in ("row_digest", "since_run")
        ),
        sa.Column("set_aside_at", _TIME, nullable=False, server_default=now),
    )
    sa.Index("ix_tokenrecordduplicates_record_key", duplicates.c.record_key)

    migrations = sa.Table(
        name("SyncMigrations"),
        metadata,
        sa.Column("migration_id", _UUID, primary_key=True, nullable=False),
        sa.Column("started_at", _TIME, nullable=False, server_default=now),
        sa.Column("finished_at", _TIME),
        sa.Column("status", sa.Unicode(20), nullable=False),
        sa.Column("source_identity", sa.Unicode(200), nullable=False),
        sa.Column("source_place", sa.Unicode(500), nullable=False),
        sa.Column("target_place", sa.Unicode(500), nullable=False),
        sa.Column("source_timezone", sa.Unicode(64), nullable=False),
        sa.Column("program_version", sa.Unicode(50)),
    )
    migrated = sa.Table(
        name("SyncMigratedDatabases"),
        metadata,
        sa.Column("migration_id", _UUID, primary_key=True, nullable=False),
        sa.Column(
            "database_key", _fixed_bytes(DATABASE_KEY_BYTES), primary_key=True, nullable=False
        ),
        sa.Column("source_ip", sa.Unicode(45), nullable=False),
        sa.Column("db_path", sa.Unicode(500), nullable=False),
        sa.Column("state", sa.Unicode(20), nullable=False),
        # What the source's rows looked like, cheaply: other rows, another version.
        sa.Column("source_version", sa.Unicode(200), nullable=False),
        sa.Column("rows_read", sa.BigInteger(), nullable=False),
        sa.Column("rows_stored", sa.BigInteger(), nullable=False),
        sa.Column("contents_adopted", sa.BigInteger(), nullable=False),
        sa.Column("contents_refused", sa.BigInteger(), nullable=False),
        sa.Column("duplicates_merged", sa.BigInteger(), nullable=False),
        sa.Column("rows_changed", sa.BigInteger(), nullable=False),
        sa.Column("rows_refused", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Unicode(40), nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.Column("changed_at", _TIME, nullable=False),
    )
    set_aside = sa.Table(
        name("SyncMigrationSetAside"),
        metadata,
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("migration_id", _UUID, nullable=False),
        sa.Column("database_key", _fixed_bytes(DATABASE_KEY_BYTES), nullable=False),
        # The transaction that wrote it: written again, it replaces itself.
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("record_key", _fixed_bytes(RECORD_KEY_BYTES)),
        sa.Column("original_id", sa.BigInteger()),
        sa.Column("reason", sa.Unicode(50), nullable=False),
        sa.Column("changed_columns", sa.Unicode(500)),
        sa.Column("original_row", _TEXT, nullable=False),
        sa.Column("set_aside_at", _TIME, nullable=False, server_default=now),
    )
    sa.Index(
        "ix_syncmigrationsetaside_database",
        set_aside.c.migration_id,
        set_aside.c.database_key,
        set_aside.c.id,
    )
    audit = add_audit_tables(metadata, records, stored[CHAINS.name].table, name)
    return Tables(
        spelling,
        metadata,
        stored,
        records,
        databases,
        sessions,
        errors,
        runs,
        leases,
        sources,
        duplicates,
        migrations,
        migrated,
        set_aside,
        audit,
    )


def _defaults(spelling: Spelling) -> dict[str, str]:
    return {"now": spelling.now, "false": spelling.false, "rbt": "'rbt'"}


def _add_records(metadata: sa.MetaData, spelling: Spelling, columns: RecordTable) -> sa.Table:
    """A table of records with its indexes."""
    defaults = _defaults(spelling)
    records = sa.Table(
        columns.name.lower() if spelling.lower_case else columns.name,
        metadata,
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        *(_sql(column, defaults.get(column.default or "")) for column in columns.columns),
        sa.Column("source_deleted_at", _TIME),  # of vanished rows
    )
    # What is known of a database, and how many of its records live and have content, is
    # answered from an index alone.
    covered = list(columns.covered)
    sa.Index(
        f"ux_{columns.name.lower()}_record_key",
        records.c.record_key,
        unique=True,
        postgresql_include=covered if spelling.include else [],
        mssql_include=covered,
    )
    if not spelling.include:
        known = _index(columns, "known")
        sa.Index(known, records.c.record_key, *(records.c[c] for c in covered))
    if spelling.filtered:
        invalid = records.c.validation_errors.is_not(None)
        sa.Index(
            _index(columns, "invalid"),
            records.c.record_key,
            records.c.source_deleted_at,
            sqlite_where=invalid,
            postgresql_where=invalid,
        )
    for name in columns.indexed:
        if name not in spelling.not_indexed:
            sa.Index(_index(columns, name), records.c[name])
    return records


def _add_staging(metadata: sa.MetaData, spelling: Spelling, columns: RecordTable) -> sa.Table:
    """Where rows wait for their publication; Microsoft's bulk copy sees no ``#temp`` table.

    Clustered by load: deleting from a heap would leave its pages behind.
    """
    staging = sa.Table(
        columns.staging,
        metadata,
        sa.Column("load_id", sa.BigInteger(), nullable=False),
        *(
            _sql(column, spelling.false if column.default == "false" else None)
            for column in columns.staged
        ),
        sa.Column("loaded_at", _TIME, nullable=False, server_default=sa.text(spelling.now)),
    )
    sa.Index(f"ix_{columns.staging.lower()}_load_id", staging.c.load_id, mssql_clustered=True)
    return staging
