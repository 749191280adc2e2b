"""`config show` and `config check`: what is set, by whom, and whether a file will do."""

from __future__ import annotations

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import Common, common_options, takes
from rubix_token_sync.cli.output import print_json, say

__all__ = ["config"]


@click.group()
def config() -> None:
    """Show every setting with its origin; test a settings file."""


@config.command()
@common_options
@takes(Common)
def show(options: Common) -> int:
    """Show every setting with its value and where that comes from; secrets are masked.

    Shows also where a settings file is looked for, which one is used, and the target.
    Exit codes: 0; 2 a setting is wrong.
    """
    found = rts.describe_settings(
        config=options.config,
        profile=options.profile,
        embedded=not options.no_default_target,
        **options.overrides(),
    )
    if options.as_json:
        document = {
            "settings_file": found.settings_file,
            "settings_file_because": found.settings_file_because,
            "searched": list(found.searched),
            "target": {
                "kind": found.target_kind,
                "value": found.target,
                "because": found.target_because,
            },
            "settings": {
                row.name.lower(): {"value": row.value, "origin": row.origin}
                for row in found.settings
            },
            "notes": list(found.notes),
        }
        print_json(document)
        return 0
    because = found.settings_file_because
    say(
        f"Settings file: {found.settings_file} ({because})"
        if found.settings_file
        else f"Settings file: {because}"
    )
    say(f"Looked for:    {', '.join(found.searched)}")
    say(f"Target:        {found.target or 'none'} ({found.target_because})")
    say()
    width = max(len(row.name) for row in found.settings)
    for row in found.settings:
        say(f"{row.name:<{width}}  {row.value or '-'}  ({row.origin})")
    for note in found.notes:
        click.echo(rts.shown(note), err=True)
    return 0


@config.command()
@click.argument("file", required=False, metavar="[FILE]", type=click.Path(path_type=str))
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def check(file: str | None, as_json: bool) -> int:
    """Test a settings file: its keys, its values and the files and directories it names.

    FILE defaults to the settings file that a run would use.  Nothing is connected to: that is
    what `check` does.  Exit codes: 0 it will do; 2 it will not.
    """
    path, problems = rts.check_settings(file)
    if as_json:
        document = {
            "ok": not problems,
            "exit_code": 2 if problems else 0,
            "file": path,
            "problems": [
                {"code": p.code, "message": p.message, "remedy": p.remedy} for p in problems
            ],
        }
        print_json(document)
    elif not problems:
        say(f"{path} is valid.")
    for problem in () if as_json else problems:
        say(f"{problem.message} [{problem.code}]")
        if problem.remedy:
            say(f"  {problem.remedy}")
    return 2 if problems else 0
