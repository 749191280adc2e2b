"""Retention: old versions that nobody needs any more are removed, a few at a time."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.audit.findings import OPEN
from rubix_token_sync.process_identity import own_holder
from rubix_token_sync.records.schema import DATABASE_KEY_BYTES, RECORDS
from rubix_token_sync.targets.base import LEASE_SECONDS, Lease
from rubix_token_sync.targets.sql.questions import parts
from rubix_token_sync.targets.sql.tables import Tables
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["LEASE", "Pruned", "prune_history"]

LEASE: Final = "history"
"""Two that remove history take turns by a lease of this name; syncs go on meanwhile."""

_CHUNK: Final = 5_000


@dataclass(frozen=True)
class Pruned:
    """What was removed."""

    runs: int
    """Runs whose history is gone now."""
    versions: int
    kept: int
    """Versions of those runs that open findings rest on."""


def prune_history(
    store: SqlTarget, older_than: timedelta, *, lease_seconds: float = LEASE_SECONDS
) -> Pruned:
    """Remove versions that runs ended which themselves ended so long ago.

    Kept is what open findings rest on: versions of their tokens, and of their parents and
    parts.  What was removed stays removed, whatever ends the work; the next call goes on.

    Raises:
        LeaseHeld: somebody else is at it.
        TargetError: the target cannot be used.
    """
    lease = Lease(LEASE, str(uuid.uuid4()), lease_seconds)
    store.acquire_lease(lease, own_holder())
    try:
        runs = store.transact(lambda conn: _mark(conn, store, lease, older_than))
        removed, after = 0, b""
        while True:
            done, after = store.transact(
                lambda conn, a=after: _remove(conn, store, lease, a)  # type: ignore[misc]
            )
            removed += done
            if not after:
                break
        kept = store.read(lambda conn: _count(conn, store.tables))
        return Pruned(runs, removed, kept)
    finally:
        store.release_lease(lease)


def _mark(conn: sa.Connection, store: SqlTarget, lease: Lease, older_than: timedelta) -> int:
    """First of all nobody may take what is left for the whole."""
    store.sessions.fence(conn, lease)
    runs = store.tables.runs
    before = store.database.time(conn) - older_than
    return conn.execute(
        sa.update(runs)
        .where(runs.c.ended_at < before, runs.c.pruned_at.is_(None))
        .values(pruned_at=store.database.now)
    ).rowcount


def _outdated(tables: Tables) -> sa.Select[tuple[int]]:
    return sa.select(tables.runs.c.number).where(tables.runs.c.pruned_at.is_not(None))


def _remove(conn: sa.Connection, store: SqlTarget, lease: Lease, after: bytes) -> tuple[int, bytes]:
    """The next versions by key; how many were removed, and the last key (empty: at the end)."""
    store.sessions.fence(conn, lease)
    failpoints.point("history.prune")
    tables = store.tables
    history = tables.stored[RECORDS.name].history
    assert history is not None
    newest = conn.execute(sa.select(sa.func.max(_outdated(tables).subquery().c.number))).scalar()
    if newest is None:
        return 0, b""
    h = history.c
    query = (
        sa.select(h.record_key, h.ended_run)
        .where(h.ended_run <= newest, h.ended_run.in_(_outdated(tables)), h.record_key > after)
        .order_by(h.record_key)
        .limit(_CHUNK)
    )
    found = conn.execute(query).all()
    keys = sorted({bytes(row.record_key) for row in found})
    cited = _cited(conn, tables, keys)
    removed = 0
    free = [key for key in keys if key not in cited]
    for part in parts(free):
        removed += conn.execute(
            sa.delete(history).where(h.record_key.in_(part), h.ended_run.in_(_outdated(tables)))
        ).rowcount
    return removed, keys[-1] if len(found) == _CHUNK else b""


def _cited(conn: sa.Connection, tables: Tables, keys: list[bytes]) -> set[bytes]:
    """Those of the records that an open finding rests on."""
    findings, evidence, records = tables.audit.findings, tables.audit.evidence, tables.records
    open_ones = sa.select(findings.c.token_key).where(findings.c.state.in_((*OPEN, "suppressed")))
    tokens = {bytes(row[0]) for row in conn.execute(open_ones)}
    cited = {key for key in keys if key[DATABASE_KEY_BYTES:] in tokens}
    if not tokens:
        return cited
    joined = evidence.join(
        findings,
        sa.and_(
            findings.c.rule == evidence.c.rule,
            findings.c.token_key == evidence.c.token_key,
            findings.c.last_seen_run == evidence.c.run_number,
            findings.c.state.in_((*OPEN, "suppressed")),
        ),
    )
    for part in parts([key for key in keys if key not in cited]):
        other = (
            sa.select(records.c.record_key)
            .join_from(records, joined, evidence.c.record_token_id == records.c.token_id)
            .where(records.c.record_key.in_(part))
        )
        cited |= {bytes(row[0]) for row in conn.execute(other)}
    return cited


def _count(conn: sa.Connection, tables: Tables) -> int:
    history = tables.stored[RECORDS.name].history
    assert history is not None
    left = history.c.ended_run.in_(_outdated(tables))
    return int(conn.execute(sa.select(sa.func.count()).where(left)).scalar_one())
