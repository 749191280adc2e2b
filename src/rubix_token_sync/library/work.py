"""The jobs: sync, verify, check and their kin, each one call."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Unpack

from rubix_token_sync.errors import LeaseHeld, SettingsError, SyncError
from rubix_token_sync.library.configuration import (
    CallSettings,
    Configuration,
    PathName,
    check_roots,
    configured,
)
from rubix_token_sync.library.observers import Observer, Observers
from rubix_token_sync.library.results import CheckReport, SyncResult, VerifyResult
from rubix_token_sync.log import log_event
from rubix_token_sync.monitor.answers import at_one_moment
from rubix_token_sync.monitor.filters import Filters
from rubix_token_sync.monitor.health import Status, read_status
from rubix_token_sync.monitor.problems import Problem, Rules
from rubix_token_sync.nodes.discovery import Discovery
from rubix_token_sync.nodes.discovery import discover as discover_nodes
from rubix_token_sync.runs.cancel import CancelToken
from rubix_token_sync.runs.jobs import Difference
from rubix_token_sync.runs.result import RunOptions, RunResult
from rubix_token_sync.settings import Settings
from rubix_token_sync.targets.registry import open_target

if TYPE_CHECKING:
    from rubix_token_sync.audit.questions import Finding
    from rubix_token_sync.audit.run import AuditOutcome
    from rubix_token_sync.migrate import DatabaseOutcome as MovedDatabase
    from rubix_token_sync.migrate import MigrationReport
    from rubix_token_sync.runs.worker_pool import Executor
    from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["check", "discover", "migrate_records", "retry_failed", "rules_of", "sync", "verify"]

_LOG = logging.getLogger(__name__)
_EXAMPLES = 20


def sync(
    *roots: PathName,
    nodes: Iterable[str] = (),
    force: bool = False,
    allow_shrink: bool = False,
    adopt_source: bool = False,
    dry_run: bool = False,
    audit: bool | None = None,
    observers: Iterable[Observer] = (),
    stop: CancelToken | None = None,
    executor: Executor | None = None,
    **settings: Unpack[CallSettings],
) -> SyncResult:
    """Bring the target up to date with every node below ``roots``.

    ``nodes`` are names of nodes (default: all).  ``force`` compares every record with its
    node and writes again what differs; ``allow_shrink`` accepts that a large share of a
    database vanished; ``adopt_source`` takes the source over from the machine that it
    belongs to; ``dry_run`` writes nothing.  ``audit`` runs the audit after a sync that was
    completed (None: as the setting audit_after_sync says).  ``stop`` ends the run at the next
    safe point.  ``executor`` is who reads the databases (None: worker processes of this run).
    Either ``configuration`` is given, or the settings themselves.

    Raises:
        SettingsError: usage, before anything is written.
        SyncError: the run could not start or had to stop; what was published stays.
    """
    found = configured(*roots, **settings)
    options = found.run_options(
        "sync",
        nodes=nodes,
        force=force,
        allow_shrink=allow_shrink,
        dry_run=dry_run,
        adopt_source=adopt_source,
        executor=executor,
    )
    wanted = found.settings.audit_after_sync if audit is None else audit
    if wanted:
        found.audit_options()  # a rule that does not exist is found before a session begins
    return _run(found, options, observers, stop, audit=wanted)


def retry_failed(
    *roots: PathName,
    nodes: Iterable[str] = (),
    allow_shrink: bool = False,
    observers: Iterable[Observer] = (),
    stop: CancelToken | None = None,
    **settings: Unpack[CallSettings],
) -> SyncResult:
    """Ask again for content that failed, on nodes whose databases are known; see `sync`."""
    found = configured(*roots, **settings)
    options = found.run_options("retry-failed", nodes=nodes, allow_shrink=allow_shrink)
    return _run(found, options, observers, stop)


def verify(
    *roots: PathName,
    nodes: Iterable[str] = (),
    repair: bool = False,
    observers: Iterable[Observer] = (),
    stop: CancelToken | None = None,
    executor: Executor | None = None,
    **settings: Unpack[CallSettings],
) -> VerifyResult:
    """Compare nodes and target record by record, content included.

    ``repair`` makes equal again what differs; without it nothing is written.
    ``executor`` as in `sync`.

    Raises:
        SyncError: the target cannot be read, or holds no tables.
    """
    from rubix_token_sync.runs import verify as comparison

    found = configured(*roots, **settings)
    options = found.run_options("verify", nodes=nodes, force=True, executor=executor)
    all_of_them = Observers(observers)
    examples: list[Difference] = []

    def note(difference: Difference) -> None:
        if len(examples) < _EXAMPLES:
            examples.append(difference)
        all_of_them.on_difference(difference)

    with all_of_them.around(options), _failures_noted(all_of_them, lambda: None):
        compare = comparison.repair if repair else comparison.verify
        run = compare(options, on_difference=note, on_progress=all_of_them.on_progress, stop=stop)
        result = VerifyResult.of(run, examples, rules_of(found.settings))
        all_of_them.on_end(result)
    return result


def discover(*roots: PathName) -> Discovery:
    """What `sync` would read below ``roots``, and what it skips and why.

    Raises:
        SettingsError: a root is not a directory.
    """
    given = [str(root) for root in roots] or ["."]
    check_roots(given)
    return discover_nodes(given)


def check(
    *roots: PathName,
    **settings: Unpack[CallSettings],
) -> CheckReport:
    """Try everything a run needs through the run's own code; nothing of it stays in the target.

    Nodes are looked at where there are ``roots`` (given or configured).
    """
    from rubix_token_sync.runs.check import run_checks

    found = configured(*roots, **settings)
    named = found.settings.roots
    check_roots(named)
    return CheckReport(
        run_checks(
            found.settings,
            found.target,
            found.target_options(),
            found.content_options(),
            named,
            found.notes,
        )
    )


def migrate_records(
    *,
    source: str | None = None,
    source_file: PathName | None = None,
    source_timezone: str | None = None,
    databases: Sequence[str] = (),
    dry_run: bool = False,
    verify_only: bool = False,
    start_over: bool = False,
    ask_timezone: Callable[[], str] | None = None,
    on_database: Callable[[MovedDatabase, int, int], None] | None = None,
    **settings: Unpack[CallSettings],
) -> MigrationReport:
    """Move all records of the older system's PostgreSQL, or of any target, to the target.

    The source (``source``, a URL, or ``source_file``, which holds one) is only read.
    ``databases`` are shell patterns of database paths; none means all.  ``on_database``
    gets each outcome, its number, and how many there are.

    Raises:
        SettingsError: options that contradict each other.
        SyncError: one of the two cannot be reached, refuses, or does not hold what was moved.
    """
    from rubix_token_sync import log
    from rubix_token_sync.migrate import MigrateOptions
    from rubix_token_sync.migrate import migrate as run_migrate
    from rubix_token_sync.targets.connection_file import read_target_file
    from rubix_token_sync.targets.registry import parse_target

    if dry_run and verify_only:
        raise SettingsError(
            "Both --dry-run and --verify-only were given.", code="two_modes", remedy="Give one."
        )
    if bool(source) == bool(source_file):
        raise SettingsError(
            "The source is missing, or given twice.",
            code="no_source",
            remedy="Name the source by --from or by --from-file.",
        )
    found = configured(**settings)
    if source_file:
        file = read_target_file(
            source_file, allow_insecure=found.settings.allow_insecure_target_file
        )
        for warning in file.warnings:
            _LOG.warning("%s", warning)
        address = parse_target(file.text.get_secret_value())
    else:
        address = parse_target(source or "")
    log.register_secrets(address.secrets())
    return run_migrate(
        MigrateOptions(
            source=address,
            target=found.target,
            store=found.target_options(),
            source_timezone=source_timezone,
            only=tuple(databases),
            dry_run=dry_run,
            verify_only=verify_only,
            start_over=start_over,
            ask_timezone=ask_timezone,
        ),
        on_database,
    )


def rules_of(settings: Settings, *, max_age: timedelta | None = None) -> Rules:
    """What the settings say of how much may be wrong."""
    return Rules(settings.max_missing_content, settings.strict, max_age)


def _run(
    found: Configuration,
    options: RunOptions,
    observers: Iterable[Observer],
    stop: CancelToken | None,
    *,
    audit: bool = False,
) -> SyncResult:
    from rubix_token_sync.runs.dry_run import dry_run
    from rubix_token_sync.runs.sync import sync as run_sync

    _know_nodes(found, options)
    all_of_them = Observers(observers)
    strict = found.settings.strict
    failed: list[RunResult] = []
    with (
        all_of_them.around(options),
        _failures_noted(all_of_them, lambda: failed[-1] if failed else None),
    ):
        if options.dry_run:
            result = SyncResult.of(dry_run(options, stop=stop), None, strict=strict)
        else:
            held: list[Status | None] = []
            open_before: list[Finding] = []
            run = run_sync(
                options,
                on_progress=all_of_them.on_progress,
                stop=stop,
                on_failed=failed.append,
                on_ended=lambda store: held.append(
                    _held(store, found, options.source, open_before)
                ),
            )
            audited, listed, why = None, open_before, None
            if audit and run.status == "COMPLETED":
                audited, listed, why = _audited(found, open_before)
            result = SyncResult.of(
                run, held[0], strict=strict, audit=audited, unaudited=why, findings=listed
            )
        all_of_them.on_databases(result.databases)
        all_of_them.on_end(result)
    return result


def _audited(
    found: Configuration, open_before: list[Finding]
) -> tuple[AuditOutcome | None, list[Finding], Problem | None]:
    """The audit after a sync, with what is open then.

    Or why there is none: the sync itself is complete all the same.
    """
    from rubix_token_sync.library.auditing import audit_and_list

    try:
        return *audit_and_list(found), None
    except SyncError as error:
        # Another machine's audit, under way after its own sync, is not a fault.
        waits = isinstance(error, LeaseHeld)
        return (
            None,
            open_before,
            Problem(
                "audit_failed",
                f"The target was not audited: {error.message}",
                found.settings.source_ip,
                detail=error.code,
                severity="warning" if waits else "error",
                cure="Run `rubix-token-sync audit`.",
            ),
        )


@contextlib.contextmanager
def _failures_noted(observers: Observers, result: Callable[[], RunResult | None]) -> Iterator[None]:
    """Observers hear of an error on its way out; what they fail at does not hide it."""
    try:
        yield
    except Exception as error:
        try:
            observers.on_failure(error, result())
        except Exception as second:  # noqa: BLE001 - the first error is the one to raise
            log_event(
                _LOG, logging.WARNING, "observer_failed",
                f"After the failure: {type(second).__name__}: {second}",
            )  # fmt: skip
        raise


def _held(
    store: SqlTarget, found: Configuration, source: str, findings: list[Finding]
) -> Status | None:
    """How the source stands in the target; None where it cannot be asked any more.

    ``findings`` gets the worst of those that are open, where there was an audit.
    """
    hours = found.settings.alert_max_age_hours
    max_age = None if hours is None else timedelta(hours=hours)
    rules = rules_of(found.settings, max_age=max_age)
    try:
        status = at_one_moment(
            store,
            lambda asked, now: read_status(asked, Filters(sources=(source,)), now, rules=rules),
        )
        if status.audit is not None:
            from rubix_token_sync.library.auditing import worst_findings

            findings += worst_findings(store)
        return status
    except SyncError as error:
        log_event(
            _LOG, logging.WARNING, "target_not_asked",
            f"The target's state could not be read: {error}", code=error.code,
        )  # fmt: skip
        return None


def _know_nodes(found: Configuration, options: RunOptions) -> None:
    """A mistyped name of a node is found before a session begins (incident 27)."""
    if not options.nodes:
        return
    unknown = options.nodes - {node.name for node in discover_nodes(options.roots).nodes}
    if unknown and options.target.exists():
        store = open_target(found.target, found.target_options(read_only=True))
        try:
            if store.schema_version() is not None:
                states = store.database_states(options.source)
                unknown -= {state.node_name or "" for state in states}
        finally:
            store.close()
    if unknown:
        raise SettingsError(
            f"No node below the roots is named {', '.join(sorted(unknown))}.",
            code="no_such_node",
            remedy="`rubix-token-sync discover` lists the nodes with their names.",
            context={"nodes": sorted(unknown)},
        )
