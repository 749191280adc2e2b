"""Answers a page at a time: what a list shows, bounded however large the target is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal, TypedDict, Unpack

from rubix_token_sync.audit.finding_pages import (
    FindingCount,
    FindingPage,
    count_findings,
    find_findings,
)
from rubix_token_sync.audit.findings import OPEN
from rubix_token_sync.audit.questions import FindingFilters
from rubix_token_sync.audit.rules import RULES
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.monitor.answers import at_one_moment
from rubix_token_sync.monitor.events import EventFilters, EventPage, list_events
from rubix_token_sync.monitor.failure_counts import (
    FailureCounts,
    count_failures,
    more_stored_since,
)
from rubix_token_sync.monitor.failures import FailureReport, report_of
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.monitor.nights import Night, list_nights
from rubix_token_sync.monitor.rounds import Round, read_round
from rubix_token_sync.monitor.runs import STUCK_SECONDS, RunView, read_run
from rubix_token_sync.monitor.tokens import TokenFilters, TokenPage, find_tokens
from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["Category", "FindingSearch", "PageReader", "TokenSearch"]

Category = Literal["ipfs", "database", "validation", "system"]


class TokenSearch(TypedDict, total=False):
    """Which records; without any of these, all that the nodes have.

    ``token`` and ``did`` are whole ids, or with ``*`` at their end the beginning of ids.
    ``level`` and ``number`` are those of whole tokens.  ``content`` is ``yes``, ``no`` or the
    code of a reason why there is none; ``invalid`` is ``yes`` or the code of a validation error;
    ``verdicts`` may hold ``none``.  ``gone`` False (where nothing is said) keeps what the nodes
    still have, True what has vanished from them, None both.
    """

    token: str | None
    did: str | None
    sources: Sequence[str]
    nodes: Sequence[str]
    databases: Sequence[str]
    kinds: Sequence[str]
    statuses: Sequence[str]
    verdicts: Sequence[str]
    level: int | None
    number: int | None
    content: str | None
    invalid: str | None
    gone: bool | None


class FindingSearch(TypedDict, total=False):
    """Which findings, as in `TargetReader.findings`."""

    severities: Sequence[str]
    rules: Sequence[str]
    nodes: Sequence[str]
    states: Sequence[str]
    since: timedelta | None


class PageReader:
    """The part of `TargetReader` that lists are made of."""

    _store: SqlTarget

    def find_tokens(
        self,
        *,
        after: str | None = None,
        limit: int = 50,
        seconds: float = 0.15,
        **search: Unpack[TokenSearch],
    ) -> TokenPage:
        """One page of the records that are looked for.

        ``after`` is the ``next`` of the page before.  What no index answers is looked for so
        many ``seconds``; the page says where to go on.

        Raises:
            SettingsError: ``after`` is not such a cursor.
        """
        if unknown := search.keys() - TokenSearch.__annotations__.keys():
            raise TypeError(f"tokens have no filter {', '.join(sorted(unknown))}")
        filters = TokenFilters(
            **{
                name: tuple(value) if isinstance(value, list | tuple) else value  # type: ignore[arg-type]
                for name, value in search.items()
            }
        )
        return self._store.read(
            lambda conn: find_tokens(
                conn, self._store.tables, filters, after=after, limit=limit, seconds=seconds
            )
        )

    def find_findings(
        self, *, after: str | None = None, limit: int = 50, **search: Unpack[FindingSearch]
    ) -> FindingPage:
        """One page of findings, the worst first; ``after`` is the ``next`` of the page before.

        Raises:
            SettingsError: ``after`` names no finding.
        """
        now, filters = self._store.server_time(), _findings(search, limit)
        return self._store.read(
            lambda conn: find_findings(conn, self._store.tables, RULES, filters, now, after=after)
        )

    def count_findings(self, **search: Unpack[FindingSearch]) -> list[FindingCount]:
        """How many findings there are of each rule and state, the worst and most first."""
        now, filters = self._store.server_time(), _findings(search, None)
        return self._store.read(lambda conn: count_findings(conn, self._store.tables, filters, now))

    def more_stored_since(self, since: timedelta, most: int) -> bool:
        """More than ``most`` records were stored since then."""
        return at_one_moment(
            self._store, lambda asked, now: more_stored_since(asked, since, now, most)
        )

    def failure_counts(
        self, *, since: timedelta | None = None, by_node: bool = True
    ) -> FailureCounts:
        """What failed, counted once for every question that `errors_of` answers; see `errors`."""
        filters = Filters(since)
        return at_one_moment(
            self._store, lambda asked, now: count_failures(asked, filters, now, by_node=by_node)
        )

    def errors_of(
        self,
        counted: FailureCounts,
        *,
        sources: Sequence[str] = (),
        nodes: Sequence[str] = (),
        category: Category | None = None,
        limit: int = 20,
    ) -> FailureReport:
        """`errors` as of the moment of ``counted``; only examples are asked for."""
        filters = Filters(None, tuple(nodes), tuple(sources), category, (), limit)
        return at_one_moment(self._store, lambda asked, _now: report_of(asked, counted, filters))

    def events(
        self,
        *,
        session_id: str | None = None,
        categories: Sequence[str] = (),
        codes: Sequence[str] = (),
        sources: Sequence[str] = (),
        nodes: Sequence[str] = (),
        before: int | None = None,
        limit: int = 50,
    ) -> EventPage:
        """One page of the errors that runs wrote down, the newest first."""
        filters = EventFilters(
            session_id, tuple(categories), tuple(codes), tuple(sources), tuple(nodes)
        )
        return list_events(self._store, filters, before=before, limit=limit)

    def current_round(self) -> Round | None:
        """What machines do at the same time, now; None: no run is under way."""
        return at_one_moment(self._store, read_round)

    def run(
        self, session_id: str, *, stuck_after: timedelta = timedelta(seconds=STUCK_SECONDS)
    ) -> RunView:
        """One run, and what it did to each node.

        Raises:
            SettingsError: there is no such run.
        """
        stuck = stuck_after.total_seconds()
        found = at_one_moment(
            self._store, lambda asked, now: read_run(asked, session_id, now, stuck_seconds=stuck)
        )
        if found is None:
            raise SettingsError(
                "The target has no run with this id.",
                code="no_such_session",
                remedy="`rubix-token-sync sessions --json` lists them with their whole ids.",
            )
        return found

    def nights(self, *, days: int = 371, sources: Sequence[str] = ()) -> list[Night]:
        """Days with at least one sync, the newest first: how each went and what it changed."""
        return at_one_moment(
            self._store, lambda asked, now: list_nights(asked, now, days=days, sources=sources)
        )


def _findings(search: FindingSearch, limit: int | None) -> FindingFilters:
    return FindingFilters(
        severities=tuple(search.get("severities", ())),
        rules=tuple(search.get("rules", ())),
        nodes=tuple(search.get("nodes", ())),
        states=tuple(search.get("states", OPEN)),
        since=search.get("since"),
        limit=limit,
    )
