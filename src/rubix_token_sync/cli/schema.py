"""`schema show` and `schema upgrade`."""

from __future__ import annotations

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import Common, common_options, takes
from rubix_token_sync.cli.output import answer, say

__all__ = ["schema"]


@click.group()
def schema() -> None:
    """Show the tables' DDL for a DBA to read, or apply it."""


@schema.command()
@common_options
@takes(Common)
def show(arguments: Common) -> int:
    """Print the DDL that makes the tables in an empty database of the target's kind.

    Nothing is connected to.  After a DBA has run it, the program needs no DDL
    rights (see docs/AZURE_SQL.md for the grants).
    """
    script = rts.schema_script(arguments.configured())

    def table() -> None:
        for line in script.ddl.splitlines():
            say(line)

    answer(
        as_json=arguments.as_json,
        quiet=False,
        document={"version": script.version, "ddl": script.ddl},
        table=table,
    )
    return 0


@schema.command()
@common_options
@takes(Common)
def upgrade(arguments: Common) -> int:
    """Create the tables, or bring older ones up to date in place; no row is lost."""
    done = rts.upgrade_schema(arguments.configured())
    what = f"upgraded from {done.before} to" if done.before else "created at"
    if not done.changed:
        what = "already at"
    answer(
        as_json=arguments.as_json,
        quiet=arguments.quiet,
        document={
            "target": done.target,
            "from": done.before,
            "to": done.version,
            "changed": done.changed,
        },
        table=lambda: say(f"{done.target}: {what} version {done.version}."),
    )
    return 0
