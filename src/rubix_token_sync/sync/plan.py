"""Which databases a run reads, and why; decided without reading one of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rubix_token_sync.discovery import Node
from rubix_token_sync.errors import SourceError
from rubix_token_sync.ipfs.repository import repository_fingerprint
from rubix_token_sync.records import database_key
from rubix_token_sync.source import fingerprint
from rubix_token_sync.store.base import DatabaseState

__all__ = ["Plan", "PlanRules", "Planned", "make_plan", "observe"]


@dataclass(frozen=True)
class PlanRules:
    """What the user asked for."""

    force: bool = False
    only_failed: bool = False
    """Only databases with failed content, to ask for it again (`retry-failed`)."""
    everything: bool = False
    """Every database, whatever is known of it (`verify`)."""
    recheck: timedelta = timedelta(days=7)


@dataclass(frozen=True)
class Observed:
    """A node as it is now: stat calls only."""

    node: Node
    fingerprint: str
    repository_fingerprint: str | None
    size: int


@dataclass(frozen=True)
class Planned:
    """A database to read, and the reason."""

    node: Node
    database_key: bytes
    reason: str
    retry_content: bool
    size: int
    """Bytes, for the order and for progress."""


@dataclass
class Plan:
    """Every known database is in exactly one of these lists."""

    read: list[Planned] = field(default_factory=list)
    current: list[Node] = field(default_factory=list)
    unreadable: list[tuple[Node, SourceError]] = field(default_factory=list)
    missing: list[DatabaseState] = field(default_factory=list)


def observe(node: Node, *, repository: bool) -> Observed:
    """Look at a node's files; its repository only where that can matter.

    Raises:
        SourceError: the database cannot be looked at.
    """
    return Observed(
        node,
        fingerprint(node.db_path),
        repository_fingerprint(node.repository) if repository and node.repository else None,
        os.stat(node.db_path).st_size,
    )


def make_plan(
    source: str,
    nodes: Iterable[Node],
    states: Sequence[DatabaseState],
    rules: PlanRules,
    *,
    now: datetime,
    inside: Callable[[str], bool],
    look: Callable[..., Observed] = observe,
) -> Plan:
    """Compare what is on disk with what the target says it holds.

    ``inside`` tells whether a path lies below the roots of this run: databases
    elsewhere are none of its business.  ``now`` is UTC without a zone; ``look`` is `observe`.
    """
    plan = Plan()
    known = {state.database_key: state for state in states}
    for node in nodes:
        key = database_key(source, node.db_path)
        state = known.pop(key, None)
        try:
            seen = look(node, repository=state is not None and state.ipfs_fail_count > 0)
        except SourceError as error:
            plan.unreadable.append((node, error))
            continue
        except OSError as error:
            plan.unreadable.append((node, _unseen(node, error)))
            continue
        reason, retry = _decide(seen, state, rules, now)
        if reason:
            plan.read.append(Planned(node, key, reason, retry, seen.size))
        else:
            plan.current.append(node)
    plan.missing = [state for state in known.values() if inside(state.db_path)]
    plan.read.sort(key=lambda planned: (-planned.size, planned.node.db_path))
    return plan


def _decide(
    seen: Observed, state: DatabaseState | None, rules: PlanRules, now: datetime
) -> tuple[str, bool]:
    """Why to read it ('' = not at all), and whether to ask again for failed content."""
    if rules.everything:
        return "verify", False
    if state is None or state.fingerprint is None:
        return ("", False) if rules.only_failed else ("new", True)
    failed = state.ipfs_fail_count > 0
    if rules.only_failed:
        return ("failed content", True) if failed else ("", False)
    moved = (seen.node.repository or "")[:500] != (state.ipfs_path or "")
    checked = state.content_checked_at
    due = failed and (
        moved
        or seen.repository_fingerprint != state.repository_fingerprint
        or checked is None
        or now - checked > rules.recheck
    )
    if seen.fingerprint != state.fingerprint:
        return "changed", due
    if moved or (seen.node.name != state.node_name):
        return "moved", due
    if due:
        return "content may have come", True
    return ("forced", due) if rules.force else ("", False)


def _unseen(node: Node, error: OSError) -> SourceError:
    return SourceError(
        f"{node.db_path} cannot be looked at: {error.strerror}.",
        code="access_denied" if isinstance(error, PermissionError) else "io_error",
        remedy="Run as the user that owns the node.",
    )
