"""`history`: of a token, a node or a database; `history prune`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.changes import print_counts
from rubix_token_sync.cli.options import (
    Common,
    age,
    common_options,
    node_option,
    source_option,
    takes,
)
from rubix_token_sync.cli.output import answer, say, when
from rubix_token_sync.cli.terminal import note_unread
from rubix_token_sync.documents import versions_document

if TYPE_CHECKING:
    from rubix_token_sync import ChangeCounts, Pruned, Version

__all__ = ["history"]

_TITLES: Final = {
    "did": "DID",
    "token_status": "status",
    "token_state_hash": "state hash",
    "transaction_id": "transaction",
    "parent_token_id": "parent",
    "token_value": "value",
    "verdict": "verdict",
    "ipfs_error": "content",
}
"""What of a version is shown at first sight."""


class _Shown(click.Group):
    """What is not a subcommand's name is what `show` gets."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Shown)
def history() -> None:
    """Show what the target held earlier (`history TOKEN` is `history show TOKEN`)."""


@dataclass(frozen=True, kw_only=True)
class HistoryArguments(Common):
    """Options of `history show`."""

    token_id: str | None
    since: str
    sources: tuple[str, ...]
    nodes: tuple[str, ...]
    databases: tuple[str, ...]


@history.command()
@click.argument("token_id", metavar="[TOKEN]", required=False)
@source_option
@node_option
@click.option(
    "--database", "databases", multiple=True, metavar="PATH", help="Only this file; repeat."
)
@click.option(
    "--since",
    metavar="MOMENT",
    default="30d",
    show_default=True,
    help="Without TOKEN: a run's number, an age (24h, 7d), or a time in UTC (2026-11-24).",
)
@common_options
@takes(HistoryArguments)
def show(arguments: HistoryArguments) -> int:
    """Who held TOKEN when, and what changed; without TOKEN, what each run did to nodes.

    Give TOKEN, or --node or --database.  Exit codes: 0; 2 usage, no such token or
    moment, or its history was removed; 3 the target cannot be reached.
    """
    if arguments.token_id is None:
        return _of_nodes(arguments)
    if arguments.databases:
        raise click.UsageError("--database goes without TOKEN.")
    with rts.open_target(configuration=arguments.configured()) as target:
        note_unread(target, sources=arguments.sources, nodes=arguments.nodes, quiet=arguments.quiet)
        target.require_token(arguments.token_id)
        found = target.history(arguments.token_id, sources=arguments.sources, nodes=arguments.nodes)
        if not found:
            raise rts.SettingsError(
                "The target has no token with this id.",
                code="no_such_token",
                remedy="Ids are compared letter by letter; `rubix-token-sync databases` shows "
                "which nodes were synced.",
            )
        answer(
            as_json=arguments.as_json,
            quiet=arguments.quiet,
            document=versions_document(target, arguments.token_id, found),
            table=lambda: _show(arguments.token_id or "", found),
        )
    return 0


def _of_nodes(arguments: HistoryArguments) -> int:
    if not (arguments.nodes or arguments.databases or arguments.sources):
        raise click.UsageError("Give TOKEN, --node, --database or --source.")
    with rts.open_target(configuration=arguments.configured()) as target:
        note_unread(target, sources=arguments.sources, nodes=arguments.nodes, quiet=arguments.quiet)
        feed = target.changes(
            arguments.since,
            sources=arguments.sources,
            nodes=arguments.nodes,
            databases=arguments.databases,
        )
        counts = feed.counts(by_run=True)
        answer(
            as_json=arguments.as_json,
            quiet=arguments.quiet,
            document={
                "server_time": target.server_time(),
                "target": target.place,
                "since": feed.since,
                "runs": counts,
            },
            table=lambda: _show_runs(counts),
        )
    return 0


def _show_runs(counts: list[ChangeCounts]) -> None:
    print_counts(counts)


def _show(token_id: str, found: list[Version]) -> None:
    say(token_id, "1")
    place = None
    for one in found:
        if (one.source_ip, one.db_path) != place:
            place = one.source_ip, one.db_path
            say()
            say(f"{one.node_name} ({one.source_ip}), {one.db_path}", "1")
        since = f"run {one.since_run}, {when(one.since) or 'under way'}"
        if one.since_run == 0:
            since = "before history began"
        until = "now" if one.until_run is None else f"run {one.until_run}, {when(one.until)}"
        say(f"{since} to {until}:{' the node does not have it' if one.gone else ''}", indent="  ")
        for name, title in _TITLES.items():
            if one.values.get(name) not in (None, ""):
                say(f"{title + ':':<13}{one.values[name]}", indent="    ")
        if one.until_run is not None:
            say(f"{'changed then:':<13} {', '.join(one.changed) or 'its form'}", indent="    ")


@dataclass(frozen=True, kw_only=True)
class PruneArguments(Common):
    """Options of `history prune`."""

    older_than: timedelta


@history.command()
@click.option(
    "--older-than",
    required=True,
    callback=age,
    metavar="AGE",
    help="What ended longer ago: 90d, 52w.",
)
@common_options
@takes(PruneArguments)
def prune(arguments: PruneArguments) -> int:
    """Remove versions of records that ended long ago, and can never be asked for again.

    Versions of what open findings rest on are kept.  Syncs may go on meanwhile.  Exit
    codes: 0; 2 usage; 3 the target cannot be reached; 4 somebody else is at it.
    """
    done = rts.prune_history(arguments.older_than, configuration=arguments.configured())
    answer(
        as_json=arguments.as_json,
        quiet=arguments.quiet,
        document={"runs": done.runs, "versions": done.versions, "kept": done.kept},
        table=lambda: _show_pruned(done),
    )
    return 0


def _show_pruned(done: Pruned) -> None:
    say(
        f"{rts.counted(done.versions, 'version')} of {rts.counted(done.runs, 'run')} removed; "
        f"{done.kept:,} kept for open findings."
    )
