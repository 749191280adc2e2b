"""What `status`, `sessions`, `databases` and `errors` answer, in each form."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from rubix_token_sync.cli.options import Common, load_common, store_options
from rubix_token_sync.cli.tables import print_csv, print_json
from rubix_token_sync.errors import SettingsError, TargetRefused
from rubix_token_sync.monitor import (
    DatabaseRow,
    Filters,
    RunRow,
    Trend,
    failure_report,
    list_databases,
    list_runs,
    read_status,
    trend,
)
from rubix_token_sync.monitor.export import export_errors
from rubix_token_sync.monitor.failures import NodeRow, Reason
from rubix_token_sync.monitor.health import Problem, SourceRow
from rubix_token_sync.nodes.keep_out import keep_out
from rubix_token_sync.targets.registry import open_target
from rubix_token_sync.targets.sql.target import SqlTarget

if TYPE_CHECKING:
    from rubix_token_sync.alerts import AlertDesk

__all__ = ["CONTRACT", "databases", "errors", "sessions", "status"]

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def _asked(options: dict[str, Any]) -> Iterator[tuple[Common, SqlTarget, datetime]]:
    """The target, opened for reading only, and its time.

    Raises:
        TargetError: it cannot be reached, or no sync has made its tables.
    """
    if options["as_json"] and options.get("as_csv"):
        raise click.UsageError("Give --json or --csv, not both.")
    common = load_common(options)
    for note in common.notes:
        _LOG.warning("%s", note)
    if not common.target.exists():
        raise TargetRefused(
            "The target does not exist yet.",
            code="target_absent",
            remedy="Run `rubix-token-sync sync` first, or name another one by --target.",
        )
    store = open_target(common.target, store_options(common.settings, read_only=True))
    try:
        store.ensure_schema()
        yield common, store, store.server_time()
    finally:
        store.close()


def _desk(common: Common) -> AlertDesk:
    from rubix_token_sync.cli.watch import open_desk

    desk = open_desk(common.settings, "monitor")
    if desk is None or not desk.active:
        raise SettingsError(
            "There is nobody to alert: neither alert_urls nor alert_urls_file is set.",
            code="no_alert_urls",
            remedy="Set one of them in the settings file; see docs/ALERTS.md.",
        )
    return desk


def _filters(options: dict[str, Any]) -> Filters:
    return Filters(
        since=options.get("since"),
        nodes=tuple(options.get("nodes", ())),
        sources=tuple(options.get("sources", ())),
        category=options.get("category"),
        statuses=tuple(options.get("statuses", ())),
        limit=options.get("limit") or 20,
    )


def _columns(row: type[Any]) -> list[str]:
    return [field.name for field in fields(row)]


def _rows(found: list[Any]) -> list[dict[str, Any]]:
    return [asdict(row) for row in found]


def status(options: dict[str, Any]) -> int:
    """The command `status`; returns its exit code."""
    with _asked(options) as (common, store, now):
        desk = _desk(common) if options["alert"] else None
        max_age = options["max_age"]
        hours = common.settings.alert_max_age_hours
        if options["alert"] and max_age is None and hours is not None:
            max_age = timedelta(hours=hours)
        found = read_status(
            store,
            _filters(options),
            now,
            stuck_seconds=options["stuck_after"].total_seconds(),
            max_age=max_age,
        )
        if desk is not None:
            from rubix_token_sync.alerts import alerts_of_status

            desk.tell(alerts_of_status(found))
        exit_code = 0 if found.ok else 1
        if options["as_json"]:
            print_json(
                {
                    "ok": found.ok,
                    "exit_code": exit_code,
                    "server_time": now,
                    "target": store.place,
                    "problems": found.problems,
                    "running": found.running,
                    "sources": found.sources,
                }
            )
        elif options["as_csv"]:
            print_csv(_rows(found.problems), _columns(Problem))
        else:
            _shown(options, lambda views: views.show_status(found, store.place))
    return exit_code


def sessions(options: dict[str, Any]) -> int:
    """The command `sessions`; returns its exit code."""
    with _asked(options) as (_common, store, now):
        stuck = options["stuck_after"].total_seconds()
        found = list_runs(store, _filters(options), now, stuck_seconds=stuck)
        if options["as_json"]:
            print_json(
                {
                    "server_time": now,
                    "target": store.place,
                    "sessions": found,
                    "trend": trend(found),
                }
            )
        elif options["as_csv"]:
            print_csv(_rows(found), _columns(RunRow))
        else:
            _shown(options, lambda views: views.show_runs(found, trend(found)))
    return 0


def databases(options: dict[str, Any]) -> int:
    """The command `databases`; returns its exit code."""
    with _asked(options) as (_common, store, now):
        found = list_databases(store, _filters(options), now, max_age=options["max_age"])
        exit_code = 0 if all(row.state == "current" for row in found) else 1
        if options["as_json"]:
            print_json(
                {
                    "ok": exit_code == 0,
                    "exit_code": exit_code,
                    "server_time": now,
                    "target": store.place,
                    "databases": found,
                }
            )
        elif options["as_csv"]:
            print_csv(_rows(found), _columns(DatabaseRow))
        else:
            _shown(options, lambda views: views.show_databases(found))
    return exit_code


def errors(options: dict[str, Any]) -> int:
    """The command `errors`; returns its exit code."""
    with _asked(options) as (_common, store, now):
        filters = _filters(options)
        exported = None
        if options["export"]:
            keep_out(options["export"], "The list of errors")
            exported = export_errors(store, filters, now, Path(options["export"]))
        found = failure_report(store, filters, now)
        if options["as_json"]:
            print_json(
                {
                    "server_time": now,
                    "target": store.place,
                    **asdict(found),
                    "exported": None
                    if exported is None
                    else {"file": options["export"], "lines": exported},
                }
            )
        elif options["as_csv"]:
            print_csv(_rows([*found.content, *found.validation, *found.events]), _columns(Reason))
        else:
            _shown(options, lambda views: views.show_failures(found))
            if exported is not None and not options["quiet"]:
                click.echo(f"{exported:,} errors written to {options['export']}")
    return 0


def _shown(options: dict[str, Any], show: Callable[[Any], None]) -> None:
    """Tables load only where a person reads them."""
    if not options["quiet"]:
        from rubix_token_sync.cli import monitor_views

        show(monitor_views)


CONTRACT: Final = {
    "problem": _columns(Problem),
    "run": _columns(RunRow),
    "source": _columns(SourceRow),
    "database": _columns(DatabaseRow),
    "node": _columns(NodeRow),
    "reason": _columns(Reason),
    "trend": _columns(Trend),
}
"""The keys of the rows in ``--json`` and the columns of ``--csv``; documented in docs/JSON.md."""
