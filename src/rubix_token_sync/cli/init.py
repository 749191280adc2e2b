"""`init`: a settings file and a connection file, for one person or for a service."""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.installation import program

__all__ = ["init", "make_directory"]

_SYSTEM: Final = "/etc/rubix-token-sync"
_SERVICE_FILE: Final = "settings.toml"
"""The name under which `install-service` looks for the settings."""


@click.command()
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.option(
    "--system",
    is_flag=True,
    help=f"For a service: DIR is {_SYSTEM} by default, the file {_SERVICE_FILE}.",
)
@click.option("--user", metavar="NAME", help="Owner of the files: the service's user (as root).")
@click.option(
    "--set",
    "given",
    metavar="NAME=VALUE",
    multiple=True,
    help="Set it in the settings file; repeat. Not for secrets.",
)
@click.option(
    "--connection",
    metavar="FILE",
    type=click.File("r", encoding="utf-8"),
    help="Take the connection string from there; - is stdin. Default: a template to edit.",
)
def init(
    directory: Path | None,
    force: bool,
    system: bool,
    user: str | None,
    given: tuple[str, ...],
    connection: click.File | None,
) -> int:
    """Write a commented settings file and a connection file (mode 600) into DIR.

    DIR defaults to the current directory.  Files that exist stay, unless --force.
    Exit codes: 0; 2 usage, a value that is not allowed, or DIR cannot be written.
    """
    from rubix_token_sync.nodes.keep_out import keep_out
    from rubix_token_sync.settings import commented_settings_file
    from rubix_token_sync.settings.search import CONNECTION_FILE, SETTINGS_FILE
    from rubix_token_sync.targets.connection_file import connection_template

    directory = directory or Path(_SYSTEM if system else ".")
    settings_file = directory / (_SERVICE_FILE if system else SETTINGS_FILE)
    owner = None if user is None else _owner(user)
    settings = commented_settings_file(_values(given))
    text = connection_template() if connection is None else _connection(connection)
    keep_out(settings_file, "The settings file")
    new = not directory.exists()
    make_directory(directory)
    if system and new:
        directory.chmod(0o755)  # the service's user comes in, whatever root's umask is
    for path, content in ((settings_file, settings), (directory / CONNECTION_FILE, text)):
        try:
            written = _write(path, content, force=force, owner=owner)
        except OSError as error:
            raise SettingsError(
                f"{path} cannot be written: {error.strerror}.",
                code="directory_unwritable",
                remedy="Name another directory, or run as root.",
            ) from error
        whose = "mode 600" if user is None else f"mode 600, owner {user}"
        click.echo(
            f"Wrote {path} ({whose})."
            if written
            else f"{path} exists; left as it is (--force replaces it)."
        )
    click.echo(_next_step(settings_file))
    return 0


def _owner(user: str) -> tuple[int, int]:
    """Numbers of a user and its group.

    Raises:
        SettingsError: the user does not exist, or is not the caller and the caller is not root.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise SettingsError(
            f"There is no user {user!r} on this machine.",
            code="bad_user_name",
            remedy=f"Make it first: useradd --system {shlex.quote(user)}",
        ) from None
    if os.geteuid() not in (0, entry.pw_uid):
        raise SettingsError(
            f"Only root can give files to {user}.",
            code="directory_unwritable",
            remedy="Run as root, or as that user.",
        )
    return entry.pw_uid, entry.pw_gid


def _values(given: Sequence[str]) -> dict[str, object]:
    """What ``--set`` said, by setting name, checked.

    Raises:
        SettingsError: an unknown setting, a secret, or a value that is not allowed.
    """
    from rubix_token_sync.cli.suggest import unknown_word
    from rubix_token_sync.settings import Settings
    from rubix_token_sync.settings.load import load_settings
    from rubix_token_sync.settings.model import SECRETS

    texts: dict[str, str] = {}
    for entry in given:
        key, equals, value = entry.partition("=")
        name = key.strip().lower().replace("-", "_")
        if not equals:
            raise click.UsageError(f"--set takes NAME=VALUE, not {entry!r}.")
        if name not in Settings.model_fields:
            raise click.UsageError(unknown_word("setting", name, Settings.model_fields))
        if name in SECRETS:
            raise SettingsError(
                f"{name} can hold a secret: it is not taken from a command line.",
                code="setting_secret",
                remedy="Edit the settings file that `init` wrote; for the target use --connection.",
            )
        texts[name] = value
    settings = load_settings(texts, environ={})
    return {name: getattr(settings, name) for name in texts}


def _connection(file: click.File) -> str:
    """A connection string that some target takes."""
    from rubix_token_sync.targets.registry import parse_target

    text = str(file.read())  # type: ignore[attr-defined]  # click gives the opened file
    parse_target(text.strip())
    return text.strip() + "\n"


def _write(path: Path, text: str, *, force: bool, owner: tuple[int, int] | None) -> bool:
    """Write it, mode 600; False: it exists."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | (os.O_TRUNC if force else os.O_EXCL)
    try:
        fd = os.open(path, flags, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        os.fchmod(fd, 0o600)  # a replaced file keeps its mode otherwise
        if owner is not None:
            os.fchown(fd, *owner)
        file.write(text)
    return True


def _next_step(file: Path) -> str:
    """What to edit and what to run then; a settings file that was there may name its own target."""
    from rubix_token_sync.nodes.keep_out import node_around
    from rubix_token_sync.settings.load import check_settings_file
    from rubix_token_sync.settings.search import find_target
    from rubix_token_sync.targets.connection_file import connection_template

    check = f"{program()} check --config {shlex.quote(str(file))}"
    settings, problems = check_settings_file(file)
    if settings is None:
        return f"{file} cannot be used as it is: {problems[0]} Correct it, then run: {check}"
    choice = find_target(settings, str(file), node_around, embedded=False)
    if choice.kind == "address":
        return f"{file} names its target itself. Test it: {check}"
    if Path(choice.value).read_text(encoding="utf-8", errors="replace") != connection_template():
        return f"Test it: {check}"
    return f"Edit {choice.value}, then run: {check}"


def make_directory(directory: Path) -> None:
    """Make it, where it is not there.

    Raises:
        SettingsError: code ``directory_unwritable``.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"{directory} cannot be made: {error.strerror}.",
            code="directory_unwritable",
            remedy="Name another directory.",
        ) from error
