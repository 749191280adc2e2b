"""`errors`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import (
    Looking,
    common_options,
    csv_option,
    limit_option,
    node_option,
    since_option,
    source_option,
    takes,
)
from rubix_token_sync.cli.output import Column, answer, count, print_table, say, when
from rubix_token_sync.documents import errors_document

if TYPE_CHECKING:
    from rubix_token_sync import FailureReport, Reason

__all__ = ["errors"]

Category = Literal["ipfs", "database", "validation", "system"]
_CATEGORIES = ("ipfs", "database", "validation", "system")


@dataclass(frozen=True, kw_only=True)
class ErrorsArguments(Looking):
    """Options of `errors`."""

    since: timedelta | None
    nodes: tuple[str, ...]
    category: Category | None
    limit: int
    export: str | None


@click.command()
@common_options
@since_option
@source_option
@node_option
@click.option("--category", type=click.Choice(_CATEGORIES), help="Only errors of this category.")
@limit_option(20)
@click.option(
    "--export",
    metavar="FILE",
    help="Write every single error there: .csv, else JSON lines; --limit does not count.",
)
@csv_option
@takes(ErrorsArguments)
def errors(arguments: ErrorsArguments) -> int:
    """Show what failed, by category and reason, with an example of each.

    Content and validation errors are those of the records as they are now,
    events are what runs wrote down.  Exit codes: 0; 2 usage; 3 the target
    cannot be reached.
    """
    with rts.open_target(configuration=arguments.configured()) as target:
        target.require_known(sources=arguments.sources, nodes=arguments.nodes)
        exported = None
        if arguments.export:
            lines = target.export_errors(
                arguments.export,
                since=arguments.since,
                sources=arguments.sources,
                nodes=arguments.nodes,
                category=arguments.category,
            )
            exported = {"file": arguments.export, "lines": lines}
        found = target.errors(
            since=arguments.since,
            sources=arguments.sources,
            nodes=arguments.nodes,
            category=arguments.category,
            limit=arguments.limit,
        )

        def table() -> None:
            _show(found)
            if exported is not None:
                say(f"{rts.counted(lines, 'error')} written to {arguments.export}")

        answer(
            as_json=arguments.as_json,
            as_csv=arguments.as_csv,
            quiet=arguments.quiet,
            document=errors_document(target, found, exported),
            rows=(rts.Reason, [*found.content, *found.validation, *found.events]),
            table=table,
        )
    return 0


def _show(found: FailureReport) -> None:
    """The guide's error summary, then each kind of error with an example."""
    if not (found.nodes or found.content or found.validation or found.events):
        say("No errors.")
        return
    if found.nodes:
        print_table(
            [
                Column("Source", 1), Column("Node"), Column("Records", right=True),
                Column("Content", right=True), Column("Missing", right=True),
                Column("Invalid", right=True),
            ],
            [
                [
                    node.source_ip, node.node_name, count(node.total_records),
                    count(node.ipfs_success), count(node.ipfs_failures),
                    count(node.validation_errors),
                ]
                for node in found.nodes
            ],
        )  # fmt: skip
    for title, reasons in (
        ("Records without content", found.content),
        ("Records with validation errors", found.validation),
        ("Events of runs", found.events),
    ):
        if reasons:
            say()
            print_table(
                [
                    Column(title), Column("Count", right=True), Column("Last (UTC)", 3),
                    Column("Node", 2), Column("Example", 1, wraps=True),
                ],
                [
                    [
                        f"{reason.category}/{reason.code}", count(reason.count),
                        when(reason.last_at), reason.example.node_name if reason.example else "",
                        _example(reason),
                    ]
                    for reason in reasons
                ],
            )  # fmt: skip
    say()
    say("`rubix-token-sync explain CODE` says what to do about each.")


def _example(reason: Reason) -> str:
    """The example's token and message without what the table says already."""
    if reason.example is None:
        return ""
    token = f"{_short(reason.example.token_id, 64)}: " if reason.example.token_id else ""
    return token + _short(reason.said, 200)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"
