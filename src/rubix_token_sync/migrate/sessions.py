"""The leases a migration writes under: a session of the target for each source of records."""

from __future__ import annotations

from typing import Literal

from rubix_token_sync.runs.session import Session
from rubix_token_sync.targets.base import LEASE_SECONDS, Lease, SessionTotals
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["Sessions"]


class Sessions:
    """At most one at a time; ``totals`` counts what the current one did."""

    def __init__(self, target: SqlTarget, heartbeat_seconds: float) -> None:
        self._target = target
        self._heartbeat_seconds = heartbeat_seconds
        self._current: Session | None = None
        self.totals = SessionTotals()

    def lease(self, source_ip: str) -> Lease:
        """The lease of a source, whose session begins now if it is another one's turn.

        Raises:
            LeaseHeld: a sync is writing for the same source.
        """
        if self._current is not None and self._current.lease.source != source_ip:
            self.end("COMPLETED")
        if self._current is None:
            self.totals = SessionTotals()
            session = Session(
                self._target,
                source_ip,
                "migrate",
                totals=lambda: self.totals,
                heartbeat_seconds=self._heartbeat_seconds,
                lease_seconds=LEASE_SECONDS,
            )
            session.start()
            self._current = session
        return self._current.lease

    def check(self) -> None:
        """Raise what ended the current session from outside, if anything did."""
        if self._current is not None and self._current.error is not None:
            raise self._current.error

    def end(
        self, status: Literal["COMPLETED", "FAILED", "INTERRUPTED"], summary: str | None = None
    ) -> None:
        """End the current session, if there is one."""
        session, self._current = self._current, None
        if session is not None:
            session.finish(status, self.totals, summary)
