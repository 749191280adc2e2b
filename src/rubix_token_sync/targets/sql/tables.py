"""The tables, once, for every target.

Names, types, sizes and defaults are the guide's; what correctness adds is
marked.  SQLite and Azure SQL spell table names as the guide does, PostgreSQL
in lower case as the older system had them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mssql

from rubix_token_sync.records.schema import (
    COLUMN_SIZES,
    DATABASE_KEY_BYTES,
    RECORD_KEY_BYTES,
    ROW_DIGEST_BYTES,
)

__all__ = [
    "LATE_INDEXES",
    "STAGED_COLUMNS",
    "Tables",
    "build_tables",
    "can_cover",
    "keep_row_locks",
]

LATE_INDEXES: Final = (
    "token_id",
    "did",
    "node_name",
    "source_ip",
    "db_path",
    "ipfs_fetched",
    "synced_at",
)
"""The guide's secondary indexes on TokenRecords, one column each."""

_TIME: Final = sa.DateTime().with_variant(mssql.DATETIME2(7), "mssql")  # type: ignore[no-untyped-call]
_TEXT: Final = sa.UnicodeText()
_ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_UUID: Final = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")


class _Binary(mssql.BINARY):
    """BINARY(n) whose parameters are of that type, too: the driver sends VARBINARY.

    Of the two, VARBINARY takes precedence, so the column would be converted, and not the
    parameter.
    """

    def bind_expression(self, bindvalue: Any) -> Any:
        return sa.cast(bindvalue, mssql.BINARY(self.length))


def _fixed_bytes(size: int) -> sa.types.TypeEngine[bytes]:
    return sa.LargeBinary(size).with_variant(_Binary(size), "mssql")


_SERVER_NOW: Final = {
    "sqlite": "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))",
    "postgresql": "timezone('utc', now())",
    "mssql": "GETUTCDATE()",
}
_NEW_UUID: Final = {
    "postgresql": "(md5(random()::text || clock_timestamp()::text))::uuid",  # before 13, too
    "mssql": "NEWID()",
}


@dataclass(frozen=True)
class Tables:
    """The tables of one target, ready for SQLAlchemy statements."""

    metadata: sa.MetaData
    records: sa.Table
    databases: sa.Table
    sessions: sa.Table
    errors: sa.Table
    leases: sa.Table
    duplicates: sa.Table
    migrations: sa.Table
    migrated: sa.Table
    set_aside: sa.Table

    def all(self) -> list[sa.Table]:
        """Every table, in order of creation."""
        return list(self.metadata.tables.values())


def _record_columns(dialect: str = "") -> list[sa.Column[Any]]:
    """The guide's columns of TokenRecords after ``id``, in its order, without defaults."""
    size = COLUMN_SIZES
    no = "false" if dialect == "postgresql" else "0"
    return [
        sa.Column("source_ip", sa.Unicode(size["source_ip"]), nullable=False),
        sa.Column("node_name", sa.Unicode(size["node_name"]), nullable=False),
        sa.Column("did", sa.Unicode(size["did"])),
        sa.Column("token_id", sa.Unicode(size["token_id"])),
        sa.Column("created_at", _TIME),
        sa.Column("updated_at", _TIME),
        sa.Column("token_status", sa.Unicode(size["token_status"])),
        sa.Column("parent_token_id", sa.Unicode(size["parent_token_id"])),
        sa.Column("token_value", _TEXT),
        sa.Column("ipfs_data", _TEXT),
        sa.Column("ipfs_fetched", sa.Boolean(), server_default=sa.text(no)),
        sa.Column("ipfs_error", sa.Unicode(size["ipfs_error"])),
        sa.Column("db_path", sa.Unicode(size["db_path"]), nullable=False),
        sa.Column("ipfs_path", sa.Unicode(size["ipfs_path"])),
        sa.Column("db_last_modified", _TIME, nullable=False),
        sa.Column("synced_at", _TIME),
        sa.Column("validation_errors", _TEXT),
    ]


STAGED_COLUMNS: Final = (
    "record_key",
    "row_digest",
    *(c.name for c in _record_columns() if c.name != "synced_at"),
)
"""The columns of a batch, in RECORD_SCHEMA's order; ``synced_at`` is the server's time."""


def can_cover(dialect: sa.Dialect) -> bool:
    """False for PostgreSQL 10 (where already connected), whose indexes cannot INCLUDE columns."""
    version = getattr(dialect, "server_version_info", None) or (11,)
    return dialect.name != "postgresql" or version >= (11,)


