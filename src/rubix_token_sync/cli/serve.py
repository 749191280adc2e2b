"""`serve`: the page that people keep open."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import Judging, common_options, judging_options, takes
from rubix_token_sync.cli.output import say

if TYPE_CHECKING:
    from rubix_token_sync import Configuration
    from rubix_token_sync.web.options import ServeOptions

__all__ = ["serve"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServeArguments(Judging):
    """Options of `serve`."""

    host: str
    port: int
    token_file: str | None
    trusted_proxies: tuple[str, ...]
    user_header: str
    names: tuple[str, ...]
    root_path: str
    evidence: tuple[str, ...]
    reports: tuple[str, ...]
    read_only: bool


@click.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where it listens."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8765,
    show_default=True,
    metavar="N",
    help="The port; 0: any that is free.",
)
@click.option(
    "--token-file",
    metavar="FILE",
    help="A file (mode 600) with the token that viewers log in with.",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    metavar="ADDRESS",
    help="A proxy (or network) whose header says who the user is; repeat.",
)
@click.option(
    "--user-header",
    default="X-Forwarded-User",
    show_default=True,
    metavar="NAME",
    help="That header.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="HOST",
    help="A name by which the page is called besides localhost; repeat.",
)
@click.option(
    "--root-path",
    default="",
    metavar="PATH",
    help="The path below which a proxy serves it: /tokens.",
)
@click.option(
    "--evidence",
    multiple=True,
    metavar="DIR",
    help="A directory of evidence, or of such directories; repeat.",
)
@click.option(
    "--reports",
    multiple=True,
    metavar="DIR",
    help="A directory of reports of runs; repeat. Default: the setting `report`.",
)
@click.option("--read-only", is_flag=True, help="Nothing can be decided about findings.")
@common_options
@judging_options
@takes(ServeArguments)
def serve(arguments: ServeArguments) -> int:
    """Serve a page of what the target holds, until Ctrl-C.

    Fleet, nodes, runs, tokens, findings, errors, evidence; each also as .json. On
    127.0.0.1 it is open to the users of this machine; any other --host needs a
    --token-file or a --trusted-proxy. The target is only read, but for what people
    decide about findings. docs/WEB.md has proxies and the threat model.

    Exit codes: 0 it was stopped; 2 usage; 3 the target cannot be reached.
    """
    from rubix_token_sync.web.options import ServeOptions, network, read_token

    options = ServeOptions(
        host=arguments.host,
        port=arguments.port,
        token=None if arguments.token_file is None else read_token(arguments.token_file),
        trusted_proxies=tuple(map(network, arguments.trusted_proxies)),
        user_header=arguments.user_header,
        names=arguments.names,
        root_path=arguments.root_path.rstrip("/"),
        evidence=arguments.evidence,
        reports=arguments.reports,
        read_only=arguments.read_only,
    )
    options.check()
    options.check_directories()
    configuration = arguments.configured()
    if not options.reports:
        options = options.with_reports(str(configuration.report_directory))
    return run_page(configuration, options, quiet=arguments.quiet)


def run_page(configuration: Configuration, options: ServeOptions, *, quiet: bool) -> int:
    """Serve, say where, and end with 0 when somebody stops it."""
    from rubix_token_sync.web.serving import serve_page

    def ready(address: str) -> None:
        if quiet:
            return
        try:
            say(f"The page is on {address} (Ctrl-C ends it).")
            sys.stdout.flush()  # whoever reads a pipe waits for this line
        except (rts.SyncError, OSError) as error:  # a full device or a closed reader: go on serving
            _LOG.warning("Where the page is could not be printed: %s", error)

    try:
        serve_page(configuration, options, ready)
    except KeyboardInterrupt:
        return 0
    return 0
