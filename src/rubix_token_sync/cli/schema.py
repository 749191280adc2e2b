"""`schema show` and `schema upgrade`."""

from __future__ import annotations

import json
from typing import Any

import click

from rubix_token_sync.cli.options import common_options, load_common, store_options


@click.group()
def schema() -> None:
    """Show the tables' DDL for a DBA to read, or apply it."""


@schema.command()
@common_options
def show(**options: Any) -> int:
    """Print the DDL that makes the tables in an empty database of the target's kind.

    Nothing is connected to.  After a DBA has run it, the program needs no DDL
    rights (see docs/AZURE_SQL.md for the grants).
    """
    from rubix_token_sync.targets.base import SCHEMA_VERSION
    from rubix_token_sync.targets.registry import open_target

    common = load_common(options)
    store = open_target(common.target, store_options(common.settings, read_only=True))
    try:
        script = store.schema_script()
    finally:
        store.close()
    if common.as_json:
        print(json.dumps({"version": SCHEMA_VERSION, "ddl": script}, indent=2))
    else:
        click.echo(script, nl=False)
    return 0


@schema.command()
@common_options
def upgrade(**options: Any) -> int:
    """Create the tables, or bring older ones up to date in place; no row is lost."""
    from rubix_token_sync.targets.base import SCHEMA_VERSION
    from rubix_token_sync.targets.registry import open_target

    common = load_common(options)
    store = open_target(common.target, store_options(common.settings))
    try:
        before = store.schema_version()
        changed = store.ensure_schema()
        place = store.place
    finally:
        store.close()
    if common.as_json:
        document = {"target": place, "from": before, "to": SCHEMA_VERSION, "changed": changed}
        print(json.dumps(document, indent=2))
    elif not common.quiet:
        what = f"upgraded from {before or 'nothing'}" if changed else "already"
        click.echo(f"{place}: {what} at version {SCHEMA_VERSION}.")
    return 0
