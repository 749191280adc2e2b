"""The past of a target: what it held, what each run changed, how much of that is kept."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Unpack

import sqlalchemy as sa

from rubix_token_sync.audit.rules import RULES
from rubix_token_sync.audit.token_view import TokenView, read_token
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.history.change_counts import (
    ChangeCounts,
    CountedChanges,
    count_changes,
    count_newest_changes,
)
from rubix_token_sync.history.changes import Change, read_changes
from rubix_token_sync.history.database_changes import DatabaseName, count_database_changes
from rubix_token_sync.history.moments import Runs, WhenText, ended_runs, runs_until
from rubix_token_sync.history.parts import ChangeFilters, unpruned
from rubix_token_sync.history.prune import Pruned
from rubix_token_sync.history.prune import prune_history as prune
from rubix_token_sync.history.versions import (
    PastDatabase,
    Version,
    databases_as_of,
    records_as_of,
    versions_of,
)
from rubix_token_sync.library.auditing import writable
from rubix_token_sync.library.configuration import CallSettings, configured
from rubix_token_sync.monitor.databases import DatabaseRow
from rubix_token_sync.records.schema import RECORDS
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["ChangeFeed", "PastReader", "prune_history"]


class ChangeFeed:
    """Changes of the runs that ended after a moment; may be iterated several times.

    Attributes:
        since: the cursor from which it goes on.
        cursor: where the next feed goes on: after every run of this one.
    """

    def __init__(self, store: SqlTarget, since: Runs, until: Runs, filters: ChangeFilters) -> None:
        self._store, self._filters = store, filters
        self._since, self._until = since, until
        self.since, self.cursor = str(since), str(until)

    def __iter__(self) -> Iterator[Change]:
        """Run by run, in the order of their numbers; memory holds a block of changes."""
        with self._store.view() as conn:
            yield from read_changes(
                conn, self._store.tables, self._since, self._until, self._filters
            )

    def first(self, number: int) -> list[Change]:
        """The first so many of them; nothing more is read."""
        with self._store.view() as conn:
            found = read_changes(
                conn, self._store.tables, self._since, self._until, self._filters,
                block=number, first=number,
            )  # fmt: skip
            with contextlib.closing(found):
                return list(itertools.islice(found, number))

    def counts(self, *, by_run: bool = False) -> list[ChangeCounts]:
        """How many there are of each node (``by_run``: and of each run)."""
        return self._store.read(
            lambda conn: count_changes(
                conn, self._store.tables, self._since, self._until, self._filters, by_run=by_run
            )
        )

    def newest_counts(self) -> CountedChanges:
        """`counts` of the newest runs, as many as can be counted at once; it says from which on."""
        return self._store.read(
            lambda conn: count_newest_changes(
                conn, self._store.tables, self._since, self._until, self._filters
            )
        )

    def cursor_after(self, change: Change) -> str:
        """Where to go on once every change of this one's run was dealt with."""
        return str(self._since | self._until.cut(change.run))


class PastReader:
    """The part of `TargetReader` that looks back.

    A moment (``as_of``, ``since``) is a run's number, a cursor, an age (`timedelta` or text as
    ``24h``), or a time in UTC (`datetime` or text as ``2026-11-24``).  It stands for the runs
    that had ended then.
    """

    _store: SqlTarget

    def changes(
        self,
        since: WhenText,
        *,
        sources: Sequence[str] = (),
        nodes: Sequence[str] = (),
        databases: Sequence[str] = (),
        columns: Sequence[str] = (),
    ) -> ChangeFeed:
        """What the runs changed that have ended since then, as far as no run is under way.

        Raises:
            SettingsError: there is no such moment or column, or its history was removed.
        """
        known = {column.name for column in RECORDS.told_apart}
        if unknown := sorted(set(columns) - known):
            raise SettingsError(
                f"History knows no column {', '.join(unknown)}.",
                code="unknown_column",
                remedy=f"These are compared: {', '.join(sorted(known))}.",
            )
        filters = ChangeFilters(sources, nodes, databases, frozenset(columns))
        start, end = self._store.read(lambda conn: self._span(conn, since))
        return ChangeFeed(self._store, start, end, filters)

    def database_changes(self, databases: Sequence[DatabaseRow], since: WhenText) -> CountedChanges:
        """What each run did to the records of these, which `TargetReader.databases` gave.

        As `changes` with its counts of each run, but bounded: where a database has changed much,
        the newest runs are counted.

        Raises:
            SettingsError: there is no such moment, or its history was removed.
        """
        names = [DatabaseName(one.source_ip, one.node_name, one.db_path) for one in databases]
        return self._store.read(
            lambda conn: count_database_changes(
                conn, self._store.tables, names, *self._span(conn, since)
            )
        )

    def _span(self, conn: sa.Connection, since: WhenText) -> tuple[Runs, Runs]:
        """The runs that had ended then, and those that have ended now."""
        now = self._store.database.time(conn)
        start = runs_until(conn, self._store.tables, since, now)
        unpruned(conn, self._store.tables, start)
        return start, start | ended_runs(conn, self._store.tables, now, now)

    def history(
        self, token_id: str, *, sources: Sequence[str] = (), nodes: Sequence[str] = ()
    ) -> list[Version]:
        """Every version of a token that is kept, holder by holder, the oldest first."""
        return self._store.read(
            lambda conn: versions_of(
                conn, self._store.tables, token_id=token_id, sources=sources, nodes=nodes
            )
        )

    def token_as_of(self, token_id: str, as_of: WhenText) -> TokenView:
        """`TargetReader.token` as it would have answered then; findings are those of today.

        Raises:
            SettingsError: there is no such moment, or its history was removed.
        """
        runs, tables = self._moment(as_of), self._store.tables
        records = records_as_of(tables, runs)
        now = self._store.server_time()
        return self._store.read(
            lambda conn: read_token(conn, tables, RULES, token_id, now, records=records)
        )

    def databases_as_of(
        self, as_of: WhenText, *, sources: Sequence[str] = (), nodes: Sequence[str] = ()
    ) -> list[PastDatabase]:
        """What the target held of each database then, counted from its records.

        Raises:
            SettingsError: there is no such moment, or its history was removed.
        """
        runs = self._moment(as_of)
        return self._store.read(
            lambda conn: databases_as_of(
                conn, self._store.tables, runs, sources=sources, nodes=nodes
            )
        )

    def _moment(self, as_of: WhenText) -> Runs:
        def ask(conn: sa.Connection) -> Runs:
            now = self._store.database.time(conn)
            runs = runs_until(conn, self._store.tables, as_of, now)
            unpruned(conn, self._store.tables, runs)
            return runs

        return self._store.read(ask)


def prune_history(older_than: timedelta, **settings: Unpack[CallSettings]) -> Pruned:
    """Remove versions of records that ended so long ago, but for what open findings rest on.

    Raises:
        LeaseHeld: somebody else is at it.
        TargetError: the target cannot be used, or no sync has made its tables.
    """
    with writable(configured(**settings)) as store:
        return prune(store, older_than)
