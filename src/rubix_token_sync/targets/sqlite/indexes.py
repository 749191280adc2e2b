"""The secondary indexes of a SQLite file: left out of a first load, built at its end."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.targets.sql.database import Database

__all__ = ["finish_load", "prepare_load", "unfinished_load"]

_STALE_GROWTH: Final = 2  # times as many records as when statistics were gathered


def prepare_load(database: Database) -> None:
    """A first load builds the secondary indexes at its end, any other has them.

    A first load that died goes on as one; what else lacks an index gets it now.
    """
    tables = database.tables

    def work(conn: sa.Connection) -> bool:
        if conn.execute(sa.select(tables.records.c.id).limit(1)).first() is not None:
            return unfinished_load(conn, database)
        failpoints.point("store.indexes.drop")
        for index in tables.late_indexes():
            conn.exec_driver_sql(f"DROP INDEX IF EXISTS {index.name}")
        return True

    if not database.transact(work):
        _build_indexes(database)


def unfinished_load(conn: sa.Connection, database: Database) -> bool:
    """See `Backend`."""
    return not _index_names(conn) & {index.name for index in database.tables.late_indexes()}


def finish_load(database: Database) -> None:
    """Build what lacks; gather statistics."""
    _build_indexes(database)
    database.transact(_optimize)


def _build_indexes(database: Database) -> None:
    """One index a transaction, so that heartbeats (and other sources) get their turn."""
    indexes = sorted(database.tables.records.indexes, key=lambda i: str(i.name))

    def work(conn: sa.Connection) -> bool:
        there = _index_names(conn)
        missing = [index for index in indexes if index.name not in there]
        if missing:
            failpoints.point("store.indexes.build")
            missing[0].create(conn)
        return len(missing) > 1

    while database.transact(work):
        pass


def _index_names(conn: sa.Connection) -> set[str]:
    asked = "SELECT name FROM sqlite_master WHERE type = 'index'"
    return {row[0] for row in conn.exec_driver_sql(asked)}


def _optimize(conn: sa.Connection) -> None:
    """Gather statistics for the planner where there are none of so large a table.

    PRAGMA optimize would do so at the end of every run, because the index of invalid
    records has no statistics as long as it has no entries; an analysis_limit would
    take each value of source_ip for a rare one.
    """
    failpoints.point("store.analyze")
    highest = conn.exec_driver_sql("SELECT max(id) FROM TokenRecords").scalar_one() or 0
    counted = "0"
    if sa.inspect(conn).has_table("sqlite_stat1"):
        query = "SELECT stat FROM sqlite_stat1 WHERE idx = 'ux_tokenrecords_record_key'"
        counted = conn.exec_driver_sql(query).scalar() or counted
    if highest > _STALE_GROWTH * int(counted.split()[0]):
        conn.exec_driver_sql("ANALYZE")
