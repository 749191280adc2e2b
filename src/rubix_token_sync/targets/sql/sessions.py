"""Runs as the target knows them: leases, sessions, errors, and whose a source is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

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
from rubix_token_sync.targets.sql.history import (
    beginning_run,
    count_run,
    ending_run,
    open_run,
)

__all__ = ["Sessions", "lost"]

_FOR_ITS_VALUES = frozenset({"too_long", "conversion", "null", "index_key_too_long"})
"""Codes of a row that was refused, and not because another one has its key."""


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
            leases.c.source_ip,
            leases.c.session_id,
            leases.c.heartbeat_at,
            leases.c.expires_at,
            self._database.clock.label("now"),
        )
        return [
            Lease(row[0], str(row[1]), _seconds(row[2], row[3]))
            for row in conn.execute(query)
            if abs(row[4] - row[2]).total_seconds() <= _seconds(row[2], row[3])
        ]

    def start_session(self, session_id: str, source: str, host: str, pid: int, command: str) -> int:
        from rubix_token_sync import __version__

        sessions = self._tables.sessions

        own = {
            "session_id": session_id,
            "source_ip": source,
            "status": "RUNNING",
            "host": host,
            "pid": pid,
            "command": command,
            "program_version": __version__,
        }
        there = sa.select(sessions.c.session_id).where(sessions.c.session_id == session_id)
        clock = self._database.clock
        row = sa.select(
            *(sa.literal(value, sessions.c[name].type) for name, value in own.items()),
            clock.label("start_time"),
            clock.label("heartbeat_at"),
        ).where(~there.exists())
        start = sa.insert(sessions).from_select([*own, "start_time", "heartbeat_at"], row)
        recover = (
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
        )

        def work(conn: sa.Connection) -> int:
            failpoints.point("store.session.start")
            failpoints.point("store.session.recover")
            return self._database.backend.together(conn, [start, recover])[1]

        return self._database.transact(work, alone=True)

    def heartbeat(self, lease: Lease, totals: SessionTotals) -> None:
        sessions = self._tables.sessions

        def work(conn: sa.Connection) -> None:
            failpoints.point("store.heartbeat")
            alive = (
                sa.update(sessions)
                .where(sessions.c.session_id == lease.session_id)
                .values(heartbeat_at=self._database.now, **asdict(totals))
            )
            self._renew(conn, lease, alive)

        self._database.transact(work)

    def finish_session(
        self, lease: Lease, status: str, totals: SessionTotals, error_summary: str | None
    ) -> None:
        sessions = self._tables.sessions

        def work(conn: sa.Connection) -> None:
            failpoints.point("store.session.finish")
            finish = (
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
            self.release(conn, lease, finish)

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
            "run_number": open_run(self._tables, lease.session_id),
        }
        begin = beginning_run(self._tables, lease.session_id, lease.source, now)

        def work(conn: sa.Connection) -> None:
            failpoints.point("store.lease.acquire")
            found = None
            if self._look(conn, lease, machine):
                found = conn.execute(
                    sa.select(leases)
                    .where(leases.c.source_ip == lease.source)
                    .with_for_update()  # where writers hold a shared lock, wait for their end
                ).first()
            if found is None:
                take = sa.insert(leases).values(source_ip=lease.source, **mine)
                self._database.backend.together(conn, [begin, take])
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
            take_over = (
                sa.update(leases)
                .where(
                    leases.c.source_ip == lease.source,
                    leases.c.session_id == found.session_id,
                    leases.c.heartbeat_at == found.heartbeat_at,
                )
                .values(**mine)
            )
            # Its last sign of life: nothing that it wrote is much younger.
            when, after = found.heartbeat_at, [begin, take_over]
            if self._end_run(conn, str(found.session_id), when, after=after)[-1] != 1:
                raise TargetUnavailable(
                    "The lease changed hands while it was being taken.", code="lease_raced"
                )

        try:
            self._database.transact(work)
        except RecordRefused as error:  # two inserted at once: the unique key let one through
            if error.code in _FOR_ITS_VALUES:
                raise
            raise LeaseHeld(
                f"Another run for source {lease.source} started at the same moment.",
                code="lease_held",
                remedy="Wait for it to end.",
            ) from error

    def _look(self, conn: sa.Connection, lease: Lease, machine: Machine | None) -> bool:
        """Whether somebody has the source's lease; takes the source for ``machine``.

        Nobody's lease need not be locked: of two that insert one, the second is refused.
        """
        leases, sources = self._tables.leases, self._tables.sources
        one = sa.select(sa.literal_column("1").label("one")).subquery("one")
        both = one.outerjoin(leases, leases.c.source_ip == lease.source).outerjoin(
            sources, sources.c.source_ip == lease.source
        )
        query = sa.select(
            leases.c.session_id, sources.c.machine, sources.c.host, sources.c.first_seen_at
        ).select_from(both)
        found = conn.execute(query).one()
        if machine is not None and not _belongs(found, lease.source, machine):
            self._claim(conn, lease.source, machine)
        return found.session_id is not None

    def _claim(self, conn: sa.Connection, source: str, machine: Machine) -> None:
        """A source belongs to the machine that used it first."""
        conn.execute(
            sa.insert(self._tables.sources).values(
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
        return found is not None and _belongs(found, source, machine)

    def adopt_source(self, source: str, machine: Machine) -> None:
        sources = self._tables.sources

        def work(conn: sa.Connection) -> None:
            failpoints.point("store.source.adopt")
            conn.execute(sa.delete(sources).where(sources.c.source_ip == source))
            self._claim(conn, source, machine)

        self._database.transact(work)

    def release_lease(self, lease: Lease) -> None:
        self._database.transact(lambda conn: self.release(conn, lease))

    def release(self, conn: sa.Connection, lease: Lease, *first: sa.Executable) -> None:
        """Give the lease back, after these statements, in the caller's transaction."""
        leases = self._tables.leases
        failpoints.point("store.lease.release")
        give_back = sa.delete(leases).where(
            leases.c.source_ip == lease.source, leases.c.session_id == lease.session_id
        )
        self._end_run(conn, lease.session_id, self._database.now, first, [give_back])

    def _end_run(
        self,
        conn: sa.Connection,
        session_id: str,
        when: Any,
        before: Sequence[sa.Executable] = (),
        after: Sequence[sa.Executable] = (),
    ) -> list[int]:
        """Between other statements, whose counts of rows are given back with its own."""
        counts = count_run(conn, self._tables, session_id)
        end = ending_run(self._tables, session_id, when, counts)
        return self._database.backend.together(conn, [*before, end, *after])

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

    def _renew(self, conn: sa.Connection, lease: Lease, *also: sa.Executable) -> None:
        """Renew it and execute these statements."""
        leases = self._tables.leases
        renew = (
            sa.update(leases)
            .where(leases.c.source_ip == lease.source, leases.c.session_id == lease.session_id)
            .values(heartbeat_at=self._database.now, expires_at=self._database.later(lease.seconds))
        )
        if self._database.backend.together(conn, [renew, *also])[0] != 1:
            raise lost(lease)


def _belongs(found: sa.Row[*tuple[Any, ...]], source: str, machine: Machine) -> bool:
    """Whether the source is this machine's already; False: it is nobody's.

    Raises:
        SourceTaken: it is another machine's.
    """
    if found.machine is not None and found.machine != machine.identity:
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
    return found.machine is not None


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
