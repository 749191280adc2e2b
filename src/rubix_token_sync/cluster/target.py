"""What the coordinator asks the target: which sources there are, and how their runs ended.

The target is the truth of a sync.  A report that was lost on its way is read from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final, Literal

import sqlalchemy as sa

from rubix_token_sync.cluster.messages import HostReport
from rubix_token_sync.errors import SchemaError, SettingsError
from rubix_token_sync.library.configuration import Configuration
from rubix_token_sync.library.reader import TargetReader
from rubix_token_sync.monitor.health import Status
from rubix_token_sync.monitor.runs import RunRow
from rubix_token_sync.targets.base import DatabaseState
from rubix_token_sync.targets.registry import open_target
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["FleetTarget", "fate"]

_MOST_RUNS: Final = 10_000
_MARGIN: Final = timedelta(seconds=2)
_NO_SESSION_SECONDS: Final = 15.0
"""A host that has an order and writes no session for so long will not write one."""


class FleetTarget:
    """Read-only; opened for each question: one may come hours after the other."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

        self.place = ""
        """Which one it is, without secrets; known once it was asked."""

    def sources(self) -> list[str]:
        """Sources that the target holds databases of; none before the first sync.

        Raises:
            SyncError: it cannot be read.
        """
        store = self._store()
        if store is None:
            return []
        try:
            column = store.tables.databases.c.source_ip
            query = sa.select(column).distinct().order_by(column)
            return store.read(lambda conn: list(conn.scalars(query)))
        finally:
            store.close()

    def status(self, sources: Iterable[str]) -> Status | None:
        """How these stand; None: there are no tables yet.

        Raises:
            SyncError: it cannot be read.
        """
        reader = self._open()
        if reader is None:
            return None
        with reader:
            return reader.status(sources=tuple(sources))

    def runs(self, sources: Iterable[str], seconds: float) -> dict[str, RunRow]:
        """The newest sync of each that began within the last ``seconds``, by the target's clock.

        Raises:
            SyncError: it cannot be read.
        """
        reader = self._open()
        if reader is None:
            return {}
        with reader:
            rows = reader.sessions(
                since=timedelta(seconds=seconds) + _MARGIN,
                sources=tuple(sources),
                limit=_MOST_RUNS,
            )
        found: dict[str, RunRow] = {}
        for row in rows:  # the newest first
            if row.command == "sync":
                found.setdefault(row.source_ip, row)
        return found

    def marks(self, source: str) -> dict[bytes, DatabaseState]:
        """What the target holds of a source, by the databases' keys.

        Raises:
            SyncError: it cannot be read.
        """
        store = self._store()
        if store is None:
            return {}
        try:
            return {state.database_key: state for state in store.database_states(source)}
        finally:
            store.close()

    def lacks(self, reports: Iterable[HostReport]) -> list[HostReport]:
        """Those whose work is not in this target: their hosts' settings name another one.

        Raises:
            SyncError: it cannot be read.
        """
        done = [report for report in reports if _is_work(report)]
        reader = self._open() if done else None
        if reader is None:
            return done
        with reader:
            return [report for report in done if not _holds(reader, report)]

    def _open(self) -> TargetReader | None:
        store = self._store()
        return None if store is None else TargetReader(self._configuration, store)

    def _store(self) -> SqlTarget | None:
        """The target; None where no sync has made its tables yet."""
        found = self._configuration
        if not found.target.exists():
            return None
        store = open_target(found.target, found.target_options(read_only=True))
        self.place = store.place
        try:
            store.ensure_schema()
        except BaseException as error:
            store.close()
            if isinstance(error, SchemaError) and error.code == "schema_missing":
                return None
            raise
        return store


def _is_work(report: HostReport) -> bool:
    """It did something that a target shows."""
    if report.command == "verify":
        return report.databases > 0
    return report.session_id is not None or "run_id" in report.document


def _holds(reader: TargetReader, report: HostReport) -> bool:
    """Whether the target shows it: the run, the audit, or what was compared."""
    if report.command == "audit":
        return any(audit.run_id == report.document["run_id"] for audit in reader.audits())
    if report.session_id is None:
        return bool(reader.databases(sources=(report.source,)))
    try:
        reader.run(report.session_id)
    except SettingsError:
        return False
    return True


def fate(
    run: RunRow | None, *, silent_seconds: float, lease_seconds: float
) -> Literal["wait", "lost", "known"]:
    """What the target says of a host that was lost ``silent_seconds`` ago.

    A run that gives signs of life goes on without us; one whose lease has run out is dead.
    """
    if run is None:
        return "wait" if silent_seconds < _NO_SESSION_SECONDS else "lost"
    if not run.running:
        return "known"
    age = run.heartbeat_age_seconds
    return "wait" if age is not None and age <= lease_seconds else "lost"
