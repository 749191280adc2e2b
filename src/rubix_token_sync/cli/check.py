"""`check`."""

from __future__ import annotations

from dataclasses import asdict

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import (
    Loading,
    common_options,
    judging_options,
    loading_options,
    root_arguments,
    takes,
)
from rubix_token_sync.cli.output import answer, say

__all__ = ["check"]


@click.command()
@root_arguments
@common_options
@judging_options
@loading_options
@takes(Loading)
def check(arguments: Loading) -> int:
    """Test everything a run needs, through the run's own code.

    Settings, the target file's permissions, login, TLS, rights (create,
    bulk-load, publish, drop), schema version, clock; with ROOTs each node's
    database and repository too.  Exit codes: 0 all well; 1 a node has a
    problem, or a directory cannot be read; 2 settings; 3 the target.
    """
    report = rts.check(configuration=arguments.configured())

    def table() -> None:
        for result in sorted(report.checks, key=lambda one: (one.ok, not one.warning)):
            well = result.ok and not result.warning
            if result.ok and arguments.quiet:
                continue
            code = f" [{result.code}]" if result.code and not well else ""
            mark, style = ("ok  ", "") if well else ("warn", "33") if result.ok else ("FAIL", "31")
            say(f"{mark} {result.name}: {result.detail}{code}", style)
            if result.remedy and not well:
                say(result.remedy, indent="     ")
        if not arguments.quiet:
            warned = any(result.ok and result.warning for result in report.checks)
            ready = "Everything a run needs is there"
            ready += "; see the warnings above." if warned else "."
            say(ready if report.ok else "Not ready.")

    answer(
        as_json=arguments.as_json,
        quiet=False,
        document={
            "ok": report.ok,
            "exit_code": report.exit_code,
            "checks": [asdict(result) for result in report.checks],
        },
        table=table,
    )
    return report.exit_code
