"""Statements that travel together: counted each, and stopped by the first that fails."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from rubix_token_sync.errors import RecordRefused
from rubix_token_sync.targets.base import Lease
from rubix_token_sync.targets.sql.target import SqlTarget

from .records_made import SESSION, SOURCE


def named(store: SqlTarget, host: str) -> sa.Update:
    return sa.update(store.tables.sessions).values(host=host)


def hosts(store: SqlTarget) -> list[str | None]:
    query = sa.select(store.tables.sessions.c.host)
    return store.read(lambda conn: list(conn.execute(query).scalars()))


def test_each_says_how_many_rows_it_touched(store: SqlTarget, lease: Lease) -> None:
    leases = store.tables.leases
    statements = [
        named(store, "a"),
        sa.delete(leases).where(leases.c.source_ip == "nobody"),
        sa.delete(leases).where(leases.c.source_ip == lease.source),
        named(store, "b"),
    ]
    counts = store.transact(lambda conn: store.backend.together(conn, statements))
    assert counts == [1, 0, 1, 1]
    assert (hosts(store), store.leases()) == (["b"], [])


def test_behind_one_that_fails_none_is_done(store: SqlTarget, lease: Lease) -> None:
    again = sa.insert(store.tables.sessions).values(session_id=SESSION, source_ip=SOURCE)

    def work(conn: sa.Connection) -> None:
        store.backend.together(conn, [named(store, "a"), again, named(store, "b")])

    with pytest.raises(RecordRefused):
        store.transact(work)
    assert hosts(store) == ["host"]
    assert [held.source for held in store.leases()] == [lease.source]
