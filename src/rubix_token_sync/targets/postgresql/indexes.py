"""The secondary indexes on PostgreSQL: left out of a first load, built at its end."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.errors import RecordRefused
from rubix_token_sync.log import log_event
from rubix_token_sync.targets.postgresql.connection import BoundedConnection, driver, lift_limits
from rubix_token_sync.targets.sql.database import Database
from rubix_token_sync.targets.sql.sessions import Sessions

__all__ = ["finish_load", "missing_indexes", "prepare_load", "schema_lock", "unfinished_load"]

_LOG = logging.getLogger(__name__)

_SCHEMA_LOCK: Final = 0x5275_6269_7853_796E  # any number; the same in every version
_INDEX_LOCK: Final = 0x5275_6269
_POLL_SECONDS: Final = 0.2
_BUILDERS: Final = 2
"""Indexes that are built at the same time."""
_LOCKED_BYTES: Final = 2 << 30
"""Other sources' writers may have to wait for an index of a table of that size, not of a larger."""


@contextlib.contextmanager
def schema_lock(conn: sa.Connection) -> Iterator[None]:
    """See `Backend`.  An upgrade of old tables can take long, and so can waiting for another's."""
    lift_limits(conn)
    with driver(conn).unbounded():
        conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")
        yield


def prepare_load(database: Database) -> None:
    """A first load builds the secondary indexes at its end, any other has them.

    A first load that died goes on as one; what else lacks an index gets it now.
    """
    tables = database.tables

    def work(conn: sa.Connection) -> bool:
        empty = conn.execute(sa.select(tables.records.c.id).limit(1)).first() is None
        if not empty:
            return unfinished_load(conn, database)
        if not _state(conn).ours:
            return False
        failpoints.point("store.indexes.drop")
        for index in tables.late_indexes():
            conn.exec_driver_sql(f"DROP INDEX IF EXISTS {index.name}")
        return True

    if not database.transact(work):
        finish_load(database)


def unfinished_load(conn: sa.Connection, database: Database) -> bool:
    """See `Backend`."""
    state = _state(conn)
    return state.ours and len(state.missing(database)) == len(database.tables.late_indexes())


def finish_load(database: Database) -> None:
    """Build missing secondary indexes while others go on writing; statistics.

    Both are the owner's right; for another user the indexes stay as they are.
    """
    state = database.read(_state)
    if not state.ours:
        return
    missing = state.missing(database)
    if missing:
        _build_all(database, missing)
    if missing or not state.has_statistics:
        database.transact(lambda conn: _analyze(conn, database))


def missing_indexes(conn: sa.Connection, database: Database) -> list[sa.Index]:
    """Late indexes that are not there, or were left half built."""
    return _state(conn).missing(database)


@dataclass(frozen=True)
class _State:
    """Of TokenRecords and its indexes, by one question."""

    ours: bool
    """Its owner's rights are ours."""
    has_statistics: bool
    valid: frozenset[str]
    """Indexes that are complete."""

    def missing(self, database: Database) -> list[sa.Index]:
        return [one for one in database.tables.late_indexes() if one.name not in self.valid]


def _state(conn: sa.Connection) -> _State:
    ours, has_statistics, valid = conn.exec_driver_sql(
        "SELECT pg_has_role(relowner, 'USAGE'), reltuples > 0,"
        " ARRAY(SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " WHERE i.indrelid = t.oid AND i.indisvalid)"
        " FROM pg_class t WHERE t.oid = 'tokenrecords'::regclass"
    ).one()
    return _State(bool(ours), bool(has_statistics), frozenset(valid))


def _build_all(database: Database, missing: list[sa.Index]) -> None:
    """As fast as can be where nobody else writes; else so that others need not wait."""
    if database.read(lambda conn: _may_lock(conn, database)):
        # A connection is left to the heartbeat, where there is more than one.
        builders = max(1, min(_BUILDERS, database.options.pool_size - 1))
        with ThreadPoolExecutor(builders) as pool:
            list(pool.map(lambda index: _build_locking(database, index), missing))
    else:
        database.retrying(lambda: _build_concurrently(database, missing))


