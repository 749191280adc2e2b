"""`discover` and `check`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from rubix_token_sync.cli.options import (
    common_options,
    content_options,
    load_common,
    loading_options,
    root_arguments,
    store_options,
)
from rubix_token_sync.cli.sync import check_root

__all__ = ["check", "discover"]


@click.command()
@root_arguments
@common_options
def discover(**options: Any) -> int:
    """Show what sync would read below each ROOT, and what it skips and why."""
    from rubix_token_sync.nodes.discovery import discover as find

    common = load_common(options)
    for root in common.roots:
        check_root(root)
    found = find(common.roots)
    if common.as_json:
        document = {
            "roots": list(common.roots),
            "nodes": [asdict(node) for node in found.nodes],
            "skipped": [asdict(skipped) for skipped in found.skipped],
            "notes": [asdict(note) for note in found.notes],
        }
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    from rich.table import Table
    from rich.text import Text

    from rubix_token_sync.cli.console import stdout_console

    console = stdout_console()
    table = Table(box=None, pad_edge=False)
    for name in ("Node", "Database", "Repository"):
        table.add_column(name, overflow="fold")
    for node in found.nodes:
        table.add_row(Text(node.name), Text(node.db_path), Text(node.repository or "-"))
    console.print(table)
    for skipped in found.skipped:
        console.print(Text(f"skipped {skipped.path}: {skipped.sentence}"))
    for note in found.notes:
        console.print(Text(f"note {note.path}: {note.sentence}"))
    console.print(f"{len(found.nodes)} databases found, {len(found.skipped)} things skipped.")
    return 0


@click.command()
@root_arguments
@common_options
@loading_options
def check(**options: Any) -> int:
    """Test everything a run needs, through the run's own code.

    Settings, the target file's permissions, login, TLS, rights (create,
    bulk-load, publish, drop), schema version, clock; with ROOTs each node's
    database and repository too.  Exit codes: 0 all well; 1 a node has a
    problem; 2 settings; 3 the target.
    """
    from rubix_token_sync.runs.check import run_checks

    common = load_common(options)
    for root in options["roots"] or common.settings.roots:
        check_root(root)
    results = run_checks(
        common.settings,
        common.target,
        store_options(common.settings),
        content_options(common.settings),
        common.roots if options["roots"] or common.settings.roots else (),
        common.notes,
    )
    code = max((r.exit_code for r in results if not r.ok), default=0)
    if common.as_json:
        document = {"ok": code == 0, "exit_code": code, "checks": [asdict(r) for r in results]}
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return code
    from rich.text import Text

    from rubix_token_sync.cli.console import stdout_console

    console = stdout_console()
    for result in results:
        mark = Text("ok   ", style="green") if result.ok else Text("FAIL ", style="bold red")
        console.print(mark + Text(f"{result.name}: {result.detail}", style=""))
        if result.remedy and not result.ok:
            console.print(Text(f"     {result.remedy}"))
    if not common.quiet:
        console.print("Everything a run needs is there." if code == 0 else "Not ready.")
    return code
