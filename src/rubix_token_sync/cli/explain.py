"""`explain`: what a code means, what causes it, what cures it."""

from __future__ import annotations

from dataclasses import asdict

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.output import print_json, say
from rubix_token_sync.installation import runnable

__all__ = ["explain"]


@click.command()
@click.argument("codes", nargs=-1, metavar="[CODE]...")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def explain(codes: tuple[str, ...], as_json: bool) -> int:
    """Explain each CODE: its meaning, its cause and its cure.

    A CODE is what stands in brackets behind a message, in the column `code`, under
    `error.code` with --json, or an exit code. Without one, all are listed. Needs no network
    and no target.  Exit codes: 0; 2 a code is unknown.
    """
    from rubix_token_sync.explanations import Explanation, explanations, find, nearest

    found: list[Explanation] = []
    for code in codes:
        entries = find(code)
        if not entries:
            near = nearest(code)
            raise rts.SettingsError(
                f"{code!r} is not a code of this program.",
                code="unknown_code",
                remedy=f"Did you mean {' or '.join(near)}?"
                if near
                else "`rubix-token-sync explain` lists all of them.",
            )
        found += entries
    if as_json:
        shown = found if codes else explanations()
        document = {"explanations": [asdict(entry) for entry in shown]}
        print_json(document)
        return 0
    if not codes:
        area = ""
        for entry in explanations():
            if entry.area != area:
                area = entry.area
                say()
                say(area)
            say(f"{entry.code:<24} {entry.says}", indent="  ")
        return 0
    for number, entry in enumerate(found):
        parts = [("Says", entry.says), ("Cause", entry.cause), ("Cure", runnable(entry.cure))]
        if number:
            say()
        say(f"{entry.code} ({entry.area})")
        for title, text in parts:
            if text:
                say(f"{title + ':':<7}{text}", indent="  ")
    return 0
