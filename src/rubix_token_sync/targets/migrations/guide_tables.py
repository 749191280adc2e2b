"""Upgrade in place of a database that the earlier script filled.

Its tables have the guide's columns and nothing else: no key, duplicates
included.  No row is lost: of the records with one identity the newest stays,
the others move to TokenRecordDuplicates in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

from rubix_token_sync.records.schema import COLUMN_SIZES, ROW_DIGEST_BYTES, database_key, record_key
from rubix_token_sync.records.values import cut
from rubix_token_sync.targets.sql.tables import Tables

__all__ = ["add_missing_columns", "adopt_bare_tables"]

_BLOCK = 1_000
_LONG_AGO = datetime(1970, 1, 1)
_UNKNOWN_DIGEST = b"\x00" * ROW_DIGEST_BYTES  # equals no real one: the next sync compares anew


def adopt_bare_tables(conn: sa.Connection, tables: Tables) -> None:
    """Turn the guide's bare tables, where they exist, into this schema's."""
    operations = Operations(MigrationContext.configure(conn))
    inspector = sa.inspect(conn)
    _widen(conn, tables)
    if _is_bare(inspector, tables.records):
        _adopt_records(conn, operations, tables)
    if _is_bare(inspector, tables.sessions):
        add_missing_columns(conn, tables.sessions)
        for index in tables.sessions.indexes:
            index.create(conn)
    if _is_bare(inspector, tables.databases):
        _adopt_databases(conn, operations, tables)


def _is_bare(inspector: sa.Inspector, table: sa.Table) -> bool:
    if not inspector.has_table(table.name):
        return False
    return {c["name"] for c in inspector.get_columns(table.name)} != set(table.c.keys())


def add_missing_columns(conn: sa.Connection, table: sa.Table) -> None:
    """Give a table the columns that it lacks; what is there gets their default, or NULL."""
    operations = Operations(MigrationContext.configure(conn))
    there = {column["name"] for column in sa.inspect(conn).get_columns(table.name)}
    for column in table.columns:
        if column.name not in there:
            default = column.server_default
            nullable = column.nullable or default is None
            fresh = sa.Column(column.name, column.type, nullable=nullable, server_default=default)
            operations.add_column(table.name, fresh)


def _adopt_records(conn: sa.Connection, operations: Operations, tables: Tables) -> None:
    records = tables.records
    add_missing_columns(conn, records)
    nulls: dict[bytes, int] = {}
    for block in _blocks(conn, records):
        keyed = []
        for row in block:
            database = database_key(row.source_ip, row.db_path)
            occurrence = 0
            if row.token_id is None:
                occurrence = nulls.get(database, 0)
                nulls[database] = occurrence + 1
            key = record_key(database, row.token_id, occurrence)
            keyed.append({"row": row.id, "key": key})
        conn.execute(
            sa.update(records)
            .where(records.c.id == sa.bindparam("row"))
            .values(record_key=sa.bindparam("key"), row_digest=_UNKNOWN_DIGEST),
            keyed,
        )
    tables.duplicates.create(conn)
    _loosen_duplicates(conn, operations, tables)
    _set_duplicates_aside(conn, tables)
    if _takes_not_null(conn):
        for name in ("record_key", "row_digest"):
            operations.alter_column(
                records.name, name, existing_type=records.c[name].type, nullable=False
            )
    existing = {index["name"] for index in sa.inspect(conn).get_indexes(records.name)}
    for index in sorted(records.indexes, key=lambda i: str(i.name)):
        if index.name not in existing:
            index.create(conn)


def _loosen_duplicates(conn: sa.Connection, operations: Operations, tables: Tables) -> None:
    """What the older system's PostgreSQL columns hold (TEXT, NULL) fits the table of duplicates."""
    if conn.dialect.name != "postgresql":
        return
    for column in sa.inspect(conn).get_columns(tables.records.name):
        name = column["name"]
        if name not in tables.duplicates.c or name == "record_key":
            continue
        if str(column["type"]) == "TEXT":
            operations.alter_column(tables.duplicates.name, name, type_=sa.Text())
        if column["nullable"]:
            operations.alter_column(tables.duplicates.name, name, nullable=True)


