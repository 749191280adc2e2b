"""`cluster sync --shared` and `cluster verify --shared`: one run, whose databases hosts read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.sync import show_sync
from rubix_token_sync.cli.terminal import interruptible, showing
from rubix_token_sync.cli.verify import show_verify

if TYPE_CHECKING:
    from rubix_token_sync import CancelToken, Configuration, Observer
    from rubix_token_sync.cli.cluster import FleetArguments, SyncArguments, VerifyArguments
    from rubix_token_sync.cluster import Executor

__all__ = ["sync_shared", "verify_shared"]


def sync_shared(arguments: SyncArguments) -> int:
    """One sync of this machine's source; see `sync`."""
    configuration = _configured(arguments)
    report = rts.ReportObserver(configuration.report_directory)
    watchers = [report, *rts.watchers_of(configuration)]
    with _working("Syncing", arguments, configuration) as (executor, bar, stop):
        result = rts.sync(
            force=arguments.force,
            allow_shrink=arguments.allow_shrink,
            adopt_source=arguments.adopt_source,
            audit=arguments.audit,
            observers=[*watchers, *bar],
            stop=stop,
            executor=executor,
            configuration=configuration,
        )
    return show_sync(result, report, as_json=arguments.as_json, quiet=arguments.quiet)


def verify_shared(arguments: VerifyArguments) -> int:
    """One comparison of this machine's source; see `verify`."""
    configuration = _configured(arguments)
    with _working("Verifying", arguments, configuration) as (executor, bar, stop):
        result = rts.verify(
            repair=arguments.repair,
            observers=bar,
            stop=stop,
            executor=executor,
            configuration=configuration,
        )
    return show_verify(result, as_json=arguments.as_json, quiet=arguments.quiet)


def _configured(arguments: FleetArguments) -> Configuration:
    if arguments.sources:
        raise click.UsageError(
            "--shared is about this machine's own source, and --source names others."
        )
    return replace(arguments, roots=arguments.shared).configured()


@contextmanager
def _working(
    verb: str, arguments: FleetArguments, configuration: Configuration
) -> Iterator[tuple[Executor, list[Observer], CancelToken]]:
    from rubix_token_sync.cluster import SharedOptions, connection_of, sharing_hosts

    connection = connection_of(arguments.scheduler, arguments.certs, plain=arguments.plain)
    options = SharedOptions(arguments.hosts, arguments.wait, arguments.ordered())
    with (
        interruptible() as stop,
        sharing_hosts(connection, configuration, options, stop=stop) as executor,
        showing(verb, quiet=arguments.quiet, no_progress=arguments.no_progress) as bar,
    ):
        yield executor, bar, stop
