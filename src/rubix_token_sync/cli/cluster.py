"""`cluster`: certificates, scheduler and workers of a fleet, and what it does by one command."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import (
    Common,
    Fetching,
    common_options,
    fetching_options,
    judging_options,
    root_arguments,
    stack,
    takes,
)
from rubix_token_sync.cli.output import answer, say, when
from rubix_token_sync.cli.terminal import interruptible

if TYPE_CHECKING:
    from rubix_token_sync.cluster import FleetOptions

__all__ = ["cluster"]

CERTIFICATES: Final = "/etc/rubix-token-sync/cluster"
_STOPPING: Final = (
    "Asking the hosts to end at their next safe point … What is stored stays; run the command "
    "again to go on."
)

_joining = stack(
    click.option(
        "--scheduler",
        metavar="URL",
        required=True,
        help="Where the scheduler listens: tls://HOST:8786.",
    ),
    click.option(
        "--certs",
        metavar="DIR",
        default=CERTIFICATES,
        show_default=True,
        help="This machine's directory of `cluster certs`.",
    ),
    click.option(
        "--plain", is_flag=True, help="No encryption: only on loopback, to try something out."
    ),
)


@click.group()
def cluster() -> None:
    """Sync, verify and audit many hosts by one command, on Dask.

    Each host reads its nodes and publishes by itself, with its own settings file; what
    crosses the network are orders, progress and a summary.  Timers on each host
    (`install-service`) need none of this.  See docs/CLUSTER.md.
    """


@cluster.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=str))
@click.argument("names", nargs=-1, metavar="NAME...", required=True)
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=825,
    show_default=True,
    metavar="N",
    help="How long the certificates are valid.",
)
@click.option("--renew", is_flag=True, help="Replace certificates that exist already.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def certs(directory: str, names: tuple[str, ...], days: int, renew: bool, as_json: bool) -> int:
    """Make a certificate for each machine NAME, below DIR.

    The first call makes the cluster's authority, DIR/authority, which stays where it is;
    each DIR/NAME goes to its machine.  Whoever holds one of them can run code on every
    machine of the cluster.  Exit codes: 0; 2 usage, or nothing can be written.
    """
    from rubix_token_sync.cluster import make_certificates

    made = make_certificates(directory, names, days=days, renew=renew)

    def table() -> None:
        for one in made:
            say(f"{one.name}: {one.directory}, valid until {when(one.expires_at)} UTC")
        say(f"Copy each directory to its machine, as {CERTIFICATES} (files mode 600).")

    answer(
        as_json=as_json,
        quiet=False,
        document={"ok": True, "exit_code": 0, "certificates": made},
        table=table,
    )
    return 0


@cluster.command()
@click.option(
    "--listen",
    metavar="URL",
    default="tls://0.0.0.0:8786",
    show_default=True,
    help="Address and port to listen at.",
)
@click.option(
    "--certs",
    metavar="DIR",
    default=CERTIFICATES,
    show_default=True,
    help="This machine's directory of `cluster certs`.",
)
@click.option("--plain", is_flag=True, help="No encryption: only on loopback.")
@click.option("--quiet", "-q", is_flag=True, help="Warnings and errors only.")
@click.option("--verbose", "-v", is_flag=True, help="More detail, what Dask says included.")
def scheduler(listen: str, certs: str, plain: bool, quiet: bool, verbose: bool) -> int:
    """Run the scheduler, until it is stopped.

    It knows the hosts and hands out orders; it keeps no data, opens no target and may run on
    any machine that all hosts reach.
    Exit codes: 1 it ended by itself; 2 usage, certificates, or it cannot listen there;
    130 Ctrl-C; 143 SIGTERM.
    """
    from rubix_token_sync.cluster import connection_of, run_scheduler

    _log(quiet=quiet, verbose=verbose)
    return run_scheduler(connection_of(listen, certs, plain=plain))


@dataclass(frozen=True, kw_only=True)
class WorkerArguments(Common):
    """Options of `cluster worker`."""

    scheduler: str
    certs: str
    plain: bool
    listen: str | None
    port: int


@cluster.command()
@root_arguments
@_joining
@click.option(
    "--listen", metavar="HOST", help="Address to listen at. Default: that towards the scheduler."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    metavar="N",
    help="Port to listen at, which the scheduler must reach. Default: any free one.",
)
@common_options
@takes(WorkerArguments)
def worker(arguments: WorkerArguments) -> int:
    """Carry out the fleet's orders on this host, until it is stopped.

    A sync is the one that `sync ROOT...` would make here: with this host's settings
    file, target and name (source_ip), under its own lease.  Orders take turns.  Where no
    scheduler answers, the host goes on trying; where it is lost, what is under way goes on.
    Exit codes: 1 the scheduler does not let it join; 2 usage, settings, certificates or
    versions; 130 Ctrl-C; 143 SIGTERM.
    """
    from rubix_token_sync.cluster import Host, HostSettings, connection_of, run_worker

    arguments.configured()
    connection = connection_of(arguments.scheduler, arguments.certs, plain=arguments.plain)
    host = Host(
        HostSettings(
            roots=arguments.roots,
            config=arguments.config,
            profile=arguments.profile,
            overrides=arguments.overrides(),
            embedded=not arguments.no_default_target,
        )
    )
    return run_worker(connection, host, listen=arguments.listen, port=arguments.port)


# --- what the fleet does ------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Asking(Common):
    """Options of whatever a fleet is asked for."""

    scheduler: str
    certs: str
    plain: bool
    sources: tuple[str, ...]
    hosts: int
    wait: float
    no_progress: bool

    def order(
        self,
        command: Literal["sync", "verify", "audit"],
        settings: Mapping[str, Any],
        **flags: bool,
    ) -> FleetOptions:
        """What the fleet is to do, with these settings; ``flags`` are this command's alone."""
        from rubix_token_sync.cluster import FleetOptions

        return FleetOptions(
            command,
            sources=self.sources,
            settings=settings,
            hosts=self.hosts,
            wait_seconds=self.wait,
            **flags,
        )


