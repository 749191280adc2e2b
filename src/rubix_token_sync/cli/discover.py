"""`discover`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import Common, common_options, root_arguments, takes
from rubix_token_sync.cli.output import Column, answer, print_table, say

if TYPE_CHECKING:
    from rubix_token_sync import Skipped

__all__ = ["discover"]


@click.command()
@root_arguments
@common_options
@takes(Common)
def discover(arguments: Common) -> int:
    """Show what sync would read below each ROOT, and what it skips and why."""
    roots = arguments.configured(needs_target=False).roots
    found = rts.discover(*roots)

    def table() -> None:
        print_table(
            [Column("Node"), Column("Database"), Column("Repository", 1)],
            [[node.name, node.db_path, node.repository or "-"] for node in found.nodes],
        )
        for skipped in found.skipped:
            say(f"skipped {_line(skipped)}", "31" if skipped.hides_nodes else "")
        for note in found.notes:
            say(f"note {_line(note)}")
        hiding = sum(skipped.hides_nodes for skipped in found.skipped)
        say(
            f"{rts.counted(len(found.nodes), 'database')} found, "
            f"{rts.counted(len(found.skipped), 'thing') if found.skipped else 'nothing'} skipped."
        )
        if hiding:
            say(f"{hiding:,} of the skipped may hide nodes: a sync ends with exit code 1.")

    answer(
        as_json=arguments.as_json,
        quiet=False,
        document={
            "roots": list(roots),
            "nodes": [asdict(node) for node in found.nodes],
            "skipped": [asdict(skipped) for skipped in found.skipped],
            "notes": [asdict(note) for note in found.notes],
        },
        table=table,
    )
    return 0


def _line(skipped: Skipped) -> str:
    remedy = f" {skipped.remedy}" if skipped.remedy else ""
    return f"{skipped.path}: {skipped.sentence}{remedy} [{skipped.reason_code}]"
