"""The book of runs in the target: sessions, leases, errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.errors import (
    LeaseHeld,
    LeaseLost,
    RecordRefused,
    TargetUnavailable,
)
from rubix_token_sync.process_identity import holder_is_gone
from rubix_token_sync.targets.base import (
    ErrorEntry,
    Lease,
    SessionTotals,
)
from rubix_token_sync.targets.sql.database import SqlTarget

__all__ = ["LEASE_SECONDS", "SqlLedger", "cut", "lost"]

LEASE_SECONDS = 60
"""A lease whose heartbeat is older (server time) belongs to a dead run."""


class SqlLedger(SqlTarget):
    """Who works for which source, how runs ended, and what went wrong in them."""

    def leases(self) -> list[Lease]:
        leases = self.tables.leases
        query = sa.select(leases.c.source_ip, leases.c.session_id, leases.c.heartbeat_at)
        held = self.read(lambda conn: conn.execute(query).all())
        now, patience = self.server_time(), timedelta(seconds=LEASE_SECONDS)
        return [Lease(row[0], str(row[1])) for row in held if abs(now - row[2]) <= patience]

    def start_session(
        self, session_id: str, source: str, host: str, pid: int, command: str
    ) -> None:
        from rubix_token_sync import __version__

        sessions = self.tables.sessions

        def work(conn: sa.Connection) -> None:
            failpoints.point("store.session.start")
            there = conn.execute(
                sa.select(sessions.c.session_id).where(sessions.c.session_id == session_id)
            ).first()
            if there is None:
                conn.execute(
                    sa.insert(sessions).values(
                        session_id=session_id,
                        source_ip=source,
                        start_time=self.now,
                        heartbeat_at=self.now,
                        status="RUNNING",
                        host=host,
                        pid=pid,
                        command=command,
                        program_version=__version__,
                    )
                )

        self.transact(work)

    def heartbeat(self, lease: Lease, totals: SessionTotals) -> None:
        sessions = self.tables.sessions

        def work(conn: sa.Connection) -> None:
            failpoints.point("store.heartbeat")
            self._fence(conn, lease)
            conn.execute(
                sa.update(sessions)
                .where(sessions.c.session_id == lease.session_id)
                .values(heartbeat_at=self.now, **asdict(totals))
            )

        self.transact(work)

    def finish_session(
        self, session_id: str, status: str, totals: SessionTotals, error_summary: str | None
    ) -> None:
        sessions = self.tables.sessions

        def work(conn: sa.Connection) -> None:
            failpoints.point("store.session.finish")
            conn.execute(
                sa.update(sessions)
                .where(sessions.c.session_id == session_id)
                .values(
                    status=status,
                    end_time=self.now,
                    heartbeat_at=self.now,
                    error_summary=error_summary,
                    **asdict(totals),
                )
            )

        self.transact(work)

    def close_dead_sessions(self, source: str, own_session: str) -> int:
        sessions = self.tables.sessions

        def work(conn: sa.Connection) -> int:
            failpoints.point("store.session.recover")
            return conn.execute(
                sa.update(sessions)
                .where(
                    sessions.c.source_ip == source,
                    sessions.c.status == "RUNNING",
                    sessions.c.session_id != own_session,
                )
                .values(
                    status="INTERRUPTED",
                    end_time=sa.func.coalesce(sessions.c.heartbeat_at, sessions.c.start_time),
                    error_summary="The run ended without a word (killed, or its machine died).",
                )
            ).rowcount

        return self.transact(work)

    def acquire_lease(self, lease: Lease, holder: str) -> None:
        leases = self.tables.leases
        mine = {
            "session_id": lease.session_id,
            "holder": holder,
            "acquired_at": self.now,
            "heartbeat_at": self.now,
        }

        def work(conn: sa.Connection) -> None:
            failpoints.point("store.lease.acquire")
            found = conn.execute(
                sa.select(
                    leases.c.session_id,
                    leases.c.holder,
                    leases.c.acquired_at,
                    leases.c.heartbeat_at,
                    sa.type_coerce(
                        sa.literal_column(self.now.text), leases.c.heartbeat_at.type
                    ).label("now"),
                )
                .where(leases.c.source_ip == lease.source)
                .with_for_update()  # where writers hold a shared lock, wait for their end
            ).first()
            if found is None:
                conn.execute(sa.insert(leases).values(source_ip=lease.source, **mine))
                return
            if found[0] == lease.session_id:
                return
            idle = found[4] - found[3]
            # Far in the future: the server's clock was put back, and nobody heard of since.
            if abs(idle) <= timedelta(seconds=LEASE_SECONDS) and not holder_is_gone(found[1]):
                raise LeaseHeld(
                    f"Another run works for source {lease.source}: "
                    f"session {found[0]} on {found[1].split('|')[0]}, "
                    f"since {found[2]:%Y-%m-%d %H:%M:%S} UTC, "
                    f"last heard of {max(0, int(idle.total_seconds()))} s ago.",
                    code="lease_held",
                    remedy="Wait for it, or stop it; a dead run loses its lease by itself "
                    f"after {LEASE_SECONDS} s.",
                    context={"session_id": str(found[0]), "holder": found[1]},
                )
            taken = conn.execute(
                sa.update(leases)
                .where(
                    leases.c.source_ip == lease.source,
                    leases.c.session_id == found[0],
                    leases.c.heartbeat_at == found[3],
                )
                .values(**mine)
            )
            if taken.rowcount != 1:
                raise TargetUnavailable(
                    "The lease changed hands while it was being taken.", code="lease_raced"
                )

        try:
            self.transact(work)
        except RecordRefused as error:  # two inserted at once: the unique key let one through
            raise LeaseHeld(
                f"Another run for source {lease.source} started at the same moment.",
                code="lease_held",
                remedy="Wait for it to end.",
            ) from error

    def release_lease(self, lease: Lease) -> None:
        leases = self.tables.leases

        def work(conn: sa.Connection) -> None:
            failpoints.point("store.lease.release")
            conn.execute(
                sa.delete(leases).where(
                    leases.c.source_ip == lease.source, leases.c.session_id == lease.session_id
                )
            )

        self.transact(work)

    def record_errors(self, lease: Lease, entries: Sequence[ErrorEntry]) -> None:
        attempts = 0

        def work(conn: sa.Connection) -> None:
            nonlocal attempts
            attempts += 1
            fresh = self._unrecorded(conn, lease, entries) if attempts > 1 else entries
            if fresh:
                self._insert_errors(conn, lease, fresh)

        if entries:
            self.transact(work)

    def _unrecorded(
        self, conn: sa.Connection, lease: Lease, entries: Sequence[ErrorEntry]
    ) -> tuple[ErrorEntry, ...]:
        """Those that this session has not stored: a commit may have happened unheard of."""
        errors = self.tables.errors
        query = sa.select(errors.c.code, errors.c.db_path, errors.c.token_id, errors.c.message)
        there = {
            tuple(row) for row in conn.execute(query.where(errors.c.session_id == lease.session_id))
        }
        return tuple(
            entry
            for entry in entries
            if (entry.code, cut(entry.db_path), cut(entry.token_id), entry.message) not in there
        )

    def _insert_errors(
        self, conn: sa.Connection, lease: Lease, entries: Sequence[ErrorEntry]
    ) -> None:
        failpoints.point("store.errors")
        conn.execute(
            sa.insert(self.tables.errors),
            [
                {
                    "session_id": lease.session_id,
                    "source_ip": lease.source,
                    **asdict(entry),
                    "token_id": cut(entry.token_id),
                    "db_path": cut(entry.db_path),
                    "context": json.dumps(entry.context, ensure_ascii=False, sort_keys=True)
                    if entry.context
                    else None,
                }
                for entry in entries
            ],
        )

    def _fence(self, conn: sa.Connection, lease: Lease) -> None:
        """Make sure, inside the transaction, that the lease is ours until it ends; renew it."""
        leases = self.tables.leases
        ours = conn.execute(
            sa.update(leases)
            .where(leases.c.source_ip == lease.source, leases.c.session_id == lease.session_id)
            .values(heartbeat_at=self.now)
        )
        if ours.rowcount != 1:
            raise lost(lease)


def lost(lease: Lease) -> LeaseLost:
    """The error of a run that was taken for dead."""
    return LeaseLost(
        f"The lease for source {lease.source} was taken over by another run; "
        "nothing more is written.",
        code="lease_lost",
        remedy="Let the other run finish.",
    )


def cut(text: str | None) -> str | None:
    return text and text[:500]