@dataclass(frozen=True, kw_only=True)
class FleetArguments(Asking, Fetching):
    """Options that `cluster sync` and `cluster verify` share."""

    shared: tuple[str, ...]

    def ordered(self) -> dict[str, Any]:
        """Settings that the command line gave, for the hosts."""
        from rubix_token_sync.cluster import FORWARDED

        given: Mapping[str, Any] = self.overrides()
        return {n: v for n, v in given.items() if n in FORWARDED and v is not None and v != ()}


_asking = stack(
    _joining,
    click.option(
        "--source",
        "sources",
        multiple=True,
        metavar="NAME",
        help="Only this source, which must take part; repeat. Default: every host that is "
        "connected; a source of the target without a host is an error.",
    ),
    click.option(
        "--hosts",
        type=click.IntRange(1, 100_000),
        default=1,
        show_default=True,
        metavar="N",
        help="So many hosts must take part: for a first sync, when the target knows of none.",
    ),
    click.option(
        "--wait",
        type=click.FloatRange(0, 3600),
        default=20.0,
        show_default=True,
        metavar="S",
        help="Seconds that absent hosts may take to connect.",
    ),
    click.option("--no-progress", is_flag=True, help="No live view on a terminal."),
)


_shared_option = click.option(
    "--shared",
    multiple=True,
    metavar="ROOT",
    type=click.Path(path_type=str),
    help="A directory that this machine and the hosts of its source_ip see in common: one "
    "source, whose databases are spread over them; repeat.",
)


@dataclass(frozen=True, kw_only=True)
class SyncArguments(FleetArguments):
    """Options of `cluster sync`."""

    force: bool
    allow_shrink: bool
    adopt_source: bool
    audit: bool


