"""`changes`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import (
    Common,
    common_options,
    limit_option,
    node_option,
    source_option,
    takes,
)
from rubix_token_sync.cli.output import (
    Column,
    answer,
    count,
    print_json_line,
    print_table,
    say,
    when,
)
from rubix_token_sync.cli.terminal import note_unread
from rubix_token_sync.documents import changes_document

if TYPE_CHECKING:
    from rubix_token_sync import Change, ChangeCounts, ChangeFeed

__all__ = ["changes", "print_counts", "side"]

_SHOWN: Final = 40


@dataclass(frozen=True, kw_only=True)
class ChangesArguments(Common):
    """Options of `changes`."""

    since: str
    sources: tuple[str, ...]
    nodes: tuple[str, ...]
    databases: tuple[str, ...]
    columns: tuple[str, ...]
    limit: int
    as_lines: bool


@click.command()
@click.option(
    "--since",
    metavar="MOMENT",
    default="24h",
    show_default=True,
    help="A run's number, the cursor of an earlier answer, an age (24h, 7d), or a time in UTC "
    "(2026-11-24).",
)
@source_option
@node_option
@click.option(
    "--database", "databases", multiple=True, metavar="PATH", help="Only this file; repeat."
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME",
    help="Only changes of this column (did: transfers); repeat.",
)
@click.option(
    "--jsonl",
    "as_lines",
    is_flag=True,
    help="JSON Lines: every change, and after each run the cursor from which to go on.",
)
@limit_option(_SHOWN)
@common_options
@takes(ChangesArguments)
def changes(arguments: ChangesArguments) -> int:
    """Show what the runs changed that have ended since then: counts, then the changes.

    A run that is under way is not part of the answer, whatever its number; the cursor
    leaves it to the next one.  Whoever goes on from the cursor gets every change once.
    Exit codes: 0; 2 usage, no such moment, or its history was removed; 3 the target
    cannot be reached.
    """
    if arguments.as_lines and arguments.as_json:
        raise click.UsageError("Give --json or --jsonl, not both.")
    with rts.open_target(configuration=arguments.configured()) as target:
        note_unread(target, sources=arguments.sources, nodes=arguments.nodes, quiet=arguments.quiet)
        feed = target.changes(
            arguments.since,
            sources=arguments.sources,
            nodes=arguments.nodes,
            databases=arguments.databases,
            columns=arguments.columns,
        )
        if arguments.as_lines:
            _print_lines(feed)
            return 0
        counts = feed.counts()
        rows = list(itertools.islice(feed, arguments.limit))
        answer(
            as_json=arguments.as_json,
            quiet=arguments.quiet,
            document=changes_document(target, feed, counts, rows),
            table=lambda: _show(feed, counts, rows),
        )
    return 0


def _print_lines(feed: ChangeFeed) -> None:
    last: Change | None = None
    for change in feed:
        if last is not None and change.run != last.run:
            print_json_line({"type": "cursor", "cursor": feed.cursor_after(last)})
        print_json_line({"type": "change", **asdict(change)})
        last = change
    print_json_line({"type": "cursor", "cursor": feed.cursor})


def _show(feed: ChangeFeed, counts: list[ChangeCounts], rows: list[Change]) -> None:
    total = print_counts(counts)
    if rows:
        say()
        print_table(
            [
                Column("Run", 2, right=True), Column("Node"), Column("What"),
                Column("Column", wraps=True), Column("Before", 1, wraps=True),
                Column("After", 1, wraps=True), Column("Token", wraps=True),
            ],
            [_row(change) for change in rows],
        )  # fmt: skip
    if total > len(rows) > 0:
        say(f"… and {total - len(rows):,} more; --limit shows more of them, --jsonl all.")
    say()
    say(f"Go on from here: rubix-token-sync changes --since {feed.cursor}")


def print_counts(counts: Sequence[ChangeCounts]) -> int:
    """A table by node (and run, where it is one each); how many changes there are."""
    total = sum(one.new + one.changed + one.vanished + one.returned for one in counts)
    if not counts:
        say("Nothing has changed.")
        return 0
    print_table(
        [
            Column("Run", 1, right=True), Column("Ended (UTC)", 2), Column("Source", 4),
            Column("Node"), Column("New", right=True), Column("Changed", right=True),
            Column("Vanished", right=True), Column("Returned", 3, right=True),
            Column("Columns", 1, wraps=True),
        ],
        [
            [
                count(one.run), when(one.at), one.source_ip, one.node_name, count(one.new),
                count(one.changed), count(one.vanished), count(one.returned),
                ", ".join(f"{name} {number:,}" for name, number in one.columns.items()),
            ]
            for one in counts
        ],
    )  # fmt: skip
    say(f"{rts.counted(total, 'change')}.")
    return total


def _row(change: Change) -> list[str]:
    names = change.columns
    return [
        count(change.run), change.node_name, change.what, ", ".join(names),
        side(change.old, names), side(change.new, names or ["did", "token_status"]),
        change.token_id or "",
    ]  # fmt: skip


def side(values: dict[str, Any], names: Sequence[str]) -> str:
    """One side of a change; a column without a value is a dash."""
    if not values:
        return ""
    shown = ("-" if (value := values.get(name)) is None else str(value) for name in names)
    return ", ".join(shown)
