"""`sync` and `retry-failed`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

import rubix_token_sync as rts
from rubix_token_sync.cli import events
from rubix_token_sync.cli.options import (
    Loading,
    common_options,
    events_option,
    judging_options,
    loading_options,
    metrics_options,
    node_option,
    root_arguments,
    stack,
    takes,
)
from rubix_token_sync.cli.output import (
    Cell,
    Column,
    answer,
    count,
    length,
    print_table,
    say,
    state,
)
from rubix_token_sync.cli.terminal import interruptible, print_problems, showing

if TYPE_CHECKING:
    from rubix_token_sync import CancelToken, Configuration, Observer, SyncResult

__all__ = ["retry_failed", "show_sync", "sync"]

_LISTED = 40
_LOGGED = ("database_failed", "directory_unread")
"""Problems that the log reports as they happen, also with --quiet."""
_FINE = ("processed", "current", "retired")


@dataclass(frozen=True, kw_only=True)
class RunArguments(Loading):
    """Options of `sync` and `retry-failed`."""

    report: str | None
    no_progress: bool
    events: bool
    nodes: tuple[str, ...]
    allow_shrink: bool
    metrics_port: int | None
    metrics_address: str | None
    metrics_file: str | None
    dry_run: bool = False
    force: bool = False
    adopt_source: bool = False
    audit: bool | None = None


_run_options = stack(
    root_arguments,
    common_options,
    judging_options,
    loading_options,
    click.option("--report", metavar="DIR", help="Where the JSON report goes. Default: reports."),
    click.option("--no-progress", is_flag=True, help="No live bar on a terminal."),
    events_option,
    node_option,
    click.option(
        "--allow-shrink",
        is_flag=True,
        help="Accept that a large share of a database vanished.",
    ),
    metrics_options,
)


@click.command("sync")
@_run_options
@click.option("--dry-run", is_flag=True, help="Read and compare, write nothing anywhere.")
@click.option(
    "--force",
    is_flag=True,
    help="Compare every record with its node, and write again what differs.",
)
@click.option(
    "--adopt-source",
    is_flag=True,
    help="Take the source over from the machine that it belongs to: that one was replaced or "
    "renamed.",
)
@click.option(
    "--audit/--no-audit",
    default=None,
    help="Audit the target after a sync that completed. Default: audit_after_sync.",
)
@takes(RunArguments)
def sync(arguments: RunArguments) -> int:
    """Bring the target up to date with every node below each ROOT.

    ROOT defaults to the configured roots, else the current directory.  Exit
    codes: 0 done; 1 a database or a record was left undone, or more content than
    --max-missing-content is missing for a reason that can be cured; 2 usage; 3 the
    target refuses us; 4 another run is under way; 6 (with --audit) findings are open;
    130 Ctrl-C; 143 SIGTERM.
    """

    def work(
        configuration: Configuration, observers: list[Observer], stop: CancelToken
    ) -> SyncResult:
        return rts.sync(
            nodes=arguments.nodes,
            force=arguments.force,
            allow_shrink=arguments.allow_shrink,
            dry_run=arguments.dry_run,
            adopt_source=arguments.adopt_source,
            audit=arguments.audit,
            observers=observers,
            stop=stop,
            configuration=configuration,
        )

    return _command("Comparing" if arguments.dry_run else "Syncing", "sync", arguments, work)


@click.command("retry-failed")
@_run_options
@takes(RunArguments)
def retry_failed(arguments: RunArguments) -> int:
    """Ask again for content that failed, on nodes whose databases are known.

    Exit codes: those of `sync`.
    """

    def work(
        configuration: Configuration, observers: list[Observer], stop: CancelToken
    ) -> SyncResult:
        return rts.retry_failed(
            nodes=arguments.nodes,
            allow_shrink=arguments.allow_shrink,
            observers=observers,
            stop=stop,
            configuration=configuration,
        )

    return _command("Asking again", "retry-failed", arguments, work)


def _command(
    verb: str,
    command: str,
    arguments: RunArguments,
    work: Callable[[Configuration, list[Observer], CancelToken], SyncResult],
) -> int:
    configuration = arguments.configured()
    looking_on: list[Observer] = []
    if arguments.events:
        events.started(command, configuration, as_json=arguments.as_json)
        looking_on.append(events.EventObserver())
    report = rts.ReportObserver(configuration.report_directory)
    watchers = [report, *rts.watchers_of(configuration)]
    with (
        interruptible() as stop,
        showing(verb, quiet=arguments.quiet, no_progress=arguments.no_progress) as bar,
    ):
        result = work(configuration, [*watchers, *looking_on, *bar], stop)
    if arguments.events:
        return events.ended_sync(result, None if report.file is None else str(report.file))
    return show_sync(result, report, as_json=arguments.as_json, quiet=arguments.quiet)


def show_sync(result: SyncResult, report: rts.ReportObserver, *, as_json: bool, quiet: bool) -> int:
    """Print how a run ended; its exit code."""
    document = rts.report_of(result)
    for name, path in (("report_file", report.file), ("page_file", report.page)):
        if path is not None:
            document[name] = str(path)
    answer(
        as_json=as_json,
        quiet=quiet,
        document=document,
        table=lambda: _summary(result, document),
    )
    if quiet and not as_json:
        # What ends a run with 1 is never kept back; the log has said the others.
        errors = [problem for problem in result.problems if problem.severity == "error"]
        print_problems([problem for problem in errors if problem.code not in _LOGGED])
    return result.exit_code


def _summary(result: SyncResult, report: dict[str, Any]) -> None:
    """What a person reads at the end of a run: failures first."""
    touched = [d for d in result.databases if d.status != "current"]
    touched.sort(key=lambda d: (d.status in _FINE, d.db_path))
    labels = rts.told_apart([(d.node_name, d.db_path) for d in result.databases])
    names = {d.db_path: label for d, label in zip(result.databases, labels, strict=True)}
    if touched:
        print_table(
            [
                Column("Node"), Column("Records", right=True), Column("New", 2, right=True),
                Column("Changed", 3, right=True), Column("Gone", 4, right=True),
                Column("Content", 1, right=True), Column("Invalid", 5, right=True),
                Column("Status"),
            ],
            [
                [
                    names[d.db_path], count(d.records), count(d.inserted), count(d.updated),
                    count(d.vanished), count(d.ipfs_success), count(d.validation_errors),
                    state(d.status)
                    if d.status == "processed"
                    else Cell(f"{d.status}: {d.reason}", state(d.status).style),
                ]
                for d in touched[:_LISTED]
            ],
        )  # fmt: skip
        if len(touched) > _LISTED:
            say(f"… and {len(touched) - _LISTED:,} more; all of them are in the report.")
        say()
    counters = result.counters
    say(
        f"{result.status.title()} in {length(report['duration_seconds'])}: "
        f"{rts.counted(counters.databases_processed, 'database')} processed, "
        f"{counters.databases_current:,} unchanged, {counters.databases_failed:,} failed."
    )
    if counters.records_processed:
        say(
            f"{rts.counted(counters.records_processed, 'record')} processed "
            f"({report['records_per_second']:,.0f} records/s)."
        )
    if report["total_records"]:
        content = report["total_records_with_content"]
        say(
            f"The target holds {rts.counted(report['total_records'], 'record')} of "
            f"{result.options.source}, {content:,} with proven content "
            f"({content * 100 / report['total_records']:.2f} %)."
        )
    if len(report["records_by_kind"] or ()) > 1:
        say(f"These are {rts.tokens_by_kind(report['records_by_kind'])}.")
    missing = report["missing_content"]
    for code, number in (report["content_failures"] if missing is None else missing).items():
        say(f"{number:,} without content: {code}", indent="  ")
    print_problems(result.problems)
    if result.audit is not None:
        parts = [rts.counted(number, severity) for severity, number in result.audit.open.items()]
        say(f"Audit {result.audit.number}: {', '.join(reversed(parts))} open.")
    say(f"Target: {result.place}")
    for title, name in (("Report", "report_file"), ("Page", "page_file")):
        if name in report:
            say(f"{title}: {report[name]}")
