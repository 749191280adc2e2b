"""Options that commands share, and what they become.

What a command needs in order to run is loaded when it runs: ``--help`` of any
command shows its options at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from rubix_token_sync.ipfs.fetch import ContentOptions
    from rubix_token_sync.settings import Settings
    from rubix_token_sync.targets.base import TargetOptions
    from rubix_token_sync.targets.registry import TargetAddress

__all__ = [
    "Common",
    "common_options",
    "content_options",
    "load_common",
    "loading_options",
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
    click.option("--config", metavar="FILE", help="Settings file (TOML); see init."),
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


def load_common(options: dict[str, Any], *, stream: Any = None) -> Common:
    """Settings, target and log from a command's options; unset ones are None.

    Raises:
        SettingsError: a setting or the target file is wrong.
    """
    from rubix_token_sync import log
    from rubix_token_sync.nodes.keep_out import keep_out
    from rubix_token_sync.settings import Settings, load_settings, unknown_variables

    flags = {
        name: value
        for name, value in options.items()
        if value not in (None, ()) and name in Settings.model_fields
    }
    settings = load_settings(flags, options.get("config"), options.get("profile"))
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
    notes = [f"{name} is no setting of this program." for name in unknown_variables()]
    target, told = _target(settings, options)
    return Common(settings, target, bool(options.get("as_json")), quiet, verbose, (*notes, *told))


def _target(settings: Settings, options: dict[str, Any]) -> tuple[TargetAddress, list[str]]:
    from rubix_token_sync import log
    from rubix_token_sync.targets.connection_file import default_target_file, read_target_file
    from rubix_token_sync.targets.registry import parse_target

    path = None if options.get("target") else settings.target_file
    notes = []
    if path is None and settings.origin("target") == "default":
        found = default_target_file()
        if found is not None:
            path = str(found)
            notes.append(f"No target was named; taking the connection file {path}.")
    if path is None:
        target = parse_target(settings.target.get_secret_value())
    else:
        file = read_target_file(path, allow_insecure=settings.allow_insecure_target_file)
        target = parse_target(file.text.get_secret_value())
        notes += list(file.warnings)
    log.register_secrets(target.secrets())
    return target, notes


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
