"""Options that commands share, as typed objects.

A command's function takes one frozen dataclass; `takes` fills it from what click parsed.
What a command needs in order to run is loaded when it runs: ``--help`` of any command
shows its options at once.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

import click

import rubix_token_sync as rts

if TYPE_CHECKING:
    from rubix_token_sync import Configuration, SettingsOverrides

__all__ = [
    "Common",
    "Fetching",
    "Judging",
    "Loading",
    "Looking",
    "Plain",
    "age",
    "common_options",
    "fetching_options",
    "judging_options",
    "loading_options",
    "metrics_options",
    "plain_options",
    "root_arguments",
    "stack",
    "takes",
]

_LOG = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])
A = TypeVar("A")

PROFILES: Final = ("high-performance", "resource-constrained")
"""Those of the settings, which take long to load; a test compares."""


def stack(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several decorators as one; options appear in ``--help`` in this order."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def takes(kind: Callable[..., A]) -> Callable[[Callable[[A], int]], Callable[..., int]]:
    """The command's function gets one object of ``kind``, made of all options."""

    def wrap(function: Callable[[A], int]) -> Callable[..., int]:
        @functools.wraps(function)
        def call(**given: object) -> int:
            return function(kind(**given))

        return call

    return wrap


def age(_ctx: click.Context, _param: click.Parameter, value: str | None) -> timedelta | None:
    """A callback of click for ``90s``, ``30m``, ``24h``, ``7d``, ``2w``."""
    try:
        return None if value is None else rts.parse_age(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


# --- what every command that knows a target has ----------------------------------


@dataclass(frozen=True, kw_only=True)
class Common:
    """Values of `common_options`; None: not given."""

    roots: tuple[str, ...] = ()
    target: str | None
    target_file: str | None
    allow_insecure_target_file: bool | None
    source_ip: str | None
    no_default_target: bool
    config: str | None
    profile: Literal["high-performance", "resource-constrained"] | None
    log_file: str | None
    log_format: Literal["text", "json"] | None
    as_json: bool
    quiet: bool
    verbose: bool

    def configured(self, *, needs_target: bool = True) -> Configuration:
        """Settings and target in force; the log is set up, and what a person should see is logged.

        The first line on stderr says which settings file and which target are used, unless
        ``quiet``.  A command that never opens its target passes ``needs_target`` False.

        Raises:
            SettingsError: a setting or the target file is wrong.
        """
        settings = rts.settings_of(
            *self.roots, config=self.config, profile=self.profile, **self.overrides()
        )
        rts.start_log(
            settings,
            verbosity="quiet" if self.quiet else "verbose" if self.verbose else "normal",
        )
        configuration = rts.configure(
            settings=settings, embedded=not self.no_default_target, needs_target=needs_target
        )
        if not self.quiet:
            if settings.log_format == "json":
                rts.log_event(_LOG, logging.INFO, "settings_chosen", configuration.chosen)
            else:
                click.echo(rts.shown(configuration.chosen), err=True)
        for note in configuration.notes:
            _LOG.warning("%s", note)
        return configuration

    def overrides(self) -> SettingsOverrides:
        """The options that are settings."""
        names = rts.SettingsOverrides.__annotations__
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name in names}
        return cast("SettingsOverrides", given)


@dataclass(frozen=True, kw_only=True)
class Plain:
    """Values of `plain_options`: what commands have that need neither settings nor a target."""

    as_json: bool
    quiet: bool
    verbose: bool


plain_options = stack(
    click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
    click.option("--quiet", "-q", is_flag=True, help="Warnings and errors only."),
    click.option("--verbose", "-v", is_flag=True, help="Tracebacks of errors."),
)


class RootPath(click.Path):
    """A directory that is not checked here: discovery checks each one, within a time limit.

    Click itself would refuse all for one that may not be read, and wait for one that is dead.
    """

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,  # noqa: ARG002 - click's form
        ctx: click.Context | None,  # noqa: ARG002
    ) -> str:
        return os.fspath(value)


root_arguments = click.argument("roots", nargs=-1, metavar="[ROOT]...", type=RootPath())

common_options = stack(
    click.option("--target", metavar="URL", help="sqlite:///FILE, postgresql://… or mssql://…"),
    click.option(
        "--target-file",
        metavar="FILE",
        help="A file (mode 600) with a connection string or URL; keeps passwords off the "
        "command line.",
    ),
    click.option(
        "--allow-insecure-target-file",
        is_flag=True,
        default=None,
        help="Accept a target file that others can read.",
    ),
    click.option(
        "--source-ip",
        metavar="NAME",
        help="What this machine calls itself in source_ip. Default: its primary address.",
    ),
    click.option(
        "--no-default-target",
        is_flag=True,
        help="Fail where no target is named, instead of using ./rubix-tokens.db.",
    ),
    click.option(
        "--config",
        metavar="FILE",
        help="Settings file (TOML). Default: the first that `config show` finds.",
    ),
    click.option("--profile", type=click.Choice(PROFILES), help="A set of defaults."),
    click.option("--log-file", metavar="FILE", help="Where the log goes as well."),
    click.option("--log-format", type=click.Choice(["text", "json"]), help="Form of the log."),
    click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
    click.option("--quiet", "-q", is_flag=True, help="Warnings and errors only."),
    click.option("--verbose", "-v", is_flag=True, help="More detail; tracebacks of errors."),
)


