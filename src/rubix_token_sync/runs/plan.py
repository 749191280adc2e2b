"""Which databases a run reads, and why; decided without reading one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from rubix_token_sync import node_files
from rubix_token_sync.errors import SourceError
from rubix_token_sync.ipfs.repository import repository_fingerprint
from rubix_token_sync.nodes.discovery import Node
from rubix_token_sync.nodes.kinds import as_read, chains_network, network_of
from rubix_token_sync.nodes.skipped import REMEDIES, Skipped
from rubix_token_sync.nodes.snapshot import look_at
from rubix_token_sync.records.companions import CHAINS
from rubix_token_sync.records.schema import database_key
from rubix_token_sync.targets.base import DatabaseState

__all__ = [
    "TARGET_DIFFERS",
    "Plan",
    "PlanRules",
    "Planned",
    "inside",
    "left_out",
    "make_plan",
    "observe",
]

TARGET_DIFFERS: Final = "target differs"
"""Why a database is read whose records in the target are not as many as a run left there."""

_NO_DATABASE_THERE: Final = frozenset({"no_database", "bare_repository"})
"""Reasons for skipping that say: somebody looked, and there is none."""


@dataclass(frozen=True)
class PlanRules:
    """What the user asked for."""

    force: bool = False
    only_failed: bool = False
    """Only databases with failed content, to ask for it again (`retry-failed`)."""
    everything: bool = False
    """Every database, whatever is known of it (`verify`)."""
    recheck: timedelta = timedelta(days=7)
    live: Mapping[bytes, Mapping[str, int]] | None = None
    """Live rows that the target holds of each database, by table, where that was counted."""
    chains: bool = False
    """Read the token chains, too."""


@dataclass(frozen=True)
class Observed:
    """A node as it is now; none of its rows was read."""

    node: Node
    fingerprint: str
    repository_fingerprint: str | None
    size: int
    """Bytes of the database, its write-ahead log and journal."""
    chains: str | None = None
    """Fingerprint of the token chains; None: not looked at, or they cannot be."""


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
    held: Mapping[str, int] | None = None
    """Live rows that the target holds of it in companion tables; None: not known."""
    chains: str | None = None
    """Fingerprint of the chains that the target holds."""


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


def observe(node: Node, *, repository: bool, chains: bool = False) -> Observed:
    """Look at a node's files; its repository and chains only where they can matter.

    Raises:
        SourceError: the database cannot be looked at.
    """
    files, size = look_at(node.db_path)
    fingerprint = as_read(files, network_of(node.db_path))
    seen = repository_fingerprint(node.repository) if repository and node.repository else None
    written = _chains(node) if chains else None
    return Observed(node, fingerprint, seen, size, written)


def _chains(node: Node) -> str | None:
    from rubix_token_sync.nodes.chains import chains_fingerprint  # few runs read chains

    try:
        return chains_fingerprint(node.db_path, chains_network(network_of(node.db_path)))
    except SourceError:  # whoever reads them says why
        return None


def left_out(path: str, skipped: Iterable[Skipped]) -> SourceError | None:
    """Why discovery may have missed the database at ``path``; None when it is really gone."""
    for item in skipped:
        if item.reason_code not in _NO_DATABASE_THERE and _within(path, item.path):
            return SourceError(
                f"{path} was not found, because {item.path} was left out. {item.sentence} "
                "Its records were left as they are.",
                code=item.reason_code,
                remedy=item.remedy,
            )
    try:
        node_files.lstat(path)
    except SourceError as error:
        return error
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        denied = isinstance(error, PermissionError)
        return SourceError(
            f"{path} cannot be looked at: {error.strerror}. Its records were left as they are.",
            code="access_denied" if denied else "io_error",
            remedy=REMEDIES["access_denied" if denied else "io_error"],
        )
    return SourceError(
        f"{path} exists, but discovery did not reach it. Its records were left as they are.",
        code="not_discovered",
        remedy="It lies in what looks like an IPFS repository, or not in a directory named Rubix: "
        "move it to where a node has it.",
    )


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def inside(roots: Iterable[str]) -> Callable[[str], bool]:
    """Whether a path lies below one of the roots (`Discovery.roots`)."""
    above = tuple(root.rstrip("/") + "/" for root in roots)
    return lambda path: path.startswith(above)


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

    A database keeps the spelling of its path that the target knows, whichever way
    leads to it now: paths are part of the records' keys.

    Args:
        source: name of this machine in the target.
        nodes: what discovery found.
        states: what the target holds.
        rules: what the user asked for.
        now: UTC without a zone.
        inside: whether a path lies below the roots of this run; databases elsewhere are
            left alone.
        missed: why a known database may have been overlooked (`left_out`).
        look: `observe`.
    """
    plan = Plan()
    known = {state.database_key: state for state in states}
    for node in _as_known(source, list(nodes), known.values()):
        key = database_key(source, node.db_path)
        state = known.pop(key, None)
        if state is None and rules.only_failed:
            continue  # a database for `sync`; nothing is known of it that could be called current
        try:
            seen = look(
                node,
                repository=state is not None and state.ipfs_fail_count > 0,
                chains=rules.chains and state is not None,
            )
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
            held = state.companions if state is not None and state.fingerprint else None
            chains = state.chains_fingerprint if state is not None else None
            plan.read.append(Planned(node, key, reason, retry, seen.size, before, held, chains))
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


def _as_known(
    source: str, nodes: Sequence[Node], states: Iterable[DatabaseState]
) -> Iterator[Node]:
    """The nodes, with the spelling of the path under which the target knows their database.

    A place can have several: links, mounts and bind mounts, and upper and lower case on
    some file systems.  Two that lead to one file are one place.
    """
    keys = {database_key(source, node.db_path) for node in nodes}
    known = {state.database_key for state in states}
    spelled = {
        identity: state.db_path
        for state in (states if keys - known else ())
        if state.database_key not in keys and (identity := _identity(state.db_path)) is not None
    }
    for node in nodes:
        if spelled and database_key(source, node.db_path) not in known:
            stored = spelled.get(_identity(node.db_path) or (0, 0))
            yield replace(node, db_path=stored) if stored is not None else node
        else:
            yield node


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = node_files.stat(path)
    except (OSError, SourceError):  # gone, or not to be seen: no spelling to go by
        return None
    return status.st_dev, status.st_ino


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
    if rules.live is not None and _differs(rules.live, state, chains=rules.chains):
        return TARGET_DIFFERS, due
    if seen.fingerprint != state.fingerprint:
        return "changed", due
    if moved or (seen.node.name != state.node_name):
        return "moved", due
    if rules.chains and (seen.chains is None or seen.chains != state.chains_fingerprint):
        return "chains changed", due
    if due:
        return "content may have come", True
    return ("forced", due) if rules.force else ("", False)


def _differs(
    live: Mapping[bytes, Mapping[str, int]], state: DatabaseState, *, chains: bool
) -> bool:
    """Whether the target holds more or fewer rows of a database than a run left there.

    Only a run that reads chains can mend those.
    """
    held = live.get(state.database_key, {})
    return any(
        held.get(table, 0) != count
        for table, count in state.counts.items()
        if chains or table != CHAINS.name
    )


def _unseen(node: Node, error: OSError) -> SourceError:
    return SourceError(
        f"{node.db_path} cannot be looked at: {error.strerror}.",
        code="access_denied" if isinstance(error, PermissionError) else "io_error",
        remedy="Run as the user that owns the node.",
    )
