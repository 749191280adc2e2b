"""Which databases a run reads, and why; decided without reading one of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from rubix_token_sync.errors import SourceError
from rubix_token_sync.ipfs.repository import repository_fingerprint
from rubix_token_sync.nodes.discovery import Node, Skipped
from rubix_token_sync.nodes.snapshot import fingerprint
from rubix_token_sync.records.schema import database_key
from rubix_token_sync.targets.base import DatabaseState

__all__ = ["TARGET_DIFFERS", "Plan", "PlanRules", "Planned", "left_out", "make_plan", "observe"]

TARGET_DIFFERS: Final = "target differs"
"""Why a database is read whose records in the target are not as many as a run left there."""

_TELL_OF_NO_DATABASE: Final = frozenset({"no_database", "bare_repository"})
"""Reasons for skipping that say: it was looked, and there is none."""


@dataclass(frozen=True)
class PlanRules:
    """What the user asked for."""

    force: bool = False
    only_failed: bool = False
    """Only databases with failed content, to ask for it again (`retry-failed`)."""
    everything: bool = False
    """Every database, whatever is known of it (`verify`)."""
    recheck: timedelta = timedelta(days=7)
    live: Mapping[bytes, int] | None = None
    """Live records that the target holds of each database, where that was counted."""


@dataclass(frozen=True)
class Observed:
    """A node as it is now: stat calls only."""

    node: Node
    fingerprint: str
    repository_fingerprint: str | None
    size: int
    """Bytes of the database and its write-ahead log."""


@dataclass(frozen=True)
class Planned:
    """A database to read, and the reason."""

    node: Node
    database_key: bytes
    reason: str
    retry_content: bool
    size: int
    """Bytes, for the order and for progress."""
    asked_repository: str | None = None
    """Fingerprint of the repository that was last asked for content that failed."""


@dataclass
class Plan:
    """Every known database is in exactly one of these lists."""

    read: list[Planned] = field(default_factory=list)
    current: list[Node] = field(default_factory=list)
    unreadable: list[tuple[Node, SourceError]] = field(default_factory=list)
    unreachable: list[tuple[DatabaseState, SourceError]] = field(default_factory=list)
    """Known ones that discovery could not get to: nobody knows whether they are still there."""
    missing: list[DatabaseState] = field(default_factory=list)
    """Known ones below the roots that are really gone."""


def observe(node: Node, *, repository: bool) -> Observed:
    """Look at a node's files; its repository only where that can matter.

    Raises:
        SourceError: the database cannot be looked at.
    """
    return Observed(
        node,
        fingerprint(node.db_path),
        repository_fingerprint(node.repository) if repository and node.repository else None,
        os.stat(node.db_path).st_size + _size_if_there(node.db_path + "-wal"),
    )


def _size_if_there(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # most databases have none; reading tells what is wrong with one
        return 0


def left_out(
    path: str, skipped: Iterable[Skipped], roots: Sequence[str], *, exists: Callable[[str], bool]
) -> SourceError | None:
    """Why discovery may have missed the database at ``path``; None when it is really gone.

    ``roots`` are absolute; ``exists`` is `os.path.lexists`.
    """
    for item in skipped:
        if item.reason_code in _TELL_OF_NO_DATABASE:
            continue
        covered = item.path
        if item.reason_code == "stalled":  # the rest of its root was left out, too
            covered = next((root for root in roots if _within(item.path, root)), item.path)
        if _within(path, covered):
            return SourceError(
                f"{path} was not found, because {item.path} was left out. {item.sentence}",
                code=item.reason_code,
                remedy="Its records were left as they are.",
            )
    if exists(path):
        return SourceError(
            f"{path} is there, but discovery did not come to it.",
            code="not_discovered",
            remedy="It lies in what looks like an IPFS repository; its records were left as "
            "they are.",
        )
    return None


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(os.path.join(directory, ""))


def make_plan(
    source: str,
    nodes: Iterable[Node],
    states: Sequence[DatabaseState],
    rules: PlanRules,
    *,
    now: datetime,
    inside: Callable[[str], bool],
    missed: Callable[[str], SourceError | None] = lambda _path: None,
    look: Callable[..., Observed] = observe,
) -> Plan:
    """Compare what is on disk with what the target says it holds.

    ``inside`` tells whether a path lies below the roots of this run: databases
    elsewhere are none of its business.  ``missed`` tells why a known database may
    have been overlooked (`left_out`).  ``now`` is UTC without a zone; ``look`` is
    `observe`.
    """
    plan = Plan()
    known = {state.database_key: state for state in states}
    for node in nodes:
        key = database_key(source, node.db_path)
        state = known.pop(key, None)
        if state is None and rules.only_failed:
            continue  # a database for `sync`; nothing is known of it that could be called current
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
            failed = state is not None and state.ipfs_fail_count > 0
            before = state.repository_fingerprint if state is not None and failed else None
            plan.read.append(Planned(node, key, reason, retry, seen.size, before))
        else:
            plan.current.append(node)
    for state in known.values():
        if inside(state.db_path):
            reason_missed = missed(state.db_path)
            if reason_missed is not None:
                plan.unreachable.append((state, reason_missed))
            else:
                plan.missing.append(state)
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
    if rules.live is not None and rules.live.get(state.database_key, 0) != state.record_count:
        return TARGET_DIFFERS, due
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
