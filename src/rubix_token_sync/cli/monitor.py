"""`status`, `sessions`, `databases` and `errors`: questions to the target, read only.

What they do is in `rubix_token_sync.cli.answers`, which loads when one is asked.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click

from rubix_token_sync.cli.options import common_options

__all__ = ["databases", "errors", "sessions", "status"]

_CATEGORIES = ("ipfs", "database", "validation", "system")
_STATUSES = ("RUNNING", "COMPLETED", "FAILED", "INTERRUPTED")


def _age(_ctx: click.Context, _param: click.Parameter, value: str | None) -> timedelta | None:
    try:
        if value is None:
            return None
        from rubix_token_sync.monitor import parse_age

        return parse_age(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


_since = click.option(
    "--since", callback=_age, metavar="AGE", help="Only what is not older: 90s, 30m, 24h, 7d, 2w."
)
_source = click.option(
    "--source", "sources", multiple=True, metavar="NAME", help="Only this machine; repeat."
)
_node = click.option(
    "--node", "nodes", multiple=True, metavar="NAME", help="Only this node; repeat."
)
_limit = click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=20,
    show_default=True,
    metavar="N",
    help="At most so many rows of each list.",
)
_max_age = click.option(
    "--max-age",
    callback=_age,
    metavar="AGE",
    help="A node whose last successful sync is older is overdue.",
)
_stuck_after = click.option(
    "--stuck-after",
    callback=_age,
    metavar="AGE",
    default="60s",
    show_default=True,
    help="A run that has been silent for longer is stuck.",
)
_csv = click.option("--csv", "as_csv", is_flag=True, help="CSV on stdout.")


@click.command()
@common_options
@_source
@_node
@_max_age
@_stuck_after
@click.option(
    "--alert",
    is_flag=True,
    help="Also send what no run can tell of itself (stuck, stopped, overdue) to alert_urls.",
)
@_csv
def status(**options: Any) -> int:
    """Show how it stands: runs under way on all machines, stuck ones, what is wrong.

    Exit codes: 0 all is well; 1 something is wrong: a run is stuck, the last
    run of a machine failed or was interrupted, a database could not be
    processed, or (with --max-age) a node is overdue; 2 usage; 3 the target
    cannot be reached.  With --csv the list of problems is printed.
    """
    from rubix_token_sync.cli import answers

    return answers.status(options)


@click.command()
@common_options
@_since
@_source
@click.option(
    "--status",
    "statuses",
    type=click.Choice(_STATUSES, case_sensitive=False),
    multiple=True,
    help="Only runs that ended so, or are under way; repeat.",
)
@_limit
@_stuck_after
@_csv
def sessions(**options: Any) -> int:
    """Show runs, the newest first, with their rates and the trend.

    Exit codes: 0; 2 usage; 3 the target cannot be reached.
    """
    from rubix_token_sync.cli import answers

    return answers.sessions(options)


@click.command()
@common_options
@_since
@_source
@_node
@_max_age
@_csv
def databases(**options: Any) -> int:
    """Show every node's database: records, content missing by reason, invalid, age.

    Exit codes: 0 every database is current; 1 one failed in the last sync or
    (with --max-age) is overdue; 2 usage; 3 the target cannot be reached.
    """
    from rubix_token_sync.cli import answers

    return answers.databases(options)


@click.command()
@common_options
@_since
@_source
@_node
@click.option("--category", type=click.Choice(_CATEGORIES), help="Only errors of this category.")
@_limit
@click.option(
    "--export",
    metavar="FILE",
    help="Write every single error there: .csv, else JSON lines; --limit does not count.",
)
@_csv
def errors(**options: Any) -> int:
    """Show what failed, by category and reason, with an example of each.

    Content and validation errors are those of the records as they are now,
    events are what runs wrote down.  Exit codes: 0; 2 usage; 3 the target
    cannot be reached.
    """
    from rubix_token_sync.cli import answers

    return answers.errors(options)
