"""The views, one module each: what is asked, and what it looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rubix_token_sync.web.desk import Desk
from rubix_token_sync.web.frame import Answer
from rubix_token_sync.web.query import Query
from rubix_token_sync.web.views import (
    changes,
    errors,
    evidence,
    findings,
    fleet,
    nodes,
    runs,
    token,
    tokens,
)

__all__ = ["VIEWS", "View"]


@dataclass(frozen=True)
class View:
    """One address, in its three forms."""

    path: str
    ask: Callable[[Desk, Query], Answer]
    parameters: tuple[str, ...] = ()
    """Every one that it takes."""
    kept: bool = True
    """Its answer is given to all viewers while it is young."""
    says_unread: bool = True
    """It says what the last sync did not read; False: that is what it shows, or not about it."""


VIEWS: Final = (
    View("/fleet", fleet.ask, says_unread=False),
    View("/nodes", nodes.ask_all, nodes.LIST_PARAMETERS, says_unread=False),
    View("/node", nodes.ask_one, nodes.PARAMETERS),
    View("/runs", runs.ask_all, runs.LIST_PARAMETERS, says_unread=False),
    View("/run", runs.ask_one, runs.PARAMETERS, says_unread=False),
    View("/tokens", tokens.ask, tokens.PARAMETERS, kept=False),
    View("/token", token.ask, token.PARAMETERS, kept=False),
    View("/findings", findings.ask_all, findings.LIST_PARAMETERS),
    View("/finding", findings.ask_one, findings.PARAMETERS),
    View("/errors", errors.ask, errors.PARAMETERS),
    View("/events", errors.ask_events, errors.EVENT_PARAMETERS, says_unread=False),
    View("/changes", changes.ask, changes.PARAMETERS),
    View("/evidence", evidence.ask, says_unread=False),
)
