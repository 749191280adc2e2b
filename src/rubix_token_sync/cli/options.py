"""Options that commands share, and what they become.

What a command needs in order to run is loaded when it runs: ``--help`` of any
command shows its options at once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.log import escaped, log_event

if TYPE_CHECKING:
    from rubix_token_sync.ipfs.fetch import ContentOptions
    from rubix_token_sync.settings import Settings
    from rubix_token_sync.settings.search import SettingsFile, TargetChoice
    from rubix_token_sync.targets.base import TargetOptions
    from rubix_token_sync.targets.registry import TargetAddress

__all__ = [
    "Common",
    "common_options",
    "content_options",
    "load_common",
    "loading_options",
    "mistyped_variables",
    "no_target_named",
    "root_arguments",
    "store_options",
]

F = TypeVar("F", bound=Callable[..., Any])

PROFILES: Final = ("high-performance", "resource-constrained")
"""Those of `rubix_token_sync.settings`, which take long to load; a test compares."""


def _stack(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


root_arguments = click.argument(
    "roots", nargs=-1, metavar="[ROOT]...", type=click.Path(path_type=str)
)

common_options = _stack(
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
"""What every command that knows a target has."""

loading_options = _stack(
    click.option("--num-ipfs-workers", type=int, metavar="N", help="Contents fetched at once."),
    click.option("--ipfs-timeout", type=float, metavar="S", help="Seconds for one fetch."),
    click.option("--batch-size", type=int, metavar="N", help="Records written together."),
    click.option("--bulk-insert-size", type=int, metavar="N", help="Bulk load from N records on."),
    click.option("--connection-pool-size", type=int, metavar="N", help="Connections at most."),
    click.option("--retry-attempts", type=int, metavar="N", help="Attempts at what may pass."),
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
    click.option("--gateway", "gateways", multiple=True, metavar="URL", help="Trustless gateway."),
    click.option("--ipfs-program", metavar="FILE", help="ipfs program for the last resort."),
)
"""How content is fetched and records are loaded."""


@dataclass(frozen=True)
class Common:
    """What the shared options became."""

    settings: Settings
    target: TargetAddress
    as_json: bool
    quiet: bool
    verbose: bool
    notes: tuple[str, ...]

    @property
    def roots(self) -> tuple[str, ...]:
        """The roots of this run."""
        return tuple(self.settings.roots) or (os.getcwd(),)


def load_common(
    options: dict[str, Any], *, stream: Any = None, needs_target: bool = True
) -> Common:
    """Settings, target and log from a command's options; unset ones are None.

    Says on stderr which settings file and which target are used, and why, unless
    ``quiet``.  A command that never opens its target passes ``needs_target`` False.

    Raises:
        SettingsError: a setting or the target file is wrong, or no target is named.
    """
    from rubix_token_sync import log
    from rubix_token_sync.nodes.keep_out import keep_out, node_around
    from rubix_token_sync.settings import Settings, load_settings
    from rubix_token_sync.settings.search import find_settings_file, find_target

    flags = {
        name: value
        for name, value in options.items()
        if value not in (None, ()) and name in Settings.model_fields
    }
    found = find_settings_file(options.get("config"), os.environ, node_around)
    settings = load_settings(flags, found.path, options.get("profile"))
    if settings.log_file is not None:
        keep_out(settings.log_file, "The log")
    quiet, verbose = bool(options.get("quiet")), bool(options.get("verbose"))
    log.set_up(
        verbosity="quiet" if quiet else "verbose" if verbose else "normal",
        log_file=settings.log_file,
        log_format=settings.log_format,
        secrets=settings.secrets(),
        stream=stream,
    )
    embedded = not options.get("no_default_target")
    choice = find_target(settings, found.path, node_around, embedded=embedded)
    if not quiet:
        _say_where(found, choice, as_events=settings.log_format == "json")
    target, warnings = _target(settings, choice, needed=needs_target)
    notes = (*found.notes, *choice.notes, *mistyped_variables(), *warnings)
    return Common(settings, target, bool(options.get("as_json")), quiet, verbose, notes)


def mistyped_variables() -> list[str]:
    """A sentence for each variable of the environment that looks like a setting and is not."""
    from rubix_token_sync.settings import unknown_variables

    return [
        f"The environment variable {name} is not a setting of this program."
        + (f" Did you mean {near}?" if near else "")
        for name, near in unknown_variables().items()
    ]


def _target(
    settings: Settings, choice: TargetChoice, *, needed: bool
) -> tuple[TargetAddress, tuple[str, ...]]:
    """The target that was chosen, and what has to be said about its file."""
    from rubix_token_sync import log
    from rubix_token_sync.targets.connection_file import read_target_file
    from rubix_token_sync.targets.registry import parse_target

    if choice.kind == "none" and needed:
        raise no_target_named()
    warnings: tuple[str, ...] = ()
    text = settings.target.get_secret_value()
    if choice.kind == "file":
        file = read_target_file(choice.value, allow_insecure=settings.allow_insecure_target_file)
        text, warnings = file.text.get_secret_value(), file.warnings
    target = parse_target(text)
    log.register_secrets(target.secrets())
    return target, warnings


def no_target_named() -> SettingsError:
    """The error of a command that would have to guess where the records are."""
    return SettingsError(
        "No target is named: not on the command line, in the environment or in the settings "
        "file, and there is no connection file.",
        code="no_target_named",
        remedy="Set target_file or target in the settings file, put azure_sql_connection.txt "
        "beside it, or name the target by --target or --target-file.",
    )


def _say_where(found: SettingsFile, choice: TargetChoice, *, as_events: bool) -> None:
    """The first line of every command: which settings and which target, and why."""
    from rubix_token_sync.settings.masking import masked

    file = f"{found.path} ({found.why})" if found.path is not None else "none"
    if choice.kind == "file":
        shown = f"as the connection file {choice.value} says"
    else:
        shown = masked(choice.value) if choice.kind == "address" else ""
        shown = "an address (not shown)" if shown == "***" else shown
    where = f"{shown} ({choice.why})" if shown else choice.why
    if as_events:
        log_event(
            logging.getLogger(__name__),
            logging.INFO,
            "settings_chosen",
            f"Settings file: {file}. Target: {where}.",
            settings_file=found.path,
            target=shown,
            because=choice.why,
        )
    else:
        click.echo(escaped(f"Settings file: {file}. Target: {where}."), err=True)


def store_options(settings: Settings, *, read_only: bool = False) -> TargetOptions:
    """How the target is loaded."""
    from rubix_token_sync.targets.base import TargetOptions

    return TargetOptions(
        batch_size=settings.batch_size,
        bulk_insert_size=settings.bulk_insert_size,
        pool_size=settings.connection_pool_size,
        attempts=settings.retry_attempts,
        read_only=read_only,
    )


def content_options(settings: Settings) -> ContentOptions:
    """How content is fetched."""
    from pydantic import SecretStr

    from rubix_token_sync.ipfs.fetch import ContentOptions

    token = settings.ipfs_api_token
    return ContentOptions(
        workers=settings.num_ipfs_workers,
        timeout_s=settings.ipfs_timeout,
        attempts=settings.retry_attempts,
        network=settings.ipfs_network,
        ways=settings.content_ways,
        gateways=tuple(settings.gateways),
        program=settings.ipfs_program,
        daemon_authorization=SecretStr(token.get_secret_value()) if token else None,
    )


def recheck_age(settings: Settings) -> timedelta:
    """After which absent content is asked for again."""
    return timedelta(days=settings.content_recheck_days)


def report_directory(settings: Settings) -> Path:
    """Where reports go."""
    return Path(settings.report or "reports")
