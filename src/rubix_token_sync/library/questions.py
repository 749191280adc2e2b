"""One question to a target: opened, asked, closed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Unpack

from rubix_token_sync.library.browsing import Category
from rubix_token_sync.library.configuration import CallSettings
from rubix_token_sync.library.reader import open_target
from rubix_token_sync.monitor.databases import DatabaseRow
from rubix_token_sync.monitor.failures import FailureReport
from rubix_token_sync.monitor.health import Status
from rubix_token_sync.monitor.runs import RunRow

__all__ = ["databases", "failures", "sessions", "status"]


def status(
    *,
    sources: Sequence[str] = (),
    nodes: Sequence[str] = (),
    max_age: timedelta | None = None,
    **settings: Unpack[CallSettings],
) -> Status:
    """`TargetReader.status` of the target that the settings name."""
    with open_target(**settings) as reader:
        return reader.status(sources=sources, nodes=nodes, max_age=max_age)


def sessions(
    *,
    since: timedelta | None = None,
    sources: Sequence[str] = (),
    statuses: Sequence[str] = (),
    limit: int = 20,
    **settings: Unpack[CallSettings],
) -> list[RunRow]:
    """`TargetReader.sessions` of the target that the settings name."""
    with open_target(**settings) as reader:
        return reader.sessions(since=since, sources=sources, statuses=statuses, limit=limit)


def databases(
    *,
    since: timedelta | None = None,
    sources: Sequence[str] = (),
    nodes: Sequence[str] = (),
    max_age: timedelta | None = None,
    **settings: Unpack[CallSettings],
) -> list[DatabaseRow]:
    """`TargetReader.databases` of the target that the settings name."""
    with open_target(**settings) as reader:
        return reader.databases(since=since, sources=sources, nodes=nodes, max_age=max_age)


def failures(
    *,
    since: timedelta | None = None,
    sources: Sequence[str] = (),
    nodes: Sequence[str] = (),
    category: Category | None = None,
    limit: int = 20,
    **settings: Unpack[CallSettings],
) -> FailureReport:
    """`TargetReader.errors` of the target that the settings name.

    (`rubix_token_sync.errors` is the module of this program's exceptions.)
    """
    with open_target(**settings) as reader:
        return reader.errors(
            since=since, sources=sources, nodes=nodes, category=category, limit=limit
        )
