"""Upgrade in place of a database that the earlier script filled.

Its tables have the guide's columns and nothing else: no key, duplicates
included.  No row is lost: of the records with one identity the newest stays,
the others move to TokenRecordDuplicates in full.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

from rubix_token_sync.records import ROW_DIGEST_BYTES, database_key, record_key
from rubix_token_sync.store.schema import Tables

__all__ = ["adopt_bare_tables"]

_BLOCK = 1_000
_UNKNOWN_DIGEST = b"\x00" * ROW_DIGEST_BYTES  # equals no real one: the next sync compares anew


def adopt_bare_tables(conn: sa.Connection, tables: Tables) -> None:
    """Turn the guide's bare tables, where they exist, into this schema's."""
    operations = Operations(MigrationContext.configure(conn))
    inspector = sa.inspect(conn)
    if _is_bare(inspector, tables.records):
        _adopt_records(conn, operations, tables)
    if _is_bare(inspector, tables.sessions):
        _add_missing(conn, operations, tables.sessions)
        for index in tables.sessions.indexes:
            index.create(conn)
    if _is_bare(inspector, tables.databases):
        _adopt_databases(conn, operations, tables)


def _is_bare(inspector: sa.Inspector, table: sa.Table) -> bool:
    if not inspector.has_table(table.name):
        return False
    return {c["name"] for c in inspector.get_columns(table.name)} != set(table.c.keys())


def _add_missing(conn: sa.Connection, operations: Operations, table: sa.Table) -> None:
    there = {column["name"] for column in sa.inspect(conn).get_columns(table.name)}
    for column in table.columns:
        if column.name not in there:
            fresh = sa.Column(
                column.name, column.type, nullable=True, server_default=column.server_default
            )
            operations.add_column(table.name, fresh)


def _adopt_records(conn: sa.Connection, operations: Operations, tables: Tables) -> None:
    records = tables.records
    _add_missing(conn, operations, records)
    newest: dict[bytes, tuple[datetime, int]] = {}
    nulls: dict[bytes, int] = {}
    losers: list[int] = []
    for block in _blocks(conn, records):
        keyed = []
        for row in block:
            database = database_key(row.source_ip, row.db_path)
            occurrence = 0
            if row.token_id is None:
                occurrence = nulls.get(database, 0)
                nulls[database] = occurrence + 1
            key = record_key(database, row.token_id, occurrence)
            age = (row.synced_at or datetime.min, row.id)
            best = newest.get(key)
            if best is None or age > best:
                newest[key] = age
                if best is not None:
                    losers.append(best[1])
            else:
                losers.append(row.id)
            keyed.append({"row": row.id, "key": key})
        conn.execute(
            sa.update(records)
            .where(records.c.id == sa.bindparam("row"))
            .values(record_key=sa.bindparam("key"), row_digest=_UNKNOWN_DIGEST),
            keyed,
        )
    tables.duplicates.create(conn)
    moved = [c.name for c in tables.duplicates.c if c.name not in ("original_id", "set_aside_at")]
    for start in range(0, len(losers), _BLOCK):
        part = losers[start : start + _BLOCK]
        conn.execute(
            sa.insert(tables.duplicates).from_select(
                ["original_id", *moved],
                sa.select(records.c.id, *(records.c[name] for name in moved)).where(
                    records.c.id.in_(part)
                ),
            )
        )
        conn.execute(sa.delete(records).where(records.c.id.in_(part)))
    if conn.dialect.name != "sqlite":  # which cannot alter; the unique index serves there
        for name in ("record_key", "row_digest"):
            operations.alter_column(
                records.name, name, existing_type=records.c[name].type, nullable=False
            )
    existing = {index["name"] for index in sa.inspect(conn).get_indexes(records.name)}
    for index in sorted(records.indexes, key=lambda i: str(i.name)):
        if index.name not in existing:
            index.create(conn)


def _blocks(conn: sa.Connection, records: sa.Table) -> Iterator[list[sa.Row[Any]]]:
    columns = (
        records.c.id,
        records.c.source_ip,
        records.c.db_path,
        records.c.token_id,
        records.c.synced_at,
    )
    after = None
    while True:
        query = sa.select(*columns).order_by(records.c.id).limit(_BLOCK)
        if after is not None:
            query = query.where(records.c.id > after)
        block = list(conn.execute(query))
        if not block:
            return
        yield block
        after = block[-1].id


def _adopt_databases(conn: sa.Connection, operations: Operations, tables: Tables) -> None:
    """Key by (source, path); a fingerprint of NULL makes the next sync read each once."""
    databases, records = tables.databases, tables.records
    guide = [
        "db_path",
        "last_modified",
        "last_processed",
        "record_count",
        "ipfs_success_count",
        "ipfs_fail_count",
        "validation_error_count",
        "processing_duration_seconds",
    ]
    old = [
        row._asdict()
        for row in conn.execute(sa.select(*(databases.c[name] for name in guide))).all()
    ]
    sources: dict[str, list[str]] = {}
    if sa.inspect(conn).has_table(records.name):
        pairs = conn.execute(sa.select(records.c.source_ip, records.c.db_path).distinct())
        for source, path in pairs:
            sources.setdefault(path, []).append(source)
    operations.drop_table(databases.name)
    databases.create(conn)
    rows = [
        {**row, "source_ip": source, "database_key": database_key(source, row["db_path"])}
        for row in old
        for source in sources.get(row["db_path"], [""])
    ]
    if rows:
        conn.execute(sa.insert(databases), rows)
