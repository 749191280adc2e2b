"""`sync` and `retry-failed`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from rubix_token_sync.cli.options import (
    Common,
    common_options,
    content_options,
    load_common,
    loading_options,
    recheck_age,
    report_directory,
    root_arguments,
    store_options,
)
from rubix_token_sync.cli.watch import Watch, metrics_options
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.runs.cancel import CancelToken

if TYPE_CHECKING:
    from rubix_token_sync.runs.progress import Progress
    from rubix_token_sync.runs.result import RunOptions, RunResult

_LOG = logging.getLogger(__name__)

_run_options = [
    click.option("--report", metavar="DIR", help="Where the JSON report goes. Default: reports."),
    click.option("--no-progress", is_flag=True, help="No live bar on a terminal."),
    click.option("--node", "nodes", multiple=True, metavar="NAME", help="Only this node; repeat."),
    click.option(
        "--allow-shrink",
        is_flag=True,
        help="Accept that a large share of a database vanished.",
    ),
    *metrics_options,
]


def _with_run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_run_options):
        function = option(function)
    return function


@click.command("sync")
@root_arguments
@common_options
@loading_options
@_with_run_options
@click.option("--dry-run", is_flag=True, help="Read and compare, write nothing anywhere.")
@click.option("--force", is_flag=True, help="Read databases that have not changed, too.")
@click.option(
    "--adopt-source",
    is_flag=True,
    help="Take the source over from the machine that it belongs to: that one was replaced or "
    "renamed.",
)
def sync(**options: Any) -> int:
    """Bring the target up to date with every node below each ROOT.

    ROOT defaults to the configured roots, else the current directory.  Exit
    codes: 0 done; 1 a database or a record was left undone; 2 usage; 3 the
    target refuses us; 4 another run is under way; 130 Ctrl-C; 143 SIGTERM.
    """
    return _command("sync", options)


@click.command("retry-failed")
@root_arguments
@common_options
@loading_options
@_with_run_options
def retry_failed(**options: Any) -> int:
    """Ask again for content that failed, on nodes whose databases are known."""
    return _command("retry-failed", options)


def _command(name: str, options: dict[str, Any]) -> int:
    from rubix_token_sync.reports.report import prepare_directory
    from rubix_token_sync.runs.sync import sync as run_sync

    common = load_common(options)
    for note in common.notes:
        _LOG.warning("%s", note)
    run_options = run_options_of(name, common, options)
    if not run_options.dry_run:
        prepare_directory(report_directory(common.settings))
    with Watch(common, run_options) as watch:
        with interruptible() as stop:
            if run_options.dry_run:
                from rubix_token_sync.runs.dry_run import dry_run

                outcome = dry_run(run_options, stop=stop)
            else:
                with showing(common, options) as show:
                    outcome = run_sync(
                        run_options,
                        on_progress=watch.over(show),
                        stop=stop,
                        on_failed=lambda failed: _report_failed(common, failed),
                    )
        report = _written(common, outcome)
        watch.done(outcome)
    if common.as_json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    elif not common.quiet:
        from rubix_token_sync.cli.summary import print_summary

        print_summary(outcome, report)
    return outcome.exit_code


def _written(common: Common, outcome: RunResult) -> dict[str, Any]:
    """The report, also as files but for a dry run."""
    from rubix_token_sync.reports.page import can_make_pages, write_page
    from rubix_token_sync.reports.report import build_report, write_report

    report = build_report(outcome)
    if not outcome.options.dry_run:
        path = write_report(report, report_directory(common.settings))
        report["report_file"] = str(path)
        if can_make_pages():
            report["page_file"] = str(write_page(report, path))
    return report


def _report_failed(common: Common, outcome: RunResult) -> None:
    """A run that failed leaves its report, too; what ended it is told whatever happens here."""
    try:
        report = _written(common, outcome)
    except SettingsError as error:
        _LOG.warning("%s", error)
    else:
        _LOG.info("Report: %s", report["report_file"])


def run_options_of(name: str, common: Common, options: dict[str, Any]) -> RunOptions:
    """What a run is told; ``options`` are those of `loading_options` and ``--node``.

    Raises:
        SettingsError: a root is no directory, or scratch space is inside a node.
    """
    from rubix_token_sync.nodes.keep_out import keep_out
    from rubix_token_sync.runs.result import RunOptions

    settings = common.settings
    for root in common.roots:
        check_root(root)
    if settings.scratch is not None:
        keep_out(settings.scratch, "The scratch directory")
    return RunOptions(
        roots=common.roots,
        source=settings.source_ip,
        target=common.target,
        store=store_options(settings),
        content=content_options(settings),
        command=name,
        nodes=frozenset(options["nodes"]),
        force=bool(options.get("force")),
        adopt_source=bool(options.get("adopt_source")),
        only_failed=name == "retry-failed",
        dry_run=bool(options.get("dry_run")),
        max_shrink=None if options.get("allow_shrink") else settings.max_shrink,
        max_shrink_rows=settings.max_shrink_rows,
        recheck=recheck_age(settings),
        heartbeat_seconds=settings.heartbeat_seconds,
        lease_seconds=settings.lease_seconds,
        scratch=settings.scratch,
    )


def check_root(root: str) -> None:
    """Raises SettingsError for what is no directory."""
    if not Path(root).is_dir():
        raise SettingsError(
            f"{root} is no directory.",
            code="no_such_root",
            remedy="Give a directory below which the nodes are.",
        )


@contextlib.contextmanager
def interruptible() -> Iterator[CancelToken]:
    """Ctrl-C and SIGTERM end the run at the next safe point; a second one at once."""
    stop = CancelToken()

    def handler(number: int, _frame: FrameType | None) -> None:
        if stop.signal_number is not None:
            _say("Stopped at once; the next run takes over.")
            os._exit(128 + number)  # nothing that could wait any longer
        stop.signal_number = number  # before anything is said: a second one may come at once
        _say("Stopping after the chunk under way …")
        stop.give(number)

    before = {n: signal.signal(n, handler) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _say(line: str) -> None:
    # Past sys.stderr, which the main thread may be in the middle of using.
    with contextlib.suppress(OSError):
        show_cursor = "\x1b[?25h" if os.isatty(2) else ""
        os.write(2, f"{show_cursor}{line}\n".encode())


@contextlib.contextmanager
def showing(common: Common, options: dict[str, Any]) -> Iterator[Callable[[Progress], None]]:
    """A live bar where a person looks at a terminal."""
    if common.quiet or options["no_progress"] or not sys.stderr.isatty():
        yield lambda _progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    from rubix_token_sync import log

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    # While the bar is drawn, sys.stderr is the console's: lines go above the bar.
    with Bar(*columns, console=console, transient=True) as bar, log.through(sys.stderr):
        task = bar.add_task("Syncing", total=1.0, detail="")

        def show(progress: Progress) -> None:
            records, _ = progress.so_far()
            rate = records / progress.seconds
            bar.update(task, completed=progress.share, detail=f"{records:,} records, {rate:,.0f}/s")

        yield show
