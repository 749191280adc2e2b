"""Everything a run needs, tested through the run's own code paths."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa

from rubix_token_sync.errors import SyncError, TargetError
from rubix_token_sync.ipfs.cures import CURES, curable
from rubix_token_sync.ipfs.fetch import ContentOptions, open_chain
from rubix_token_sync.nodes.discovery import Node, discover
from rubix_token_sync.nodes.snapshot import open_snapshot
from rubix_token_sync.process_identity import own_holder, own_machine
from rubix_token_sync.records.kinds import tokens_by_kind
from rubix_token_sync.records.schema import RECORD_SCHEMA, database_key, record_key
from rubix_token_sync.scratch import Scratch
from rubix_token_sync.settings import Settings, describe
from rubix_token_sync.targets.base import (
    SCHEMA_VERSION,
    Chunk,
    DatabaseMark,
    Lease,
    Target,
    TargetOptions,
)
from rubix_token_sync.targets.registry import TargetAddress, open_target
from rubix_token_sync.text import counted

__all__ = ["CheckResult", "run_checks"]

_CHECK_SOURCE = "rubix-token-sync check"
_CLOCK_SECONDS = 60
_SAMPLE = 20


@dataclass(frozen=True)
class CheckResult:
    """One thing that was tested."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    code: str = ""
    exit_code: int = 1
    warning: bool = False
    """It works, and somebody should look at it; with ``strict`` a node's warning is not ok."""


class _Warned(str):
    """The detail of a check that passed, and that somebody should read."""


def run_checks(
    settings: Settings,
    target: TargetAddress,
    store_options: TargetOptions,
    content: ContentOptions,
    roots: Sequence[str],
    notes: Sequence[str] = (),
) -> list[CheckResult]:
    """All checks, in the order of a run; those that need what failed are left out."""
    given = [f"{d.name} ({d.origin})" for d in describe(settings) if d.origin != "default"]
    results = [CheckResult("settings", True, ", ".join(given) or "all defaults")]
    results += [CheckResult("note", True, note, warning=True) for note in notes]
    try:
        store = open_target(target, store_options)
    except SyncError as error:
        results.append(_failed("target", error))
    else:
        try:
            results += _check_target(store, settings)
        finally:
            store.close()
    if roots:
        nodes = _check_nodes(roots, content, settings.scratch, settings.max_missing_content)
        results += [
            replace(one, ok=False) if one.warning and settings.strict else one for one in nodes
        ]
    return results


def _failed(name: str, error: SyncError) -> CheckResult:
    return CheckResult(name, False, error.message, error.remedy, error.code, error.exit_code)


def _check_target(store: Target, settings: Settings) -> Iterator[CheckResult]:
    steps: list[tuple[str, Callable[[], str]]] = [
        ("connection", lambda: _connect(store)),
        ("schema", lambda: _schema(store)),
        ("clock", lambda: _clock(store)),
        ("source", lambda: _source(store, settings.source_ip)),
        ("lease", lambda: _leases(store, settings.source_ip)),
    ]
    loads = ("load small", "load bulk") if store.bulk_differs else ("load",)
    trial = _Trial(store)
    steps += [(name, partial(trial.load, bulk=name == "load bulk")) for name in loads]
    try:
        for name, step in steps:
            try:
                said = step()
                if name == loads[-1]:  # what was loaded goes again: that is tried out, too
                    trial.end()
                    said += ", removed"
                yield CheckResult(name, True, said, warning=isinstance(said, _Warned))
            except SyncError as error:
                yield _failed(name, error)
                if isinstance(error, TargetError):
                    return
    finally:
        trial.give_up()


def _connect(store: Target) -> str:
    return f"{store.place}: {store.describe_connection()}"


def _schema(store: Target) -> str:
    before = store.schema_version()
    changed = before != SCHEMA_VERSION and store.ensure_schema()
    if not changed:
        return f"version {before}"
    return f"upgraded from version {before}" if before else "created: the target had no tables"


def _clock(store: Target) -> str:
    behind = (datetime.now(UTC).replace(tzinfo=None) - store.server_time()).total_seconds()
    if abs(behind) > _CLOCK_SECONDS:
        return _Warned(
            f"this machine's clock differs from the server's by {behind:+.0f} s; runs use the "
            "server's, but times in logs will not match"
        )
    return f"within {max(0.1, abs(behind)):.1f} s of the target's"


def _source(store: Target, source: str) -> str:
    ours = store.check_source(source, own_machine())
    return f"{source} {'belongs to this machine' if ours else 'is free'}"


def _leases(store: Target, source: str) -> str:
    running = [lease for lease in store.leases() if lease.source == source]
    return f"a run of {source} is under way" if running else f"free for source {source}"