def _may_lock(conn: sa.Connection, database: Database) -> bool:
    """Whether writers of other sources are none, and would not wait long if they came.

    Behind a pooler there is no other way: to build while others write takes a session.
    """
    if (
        conn.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        != driver(conn).info.backend_pid
    ):
        return True
    size = conn.exec_driver_sql("SELECT pg_relation_size('tokenrecords')").scalar_one()
    return len(Sessions(database).leases(conn)) < 2 and size < _LOCKED_BYTES


def _build_locking(database: Database, index: sa.Index) -> None:
    """In a transaction of its own; an index that another run is building is waited for."""

    def work(conn: sa.Connection) -> bool:
        lift_limits(conn)
        with driver(conn).unbounded():
            lock = f"SELECT pg_try_advisory_xact_lock({_INDEX_LOCK}, hashtext('{index.name}'))"
            if not conn.exec_driver_sql(lock).scalar_one():
                return False
            if index.name in [one.name for one in missing_indexes(conn, database)]:
                failpoints.point("store.indexes.build")
                conn.exec_driver_sql("SET LOCAL maintenance_work_mem = '256MB'")
                conn.exec_driver_sql(f"DROP INDEX IF EXISTS {index.name}")  # left half built
                index.create(conn)
            return True

    try:
        while not database.transact(work):
            time.sleep(_POLL_SECONDS)
    except RecordRefused as error:
        # Since the second edition such a value is refused before it is stored.
        log_event(
            _LOG, logging.WARNING, "index_refused",
            f"The index {index.name} cannot be built: a record of an earlier edition has a value "
            f"that is too long for it. What it is for stays slow. {error.message}",
            code=error.code,
        )  # fmt: skip


def _build_concurrently(database: Database, missing: list[sa.Index]) -> None:
    """A session lock keeps builders apart: CONCURRENTLY cannot run in a transaction."""
    with database.translated(), _session(database) as conn:
        # Asked for again and again: a statement that waits for it would hold a snapshot,
        # and the holder's CREATE INDEX CONCURRENTLY would wait for that.
        while not _one(conn, f"SELECT pg_try_advisory_lock({_SCHEMA_LOCK + 1})"):
            time.sleep(_POLL_SECONDS)
        for index in missing:
            valid = (
                "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
                " WHERE i.indrelid = 'tokenrecords'::regclass AND i.indisvalid AND c.relname = %s"
            )
            if _one(conn, valid, index.name):  # another run has built it meanwhile
                continue
            failpoints.point("store.indexes.build")
            conn.execute(f"DROP INDEX IF EXISTS {index.name}".encode())
            ddl = str(sa.schema.CreateIndex(index).compile(dialect=database.engine.dialect))
            conn.execute(ddl.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY").encode())


@contextlib.contextmanager
def _session(database: Database) -> Iterator[BoundedConnection]:
    """A connection without time limits, which ends with the context: it is nobody else's."""
    failpoints.point("store.connect")
    borrowed = database.engine.raw_connection()
    try:
        conn: Any = borrowed.dbapi_connection
        with conn.unbounded():
            conn.execute("SET statement_timeout = 0; SET lock_timeout = 0")
            if conn.info.server_version >= 170_000:
                conn.execute("SET transaction_timeout = 0")
            conn.execute("SET maintenance_work_mem = '256MB'")
            yield conn
    finally:
        borrowed.invalidate()


def _one(conn: BoundedConnection, query: str, *parameters: object) -> object:
    row = conn.execute(query.encode(), parameters or None).fetchone()
    return row[0] if row is not None else None


def _analyze(conn: sa.Connection, database: Database) -> None:
    """Of what else was loaded, too: an audit may come before the server's own next look."""
    failpoints.point("store.analyze")
    lift_limits(conn)
    loaded = ", ".join(stored.table.name for stored in database.tables.stored.values())
    with driver(conn).unbounded():
        conn.exec_driver_sql(f"ANALYZE {loaded}")