def build_tables(dialect: str, *, covering: bool = True) -> Tables:
    """The tables as the target with SQLAlchemy dialect name ``dialect`` spells them.

    ``covering`` is what `can_cover` says of the server.
    """
    metadata = sa.MetaData()
    now = sa.text(_SERVER_NOW[dialect])

    def name(text: str) -> str:
        return text.lower() if dialect == "postgresql" else text

    def counter(column: str) -> sa.Column[int]:
        return sa.Column(column, sa.Integer(), server_default=sa.text("0"))

    record_columns = _record_columns(dialect)
    for column in record_columns:
        if column.name == "synced_at":
            column.server_default = sa.DefaultClause(now)
    records = sa.Table(
        name("TokenRecords"),
        metadata,
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        *record_columns,
        # Added: identity, change, vanished rows.
        sa.Column("record_key", _fixed_bytes(RECORD_KEY_BYTES), nullable=False),
        sa.Column("row_digest", _fixed_bytes(ROW_DIGEST_BYTES), nullable=False),
        sa.Column("source_deleted_at", _TIME),
    )
    # What is known of a database, and how many of its records live and have content, is
    # answered from an index alone.
    covered = ["row_digest", "source_deleted_at", "ipfs_fetched"]
    sa.Index(
        "ux_tokenrecords_record_key",
        records.c.record_key,
        unique=True,
        postgresql_include=covered if covering else [],
        mssql_include=covered,
    )
    if dialect == "sqlite":  # has no INCLUDE
        sa.Index("ix_tokenrecords_known", records.c.record_key, *(records.c[c] for c in covered))
    if dialect != "mssql":  # which filters no index by an NVARCHAR(MAX) column
        invalid = records.c.validation_errors.is_not(None)
        sa.Index(
            "ix_tokenrecords_invalid",
            records.c.record_key,
            records.c.source_deleted_at,
            sqlite_where=invalid,
            postgresql_where=invalid,
        )
    for late in LATE_INDEXES:
        # SQL Server takes 1,700 bytes as a key; a did may have 2,000, and would be refused.
        if (dialect, late) != ("mssql", "did"):
            sa.Index(f"ix_tokenrecords_{late}", records.c[late])

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
    )
    sa.Index("ix_processeddatabases_source_ip", databases.c.source_ip)

    session_id = sa.Column("session_id", _UUID, primary_key=True)
    if dialect in _NEW_UUID:
        session_id.server_default = sa.DefaultClause(sa.text(_NEW_UUID[dialect]))
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

    leases = sa.Table(
        name("SyncLeases"),
        metadata,
        sa.Column("source_ip", sa.Unicode(45), primary_key=True),
        sa.Column("session_id", _UUID, nullable=False),
        sa.Column("holder", sa.Unicode(500), nullable=False),
        sa.Column("acquired_at", _TIME, nullable=False),
        sa.Column("heartbeat_at", _TIME, nullable=False),
    )

    duplicates = sa.Table(
        name("TokenRecordDuplicates"),
        metadata,
        sa.Column("original_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        *_record_columns(dialect),
        sa.Column("record_key", _fixed_bytes(RECORD_KEY_BYTES), nullable=False),
        sa.Column("set_aside_at", _TIME, nullable=False, server_default=now),
    )
    sa.Index("ix_tokenrecordduplicates_record_key", duplicates.c.record_key)
    if dialect == "mssql":
        _add_staging(metadata)

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
    return Tables(
        metadata,
        records,
        databases,
        sessions,
        errors,
        leases,
        duplicates,
        migrations,
        migrated,
        set_aside,
    )


def keep_row_locks() -> list[str]:
    """Statements for SQL Server after the tables are made.

    It would trade the locks of some 5,000 rows for one of the whole table, and
    every other machine would wait for the end of the transaction.
    """
    return [
        f"ALTER TABLE {table} SET (LOCK_ESCALATION = DISABLE)"
        for table in ("TokenRecords", "TokenRecordStaging")
    ]


def _add_staging(metadata: sa.MetaData) -> None:
    """Where rows wait for their publication; Microsoft's bulk copy sees no ``#temp`` table.

    Clustered by load: deleting from a heap would leave its pages behind.
    """
    staging = sa.Table(
        "TokenRecordStaging",
        metadata,
        sa.Column("load_id", sa.BigInteger(), nullable=False),
        sa.Column("record_key", _fixed_bytes(RECORD_KEY_BYTES), nullable=False),
        sa.Column("row_digest", _fixed_bytes(ROW_DIGEST_BYTES), nullable=False),
        *(c for c in _record_columns() if c.name != "synced_at"),
        sa.Column("loaded_at", _TIME, nullable=False, server_default=sa.text("GETUTCDATE()")),
    )
    sa.Index("ix_tokenrecordstaging_load_id", staging.c.load_id, mssql_clustered=True)