def _set_duplicates_aside(conn: sa.Connection, tables: Tables) -> None:
    """Of the records with one key the newest stays (by time, then by id)."""
    records, duplicates = tables.records, tables.duplicates
    ranked = sa.select(
        records.c.id,
        sa.func.row_number()
        .over(
            partition_by=records.c.record_key,
            order_by=(
                sa.case((records.c.synced_at.is_(None), 1), else_=0),
                records.c.synced_at.desc(),
                records.c.id.desc(),
            ),
        )
        .label("place"),
    ).subquery()
    losers = list(conn.scalars(sa.select(ranked.c.id).where(ranked.c.place > 1)))
    moved = [c.name for c in duplicates.c if c.name not in ("original_id", "set_aside_at")]
    for start in range(0, len(losers), _BLOCK):
        part = losers[start : start + _BLOCK]
        conn.execute(
            sa.insert(duplicates).from_select(
                ["original_id", *moved],
                sa.select(records.c.id, *(records.c[name] for name in moved)).where(
                    records.c.id.in_(part)
                ),
            )
        )
        conn.execute(sa.delete(records).where(records.c.id.in_(part)))


def _takes_not_null(conn: sa.Connection) -> bool:
    """SQLite alters no column, Babelfish not to NOT NULL: the unique index must do there."""
    if conn.dialect.name == "mssql":
        return conn.exec_driver_sql("SELECT SERVERPROPERTY('Babelfish')").scalar() is None
    return conn.dialect.name != "sqlite"


def _blocks(conn: sa.Connection, records: sa.Table) -> Iterator[Sequence[sa.Row[Any]]]:
    columns: list[sa.Column[Any]] = [
        records.c[name] for name in ("id", "source_ip", "db_path", "token_id")
    ]
    after = None
    while True:
        query = sa.select(*columns).order_by(records.c.id).limit(_BLOCK)
        if after is not None:
            query = query.where(records.c.id > after)
        block = conn.execute(query).all()
        if not block:
            return
        yield block
        after = block[-1].id


def _adopt_databases(conn: sa.Connection, operations: Operations, tables: Tables) -> None:
    """Key by (source, path); a fingerprint of NULL makes the next sync read each once."""
    databases, records = tables.databases, tables.records
    inspector = sa.inspect(conn)
    there = {column["name"] for column in inspector.get_columns(databases.name)}
    kept = [databases.c[name] for name in databases.c.keys() if name in there]  # noqa: SIM118
    old = [dict(row._mapping) for row in conn.execute(sa.select(*kept)).all()]
    sources: dict[str, list[str]] = {}
    if inspector.has_table(records.name):
        pairs = conn.execute(sa.select(records.c.source_ip, records.c.db_path).distinct())
        for source, path in pairs:
            sources.setdefault(path, []).append(source)
    operations.drop_table(databases.name)
    databases.create(conn)
    rows = [
        {
            **row,
            "db_path": cut(row["db_path"], COLUMN_SIZES["db_path"]),
            "last_modified": row.get("last_modified") or _LONG_AGO,
            "last_processed": row.get("last_processed") or _LONG_AGO,
            "source_ip": source,
            "database_key": database_key(source, row["db_path"]),
        }
        for row in old
        for source in ([row["source_ip"]] if row.get("source_ip") else ())
        or sources.get(row["db_path"], [""])
    ]
    if rows:
        conn.execute(sa.insert(databases), rows)


def _widen(conn: sa.Connection, tables: Tables) -> None:
    """The older system's PostgreSQL tables: SERIAL ids end at 2^31, ids of sessions are text."""
    if conn.dialect.name != "postgresql":
        return
    for table, column, kind in (
        (tables.records, "id", "bigint"),
        (tables.sessions, "session_id", "uuid"),
    ):
        if not sa.inspect(conn).has_table(table.name):
            continue
        found = {c["name"]: c["type"] for c in sa.inspect(conn).get_columns(table.name)}
        if column in found and str(found[column]).lower() != kind:
            conn.exec_driver_sql(
                f"ALTER TABLE {table.name} ALTER COLUMN {column} DROP DEFAULT"
                if kind == "uuid"
                else f"ALTER SEQUENCE {_sequence(conn, table.name)} AS bigint"
            )
            conn.exec_driver_sql(
                f"ALTER TABLE {table.name} ALTER COLUMN {column} TYPE {kind} USING {column}::{kind}"
            )


def _sequence(conn: sa.Connection, table: str) -> str:
    query = sa.text("SELECT pg_get_serial_sequence(:table, 'id')")
    return str(conn.execute(query, {"table": table}).scalar_one())
