"""`config show` and `config check`: what is set, by whom, and whether a file will do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rubix_token_sync.cli.options import common_options
from rubix_token_sync.errors import SettingsError
from rubix_token_sync.text import shown as escaped

if TYPE_CHECKING:
    from rubix_token_sync.settings import Settings

__all__ = ["config"]


@click.group()
def config() -> None:
    """Show every setting with its origin; test a settings file."""


@config.command()
@common_options
def show(**options: Any) -> int:
    """Show every setting with its value and where that comes from; secrets are masked.

    Shows also where a settings file is looked for, which one is used, and the target.
    Exit codes: 0; 2 a setting is wrong.
    """
    from rubix_token_sync.library.configuration import mistyped_variables
    from rubix_token_sync.nodes.keep_out import node_around
    from rubix_token_sync.settings import Settings, describe, load_settings
    from rubix_token_sync.settings.masking import masked
    from rubix_token_sync.settings.search import (
        find_settings_file,
        find_target,
        settings_candidates,
    )

    flags = {k: v for k, v in options.items() if v is not None and k in Settings.model_fields}
    found = find_settings_file(options["config"], os.environ, node_around)
    settings = load_settings(flags, found.path, options["profile"])
    choice = find_target(
        settings, found.path, node_around, embedded=not options["no_default_target"]
    )
    target = masked(choice.value) if choice.kind == "address" else choice.value
    rows = [
        row._replace(value="not used") if row.name == "target" and choice.kind != "address" else row
        for row in describe(settings)
    ]
    home = os.path.expanduser("~")
    searched = [c.path for c in settings_candidates(options["config"], os.environ, home)]
    notes = [*found.notes, *choice.notes, *mistyped_variables()]
    if options["as_json"]:
        document = {
            "settings_file": found.path,
            "settings_file_because": found.why,
            "searched": searched,
            "target": {"kind": choice.kind, "value": target, "because": choice.why},
            "settings": {
                row.name.lower(): {"value": row.value, "origin": row.origin} for row in rows
            },
            "notes": notes,
        }
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    click.echo(escaped(f"Settings file: {found.path or 'none'} ({found.why})"))
    click.echo(escaped(f"Looked for:    {', '.join(searched)}"))
    click.echo(escaped(f"Target:        {target or 'none'} ({choice.why})"))
    click.echo()
    width = max(len(row.name) for row in rows)
    for row in rows:
        click.echo(escaped(f"{row.name:<{width}}  {row.value or '-'}  ({row.origin})"))
    for note in notes:
        click.echo("\n" + escaped(note), err=True)
    return 0


@config.command()
@click.argument("file", required=False, metavar="[FILE]", type=click.Path(path_type=str))
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def check(file: str | None, as_json: bool) -> int:
    """Test a settings file: its keys, its values and the files and directories it names.

    FILE defaults to the settings file that a run would use.  Nothing is connected to: that is
    what `check` does.  Exit codes: 0 it will do; 2 it will not.
    """
    from rubix_token_sync.nodes.keep_out import node_around
    from rubix_token_sync.settings.load import check_settings_file
    from rubix_token_sync.settings.search import find_settings_file

    path = file if file is not None else find_settings_file(None, os.environ, node_around).path
    if path is None:
        raise SettingsError(
            "There is no settings file in any of the places where one is looked for.",
            code="no_settings_file",
            remedy="Name one, or run `rubix-token-sync init`.",
        )
    settings, problems = check_settings_file(path)
    if settings is not None:
        problems += _problems_of_files(settings, path)
    if as_json:
        document = {
            "ok": not problems,
            "exit_code": 2 if problems else 0,
            "file": path,
            "problems": [
                {"code": p.code, "message": p.message, "remedy": p.remedy} for p in problems
            ],
        }
        print(json.dumps(document, indent=2, ensure_ascii=False))
    elif not problems:
        click.echo(escaped(f"{path} is good."))
    for problem in () if as_json else problems:
        click.echo(escaped(f"{problem.message} [{problem.code}]"))
        if problem.remedy:
            click.echo(escaped(f"  {problem.remedy}"))
    return 2 if problems else 0


def _problems_of_files(settings: Settings, path: str) -> list[SettingsError]:
    """What is wrong with the files and directories that the settings name."""
    problems: list[SettingsError] = []
    tests: tuple[Callable[[Settings], None], ...] = (
        partial(_target, path=path),
        _alert_urls,
        _roots,
        _program,
        _places,
    )
    for test in tests:
        try:
            test(settings)
        except SettingsError as error:
            problems.append(error)
    return problems


def _target(settings: Settings, path: str) -> None:
    """The target as a run with this settings file would choose it."""
    from rubix_token_sync.library.configuration import no_target_named
    from rubix_token_sync.nodes.keep_out import node_around
    from rubix_token_sync.settings.search import find_target
    from rubix_token_sync.targets.connection_file import read_target_file
    from rubix_token_sync.targets.registry import parse_target

    choice = find_target(settings, path, node_around)
    if choice.kind == "none":
        raise no_target_named()
    text = choice.value
    if choice.kind == "file":
        insecure = settings.allow_insecure_target_file
        text = read_target_file(choice.value, allow_insecure=insecure).text.get_secret_value()
    parse_target(text).secrets()  # which reads a connection string to its end


def _alert_urls(settings: Settings) -> None:
    if settings.alert_urls_file is not None:
        from rubix_token_sync.alerts.channels import read_urls_file

        insecure = settings.allow_insecure_target_file
        read_urls_file(settings.alert_urls_file, allow_insecure=insecure)


def _roots(settings: Settings) -> None:
    from rubix_token_sync.library.configuration import check_roots

    check_roots(settings.roots)


def _program(settings: Settings) -> None:
    program = settings.ipfs_program
    if program is not None and not (os.path.isfile(program) and os.access(program, os.X_OK)):
        raise SettingsError(
            f"ipfs_program = {program!r} is not a program that this user can run.",
            code="ipfs_program_missing",
            remedy="Give the path of the ipfs program, or remove the setting.",
        )


def _places(settings: Settings) -> None:
    from rubix_token_sync.nodes.keep_out import keep_out

    if settings.scratch is not None and not Path(settings.scratch).is_dir():
        raise SettingsError(
            f"scratch = {settings.scratch!r} is not a directory.",
            code="scratch_missing",
            remedy="Make it, or remove the setting.",
        )
    for name in ("scratch", "report", "log_file", "state_directory", "metrics_file"):
        place: str | None = getattr(settings, name)
        if place is not None:
            keep_out(place, f"{name} = {place!r}")
