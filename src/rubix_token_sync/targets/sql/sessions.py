"""Runs as the target knows them: leases, sessions, errors, and whose a source is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

import sqlalchemy as sa

from rubix_token_sync import failpoints
from rubix_token_sync.errors import (
    LeaseHeld,
    LeaseLost,
    RecordRefused,
    SourceTaken,
    TargetUnavailable,
)
from rubix_token_sync.process_identity import Machine, holder_is_gone
from rubix_token_sync.targets.base import LEASE_SECONDS, ErrorEntry, Lease, SessionTotals
from rubix_token_sync.targets.sql.database import Database
from rubix_token_sync.targets.sql.history import begin_run, end_run

__all__ = ["Sessions", "lost"]


class Sessions:
    """Who works for which source, how runs ended, and what went wrong in them.

    See the methods of the same names in `rubix_token_sync.targets.base.Target`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tables = database.tables

    def leases(self, conn: sa.Connection) -> list[Lease]:
        """Leases that are held now."""
        leases = self._tables.leases
        query = sa.select(
            leases.c.source_ip, leases.c.session_id, leases.c.heartbeat_at, leases.c.expires_at
        )
        held, now = conn.execute(query).all(), self._database.time(conn)
        return [
            Lease(row[0], str(row[1]), _seconds(row[2], row[3]))
            for row in held
            if abs(now - row[2]).total_seconds() <= _seconds(row[2], row[3])
        ]

    def start_session(self, session_id: str, source: str, host: str, pid: int, command: str) -> int:
        from rubix_token_sync import __version__

        sessions = self._tables.sessions

        def work(conn: sa.Connection) -> int:
            failpoints.point("store.session.start")
            there = conn.execute(
                sa.select(sessions.c.session_id).where(sessions.c.session_id == session_id)
            ).first()
            if there is None:
                conn.execute(
                    sa.insert(sessions).values(
                        session_id=session_id,
                        source_ip=source,
                        start_time=self._database.now,
                        heartbeat_at=self._database.now,
                        status="RUNNING",
                        host=host,
                        pid=pid,
                        command=command,
                        program_version=__version__,
                    )
                )
            failpoints.point("store.session.recover")
            return conn.execute(
                sa.update(sessions)
                .where(
                    sessions.c.source_ip == source,
                    sessions.c.status == "RUNNING",
                    sessions.c.session_id != session_id,
                )
                .values(
                    status="INTERRUPTED",
                    end_time=sa.func.coalesce(sessions.c.heartbeat_at, sessions.c.start_time),
                    error_summary="The run ended without notice (killed, or its machine died).",
                )
            ).rowcount

        return self._database.transact(work)

    def heartbeat(self, lease: Lease, totals: SessionTotals) -> None:
        sessions = self._tables.sessions

        def work(conn: sa.Connection) -> None:
            failpoints.point("store.heartbeat")
            self._renew(conn, lease)
            conn.execute(
                sa.update(sessions)
                .where(sessions.c.session_id == lease.session_id)
                .values(heartbeat_at=self._database.now, **asdict(totals))
            )

        self._database.transact(work)

    def finish_session(
        self, lease: Lease, status: str, totals: SessionTotals, error_summary: str | None
    ) -> None:
        sessions = self._tables.sessions

        def work(conn: sa.Connection) -> None:
            failpoints.point("store.session.finish")
            conn.execute(
                sa.update(sessions)
                .where(sessions.c.session_id == lease.session_id)
                .values(
                    status=status,
                    end_time=self._database.now,
                    heartbeat_at=self._database.now,
                    error_summary=error_summary,
                    **asdict(totals),
                )
            )
            self._release(conn, lease)

        self._database.transact(work)

    def acquire_lease(self, lease: Lease, holder: str, machine: Machine | None = None) -> None:
        leases = self._tables.leases
        now = self._database.now
        mine = {
            "session_id": lease.session_id,
            "holder": holder,
            "acquired_at": now,
            "heartbeat_at": now,
            "expires_at": self._database.later(lease.seconds),
        }

        def work(conn: sa.Connection) -> None:
            failpoints.point("store.lease.acquire")
            if machine is not None:
                self._claim(conn, lease.source, machine)
            found = conn.execute(
                sa.select(leases)
                .where(leases.c.source_ip == lease.source)
                .with_for_update()  # where writers hold a shared lock, wait for their end
            ).first()
            if found is None:
                number = begin_run(conn, self._tables, lease.session_id, lease.source, now)
                conn.execute(
                    sa.insert(leases).values(source_ip=lease.source, run_number=number, **mine)
                )
                return
            if str(found.session_id) == lease.session_id:
                return
            idle = (self._database.time(conn) - found.heartbeat_at).total_seconds()
            patience = _seconds(found.heartbeat_at, found.expires_at)
            # Far in the future: the server's clock was put back, and nobody heard of since.
            if abs(idle) <= patience and not holder_is_gone(found.holder):
                raise LeaseHeld(
                    f"Another run works for source {lease.source}: "
                    f"session {found.session_id} on {found.holder.split('|')[0]}, "
                    f"since {found.acquired_at:%Y-%m-%d %H:%M:%S} UTC, "
                    f"last heard of {max(0, int(idle))} s ago.",
                    code="lease_held",
                    remedy="Wait for it, or stop it; a dead run loses its lease by itself "
                    f"{patience:g} s after it was last heard of.",
                    context={"session_id": str(found.session_id), "holder": found.holder},
                )
            # Its last sign of life: nothing that it wrote is much younger.
            end_run(conn, self._tables, str(found.session_id), found.heartbeat_at)
            number = begin_run(conn, self._tables, lease.session_id, lease.source, now)
            taken = conn.execute(
                sa.update(leases)
                .where(
                    leases.c.source_ip == lease.source,
                    leases.c.session_id == found.session_id,
                    leases.c.heartbeat_at == found.heartbeat_at,
                )
                .values(run_number=number, **mine)
            )
            if taken.rowcount != 1:
                raise TargetUnavailable(
                    "The lease changed hands while it was being taken.", code="lease_raced"
                )

        try:
            self._database.transact(work)
        except RecordRefused as error:  # two inserted at once: the unique key let one through
            raise LeaseHeld(
                f"Another run for source {lease.source} started at the same moment.",
                code="lease_held",
                remedy="Wait for it to end.",
            ) from error

    def _claim(self, conn: sa.Connection, source: str, machine: Machine) -> None:
        """A source belongs to the machine that used it first."""
        sources = self._tables.sources
        if not self.check_source(conn, source, machine):
            conn.execute(
                sa.insert(sources).values(
                    source_ip=source,
                    machine=machine.identity,
                    host=machine.host,
                    first_seen_at=self._database.now,
                )
            )

    def check_source(self, conn: sa.Connection, source: str, machine: Machine) -> bool:
        """Whether the source is this machine's already; False: it is nobody's.

        Raises:
            SourceTaken: it is another machine's.
        """
        sources = self._tables.sources
        found = conn.execute(sa.select(sources).where(sources.c.source_ip == source)).first()
        if found is not None and found.machine != machine.identity:
            raise SourceTaken(
                f"The source {source} belongs to the machine {found.host} ({found.machine}), which "
                f"used it first, on {found.first_seen_at:%Y-%m-%d}; this machine is "
                f"{machine.host} ({machine.identity}).",
                code="source_taken",
                remedy="Give this machine a source of its own by --source-ip NAME. If it is the "
                "same machine under a new name, or takes the other one's place, take the source "
                "over on purpose by --adopt-source.",
                context={"owner": found.machine, "machine": machine.identity},
            )
        return found is not None

    def adopt_source(self, source: str, machine: Machine) -> None:
        sources = self._tables.sources

        def work(conn: sa.Connection) -> None:
            failpoints.point("store.source.adopt")
            conn.execute(sa.delete(sources).where(sources.c.source_ip == source))
            self._claim(conn, source, machine)

        self._database.transact(work)

    def release_lease(self, lease: Lease) -> None:
        self._database.transact(lambda conn: self._release(conn, lease))

    def _release(self, conn: sa.Connection, lease: Lease) -> None:
        leases = self._tables.leases
        failpoints.point("store.lease.release")
        end_run(conn, self._tables, lease.session_id, self._database.now)
        conn.execute(
            sa.delete(leases).where(
                leases.c.source_ip == lease.source, leases.c.session_id == lease.session_id
            )
        )

    def record_errors(self, lease: Lease, entries: Sequence[ErrorEntry]) -> None:
        attempts = 0

        def work(conn: sa.Connection) -> None:
            nonlocal attempts
            attempts += 1
            fresh = self.unrecorded(conn, lease, entries) if attempts > 1 else entries
            if fresh:
                self.insert_errors(conn, lease, fresh)

        if entries:
            self._database.transact(work)

    def unrecorded(
        self, conn: sa.Connection, lease: Lease, entries: Sequence[ErrorEntry]
    ) -> tuple[ErrorEntry, ...]:
        """Those that this session has not stored: a commit may have happened unheard of."""
        errors = self._tables.errors
        query = sa.select(errors.c.code, errors.c.db_path, errors.c.token_id, errors.c.message)
        there = {
            tuple(row) for row in conn.execute(query.where(errors.c.session_id == lease.session_id))
        }
        return tuple(
            entry
            for entry in entries
            if (entry.code, _cut(entry.db_path), _cut(entry.token_id), entry.message) not in there
        )

    def insert_errors(
        self, conn: sa.Connection, lease: Lease, entries: Sequence[ErrorEntry]
    ) -> None:
        failpoints.point("store.errors")
        conn.execute(
            sa.insert(self._tables.errors),
            [
                {
                    "session_id": lease.session_id,
                    "source_ip": lease.source,
                    **asdict(entry),
                    "token_id": _cut(entry.token_id),
                    "db_path": _cut(entry.db_path),
                    "context": json.dumps(entry.context, ensure_ascii=False, sort_keys=True)
                    if entry.context
                    else None,
                }
                for entry in entries
            ],
        )

    def fence(self, conn: sa.Connection, lease: Lease) -> int:
        """Make sure, inside the transaction, that nobody takes the lease before it ends.

        The lock is a shared one: the writers of a run do not wait for each other.  Where a
        writer keeps all others out, the heartbeat among them, it renews the lease as well.

        Returns:
            The number of the run, to which everything belongs that the transaction writes.

        Raises:
            LeaseLost: it is another run's.
        """
        if self._database.backend.one_writer:
            self._renew(conn, lease)
        leases = self._tables.leases
        ours = conn.execute(
            sa.select(leases.c.run_number)
            .where(leases.c.source_ip == lease.source, leases.c.session_id == lease.session_id)
            .with_hint(leases, "WITH (REPEATABLEREAD)", "mssql")
            .with_for_update(read=True, key_share=True)
        ).first()
        if ours is None:
            raise lost(lease)
        return int(ours.run_number)

    def _renew(self, conn: sa.Connection, lease: Lease) -> None:
        leases = self._tables.leases
        ours = conn.execute(
            sa.update(leases)
            .where(leases.c.source_ip == lease.source, leases.c.session_id == lease.session_id)
            .values(heartbeat_at=self._database.now, expires_at=self._database.later(lease.seconds))
        )
        if ours.rowcount != 1:
            raise lost(lease)


def _seconds(heartbeat: datetime, expires: datetime | None) -> float:
    """How long a lease lasts without a heartbeat; the first edition did not say it."""
    return LEASE_SECONDS if expires is None else (expires - heartbeat).total_seconds()


def lost(lease: Lease) -> LeaseLost:
    """The error of a run that was taken for dead."""
    return LeaseLost(
        f"The lease for source {lease.source} was taken over by another run; "
        "nothing more is written.",
        code="lease_lost",
        remedy="Let the other run finish.",
    )


def _cut(text: str | None) -> str | None:
    return text and text[:500]