@cluster.command()
@_asking
@_shared_option
@common_options
@judging_options
@fetching_options
@click.option(
    "--force", is_flag=True, help="Compare every record with its node, and write what differs."
)
@click.option(
    "--allow-shrink", is_flag=True, help="Accept that a large share of a database vanished."
)
@click.option(
    "--adopt-source", is_flag=True, help="Take sources over from the machines they belong to."
)
@click.option(
    "--audit/--no-audit",
    default=False,
    help="Audit the target once, after a sync that every host completed.",
)
@takes(SyncArguments)
def sync(arguments: SyncArguments) -> int:
    """Have every host bring the target up to date with its nodes.

    Options that are settings go to the hosts for this run; --target and its like are this
    machine's own way to the same target, which is only read.  With --shared this machine
    makes one sync of its own source and the hosts read its databases; the report and the
    exit codes are those of `sync`.  Exit codes: 0 every host
    is done and all is well; 1 something was left undone, or a host is lost or absent; 2
    usage; 3 the target refuses; 4 another run; 6 (with --audit) findings are open; 130
    Ctrl-C; 143 SIGTERM.
    """
    if arguments.shared:
        from rubix_token_sync.cli.shared import sync_shared

        return sync_shared(arguments)
    options = arguments.order(
        "sync",
        arguments.ordered(),
        force=arguments.force,
        allow_shrink=arguments.allow_shrink,
        adopt_source=arguments.adopt_source,
        audit=arguments.audit,
    )
    return _fleet(arguments, options)


@dataclass(frozen=True, kw_only=True)
class VerifyArguments(FleetArguments):
    """Options of `cluster verify`."""

    repair: bool


@cluster.command()
@_asking
@_shared_option
@common_options
@judging_options
@fetching_options
@click.option("--repair", is_flag=True, help="Make equal again what differs.")
@takes(VerifyArguments)
def verify(arguments: VerifyArguments) -> int:
    """Have every host compare its nodes with the target.

    Record by record, content included; nothing is written without --repair.  With --shared
    it is one comparison of this machine's source, as `verify` makes it.
    Exit codes: 0 everything was compared and is equal (with --repair: now); 5 different;
    1 something could not be compared, or a host is lost or absent; 2 usage; 3 the
    target refuses.
    """
    if arguments.shared:
        from rubix_token_sync.cli.shared import verify_shared

        return verify_shared(arguments)
    options = arguments.order("verify", arguments.ordered(), repair=arguments.repair)
    return _fleet(arguments, options)


@dataclass(frozen=True, kw_only=True)
class AuditArguments(Asking):
    """Options of `cluster audit`."""

    audit_fail_on: str | None
    audit_rules_off: tuple[str, ...]


@cluster.command()
@_asking
@common_options
@click.option(
    "--fail-on",
    "audit_fail_on",
    type=click.Choice(["info", "warning", "error"]),
    help="Exit 6 when a finding of this severity or a worse one is open. Default: error.",
)
@click.option(
    "--without", "audit_rules_off", multiple=True, metavar="RULE", help="Do not run this rule."
)
@takes(AuditArguments)
def audit(arguments: AuditArguments) -> int:
    """Have one host audit the target, for all of them.

    An audit reads the target and no node, so one host does it for all: the first that is
    connected, or --source.  Exit codes: those of `audit`; 1 the host was lost.
    """
    settings: dict[str, Any] = {}
    if arguments.audit_fail_on is not None:
        settings["audit_fail_on"] = arguments.audit_fail_on
    if arguments.audit_rules_off:
        settings["audit_rules_off"] = arguments.audit_rules_off
    return _fleet(arguments, arguments.order("audit", settings))


def _fleet(arguments: Asking, options: FleetOptions) -> int:
    from rubix_token_sync.cli.fleet_view import document_of, show_fleet, watching
    from rubix_token_sync.cluster import connection_of, run_fleet

    configuration = arguments.configured()
    connection = connection_of(arguments.scheduler, arguments.certs, plain=arguments.plain)
    live = sys.stderr.isatty() and not (arguments.quiet or arguments.no_progress)
    with (
        interruptible(_STOPPING) as stop,
        watching(live=live) as on_update,
    ):
        result = run_fleet(connection, configuration, options, on_update=on_update, stop=stop)
    answer(
        as_json=arguments.as_json,
        quiet=arguments.quiet and not result.exit_code,
        document=document_of(result),
        table=lambda: show_fleet(result),
    )
    return result.exit_code


def _log(*, quiet: bool, verbose: bool) -> None:
    """The scheduler has no settings file: its log goes to stderr, to the journal under systemd."""
    rts.start_log(
        rts.settings_of(), verbosity="quiet" if quiet else "verbose" if verbose else "normal"
    )