class _Trial:
    """Lease, stage, publish, mark, retire and remove some records: a run in small."""

    def __init__(self, store: Target) -> None:
        self._store = store
        source = f"{_CHECK_SOURCE} {uuid.uuid4().hex[:8]}"
        self._lease = Lease(source, str(uuid.uuid4()))
        self._key = database_key(source, "check")
        self._loaded = 0
        self._held = False

    def load(self, *, bulk: bool) -> str:
        """As the first step, or as another way of loading more."""
        if not self._held:
            self._store.acquire_lease(self._lease, own_holder())
            self._held = True
        source, first = self._lease.source, self._loaded
        count = 3 if self._store.bulk_differs and not bulk else 50
        published = self._store.publish(
            self._lease,
            Chunk(
                _records(source, self._key, range(first, first + count)),
                mark=_mark(source, self._key, first + count),
                bulk=bulk,
            ),
        )
        self._loaded += count
        done = f"{counted(published.inserted, 'record')}: stored, counted, marked"
        if not self._store.bulk_differs:
            return done
        return f"by {'bulk load' if published.bulk_loads else 'parameterised batch'}, {done}"

    def end(self) -> None:
        """Take back all of it."""
        self._store.retire_database(self._lease, self._key)
        self._store.withdraw(self._lease, self._key)
        self._held = False

    def give_up(self) -> None:
        """After an error: nothing is left in the target, as far as it can be helped."""
        if self._held:
            with contextlib.suppress(SyncError):  # the error that is reported came before
                self._store.withdraw(self._lease, self._key)


def _records(source: str, key: bytes, numbers: range) -> pa.RecordBatch:
    values = {
        "source_ip": source,
        "node_name": "check",
        "token_id": "check ü €",
        "db_path": "check",
        "ipfs_data": "x" * 100,
        "ipfs_fetched": True,
        "db_last_modified": datetime(2025, 1, 1),
        "token_kind": "rbt",
    }
    rows = [
        {**values, "record_key": record_key(key, str(n)), "row_digest": bytes(16)} for n in numbers
    ]
    return pa.RecordBatch.from_pylist(rows, schema=RECORD_SCHEMA)


def _mark(source: str, key: bytes, count: int) -> DatabaseMark:
    return DatabaseMark(
        database_key=key,
        source_ip=source,
        node_name="check",
        db_path="check",
        ipfs_path=None,
        fingerprint="check",
        repository_fingerprint=None,
        last_modified=datetime(2025, 1, 1),
        record_count=count,
        rejected_count=0,
        processing_duration_seconds=0.0,
    )


def _check_nodes(
    roots: Sequence[str],
    content: ContentOptions,
    scratch: str | None,
    max_missing_content: float,
) -> Iterator[CheckResult]:
    found = discover(roots)
    databases = counted(len(found.nodes), "database")
    if found.nodes:
        yield CheckResult("discovery", True, databases)
    else:
        said = f"no node database was found below {', '.join(roots)}"
        remedy = "`rubix-token-sync discover` says what was skipped, and why."
        yield CheckResult("discovery", True, said, remedy, "no_nodes", warning=True)
    for skipped in found.skipped:
        hides = skipped.hides_nodes
        yield CheckResult(
            "skipped",
            not hides,
            f"{skipped.path}: {skipped.sentence}",
            skipped.remedy,
            skipped.reason_code if hides else "",
        )
    place = Scratch(scratch, tuple(roots))
    for node in found.nodes:
        yield _check_node(node, replace(content, scratch=place), place, max_missing_content)


def _check_node(
    node: Node, content: ContentOptions, scratch: Scratch, max_missing_content: float
) -> CheckResult:
    name = f"node {node.name}"
    try:
        with open_snapshot(node.db_path, scratch) as snapshot:
            kinds = snapshot.kinds
            batch = next(iter(snapshot.rows(_SAMPLE)), None)
            sample = [] if batch is None else batch.rows
    except SyncError as error:
        return CheckResult(
            name, False, f"{node.db_path}: {error.message}", error.remedy, error.code
        )
    if not sample:
        return CheckResult(name, True, f"{node.db_path}: no tokens")
    chain = open_chain(node.repository, content)
    try:
        resolved = chain.resolve([row[0] if isinstance(row[0], str) else None for row in sample])
    finally:
        chain.close()
    fetched = sum(data is not None for data in resolved.data)
    failures = [failure for failure in resolved.failure if failure is not None]
    repository = node.repository is not None
    cured = [f for f in failures if curable(f.code, repository=repository)]
    first = next(iter([*cured, *failures]), None)
    found = f"{tokens_by_kind(kinds)}; content of {fetched} of the first {len(sample)}"
    return CheckResult(
        name,
        len(cured) <= max_missing_content * len(sample),
        f"{node.db_path}: {found}" + (f" ({first})" if first is not None else ""),
        CURES.get(first.code, "") if first is not None else "",
        first.code if first is not None else "",
        warning=any(failure.code in CURES for failure in failures),
    )