events_option = click.option(
    "--events",
    is_flag=True,
    help="What happens, as JSON Lines on stdout while it happens (docs/JSON.md).",
)


# --- how much may be wrong --------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Judging(Common):
    """Values of `judging_options`."""

    strict: bool | None
    max_missing_content: float | None


judging_options = stack(
    click.option(
        "--strict", is_flag=True, default=None, help="Every warning counts as an error (exit 1)."
    ),
    click.option(
        "--max-missing-content",
        type=float,
        metavar="SHARE",
        help="Exit 1 when more than this share (0 to 1) of a database's records lack content "
        "that a cure would bring. Default: 0.1.",
    ),
)


# --- how content is fetched and records are loaded ---------------------------------


@dataclass(frozen=True, kw_only=True)
class Fetching(Judging):
    """Values of `loading_options` that hold for any machine."""

    num_ipfs_workers: int | None
    ipfs_timeout: float | None
    batch_size: int | None
    bulk_insert_size: int | None
    connection_pool_size: int | None
    retry_attempts: int | None
    ipfs_network: bool | None
    content_ways: str | None
    chains: bool | None


@dataclass(frozen=True, kw_only=True)
class Loading(Fetching):
    """Values of `loading_options`."""

    gateways: tuple[str, ...]
    ipfs_program: str | None


pace_options = stack(
    click.option("--num-ipfs-workers", type=int, metavar="N", help="Contents fetched at once."),
    click.option("--ipfs-timeout", type=float, metavar="S", help="Seconds for one fetch."),
    click.option("--batch-size", type=int, metavar="N", help="Records written together."),
    click.option("--bulk-insert-size", type=int, metavar="N", help="Bulk load from N records on."),
    click.option("--connection-pool-size", type=int, metavar="N", help="Connections at most."),
    click.option(
        "--retry-attempts", type=int, metavar="N", help="Attempts after transient failures."
    ),
)
ways_options = stack(
    click.option(
        "--ipfs-network",
        is_flag=True,
        default=None,
        help="Also ask the network (daemon online, gateways) for absent content.",
    ),
    click.option(
        "--content-ways",
        metavar="LIST",
        help="Of blockstore,daemon,gateway,program: those to use. Default: all.",
    ),
)
chains_option = click.option(
    "--chains",
    is_flag=True,
    default=None,
    help="Read the tokens' chains too, where they changed.",
)
fetching_options = stack(pace_options, ways_options, chains_option)
"""Those of `Fetching`."""
loading_options = stack(
    pace_options,
    ways_options,
    click.option("--gateway", "gateways", multiple=True, metavar="URL", help="Trustless gateway."),
    click.option("--ipfs-program", metavar="FILE", help="ipfs program for the last resort."),
    chains_option,
)

metrics_options = stack(
    click.option(
        "--metrics-port",
        type=int,
        metavar="N",
        help="Serve metrics to Prometheus there during the run.",
    ),
    click.option("--metrics-address", metavar="HOST", help="Address of that port."),
    click.option(
        "--metrics-file",
        metavar="FILE",
        help="Write metrics there after the run, for node_exporter.",
    ),
)


# --- questions to a target -----------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Looking(Common):
    """What every question has."""

    sources: tuple[str, ...]
    as_csv: bool


as_of_option = click.option(
    "--as-of",
    metavar="MOMENT",
    help="As it was then: a run's number, an age (24h, 7d), or a time in UTC (2026-11-24).",
)
source_option = click.option(
    "--source", "sources", multiple=True, metavar="NAME", help="Only this machine; repeat."
)
node_option = click.option(
    "--node", "nodes", multiple=True, metavar="NAME", help="Only this node; repeat."
)
since_option = click.option(
    "--since", callback=age, metavar="AGE", help="Only what is not older: 90s, 30m, 24h, 7d, 2w."
)
max_age_option = click.option(
    "--max-age",
    callback=age,
    metavar="AGE",
    help="A node whose last successful sync is older is overdue.",
)
stuck_after_option = click.option(
    "--stuck-after",
    callback=age,
    metavar="AGE",
    default="60s",
    show_default=True,
    help="A run that has been silent for longer is stuck.",
)
csv_option = click.option("--csv", "as_csv", is_flag=True, help="CSV on stdout.")


def limit_option(default: int | None) -> Callable[[F], F]:
    """``--limit``; None: no limit."""
    return click.option(
        "--limit",
        type=click.IntRange(1, 100_000),
        default=default,
        show_default=default is not None,
        metavar="N",
        help="At most N rows of each list.",
    )
