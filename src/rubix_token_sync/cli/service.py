"""`install-service`: units that run the sync on time, as an unprivileged user, in a sandbox."""

from __future__ import annotations

import getpass
import os
import pwd
import re
import shlex
import sys
from importlib.resources import files
from pathlib import Path
from typing import Final

import click

import rubix_token_sync as rts
from rubix_token_sync.cli.options import root_arguments
from rubix_token_sync.deploy.calendar import refusal
from rubix_token_sync.installation import program, program_path

__all__ = ["FORMS", "install_service", "render"]

FORMS: Final = {
    "systemd": (
        "rubix-token-sync.service",
        "rubix-token-sync.timer",
        "rubix-token-sync-status.service",
        "rubix-token-sync-status.timer",
        "rubix-token-sync-web.service",
    ),
    "cron": ("rubix-token-sync.cron",),
    "logrotate": ("rubix-token-sync.logrotate",),
    "container": ("Containerfile",),
    "prometheus": ("prometheus-rules.yml",),
    "grafana": ("grafana-dashboard.json",),
    "cluster-worker": ("rubix-token-sync-worker.service",),
    "cluster-scheduler": ("rubix-token-sync-scheduler.service",),
    "cluster-fleet": ("rubix-token-sync-fleet.service", "rubix-token-sync-fleet.timer"),
}
"""What can be written, and the files of each."""

_RUNS: Final = ("systemd", "cron", "cluster-worker", "cluster-fleet")
"""Forms that run the program as a user, with a settings file."""
_ENABLED: Final = {
    "systemd": "rubix-token-sync.timer",
    "cluster-worker": "rubix-token-sync-worker.service",
    "cluster-scheduler": "rubix-token-sync-scheduler.service",
    "cluster-fleet": "rubix-token-sync-fleet.timer",
}
"""What `systemctl enable --now` gets."""
_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,31}")
_CALENDAR: Final = re.compile(r"[A-Za-z0-9*:,./~ -]{1,100}")


@click.command("install-service")
@root_arguments
@click.option(
    "--form",
    type=click.Choice(list(FORMS)),
    default="systemd",
    show_default=True,
    help="What to write.",
)
@click.option(
    "--to",
    "directory",
    metavar="DIR",
    help="Write files there (/etc/systemd/system); else they are printed.",
)
@click.option("--user", metavar="NAME", help="The user that owns the nodes. Default: you.")
@click.option(
    "--config",
    metavar="FILE",
    default="/etc/rubix-token-sync/settings.toml",
    show_default=True,
    help="Settings file of the service.",
)
@click.option(
    "--calendar",
    metavar="WHEN",
    default="*-*-* 02:17:00",
    show_default=True,
    help="When systemd starts a run (systemd.time).",
)
@click.option(
    "--scheduler",
    metavar="URL",
    help="Of the forms cluster-…: where the scheduler listens, tls://HOST:8786.",
)
@click.option("--remove", is_flag=True, help="Remove what an earlier call wrote to --to.")
def install_service(
    roots: tuple[str, ...],
    form: str,
    directory: str | None,
    user: str | None,
    config: str,
    calendar: str,
    scheduler: str | None,
    remove: bool,
) -> int:
    """Write the files that run the sync on time; nothing is started or enabled.

    Exit codes: 0; 2 usage, or the directory cannot be written.
    """
    if remove:
        if directory is None:
            raise click.UsageError("--remove needs --to: where the files are.")
        return _remove(form, Path(directory))
    values = {
        "user": user or _own_name(),
        "config": str(Path(config).absolute()),
        "calendar": calendar,
        "scheduler": _scheduler(form, scheduler),
    }
    _check(values, roots)
    if directory is not None:
        rts.keep_out(directory, "The unit files")
    for name in FORMS[form]:
        text = render(name, roots=tuple(str(Path(r).absolute()) for r in roots), **values)
        if directory is None:
            click.echo(f"# {name}\n{text}" if len(FORMS[form]) > 1 else text, nl=False)
            continue
        path = Path(directory) / name
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise _unwritable(path, error, "written") from error
        click.echo(f"Wrote {path}", err=True)
    if directory is not None and form in _ENABLED:
        click.echo(
            f"Then, as root: systemctl daemon-reload && systemctl enable --now {_ENABLED[form]}",
            err=True,
        )
    if directory is not None and form == "systemd":
        click.echo(
            "On one machine also: systemctl enable --now rubix-token-sync-status.timer\n"
            "For the page (docs/WEB.md): systemctl enable --now rubix-token-sync-web.service",
            err=True,
        )
    if directory is not None and form in _RUNS:
        for note in _missing(values["user"], values["config"], roots):
            click.echo(f"Before it runs: {note}", err=True)
    return 0


def _missing(user: str, config: str, roots: tuple[str, ...]) -> list[str]:
    """What the service needs and this machine does not have yet."""
    notes = []
    try:
        uid: int | None = pwd.getpwnam(user).pw_uid
    except KeyError:
        notes.append(f"the user {user} does not exist here: useradd --system {user}")
        uid = None
    notes += [f"{root} is not a directory." for root in roots if not os.path.isdir(root)]
    if not os.path.exists(config):
        where = os.path.dirname(config)
        named = os.path.basename(config) == "settings.toml"
        by = f"`{program()} init --system --user {user} {where}`" if named else "write it"
        return [*notes, f"{config} does not exist: {by}"]
    owner = os.stat(config).st_uid
    if uid not in (None, owner) and os.stat(config).st_mode & 0o004 == 0:
        notes.append(f"{user} cannot read {config}: chown {user} {config}")
    if os.access(config, os.R_OK):
        notes += [f"{problem} [{problem.code}]" for problem in rts.check_settings(config)[1]]
    return notes


def _remove(form: str, directory: Path) -> int:
    """Remove our files from a directory; what is not there is gone already."""
    for name in FORMS[form]:
        path = directory / name
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unwritable(path, error, "removed") from error
        click.echo(f"Removed {path}", err=True)
    if form in _ENABLED:
        click.echo("Then, as root: systemctl daemon-reload", err=True)
    return 0


def _unwritable(path: Path, error: OSError, done: str) -> rts.SettingsError:
    return rts.SettingsError(
        f"{path} cannot be {done}: {error.strerror}.",
        code="service_unwritable",
        remedy="Run as root for /etc, or choose another directory by --to.",
    )


def _check(values: dict[str, str], roots: tuple[str, ...]) -> None:
    """Nothing that could add a line or a directive to a unit or to cron's table."""
    if not _USER.fullmatch(values["user"]):
        raise rts.SettingsError(
            f"{values['user']!r} is not a user's name.",
            code="bad_user_name",
            remedy="Name the user that owns the nodes by --user.",
        )
    calendar = values["calendar"]
    reason = refusal(calendar) if _CALENDAR.fullmatch(calendar) else "it has other characters"
    if reason is not None:
        raise rts.SettingsError(
            f"{calendar!r} is not a time at which systemd could start a run: {reason}.",
            code="bad_calendar",
            remedy="Write it as systemd.time(7) has it, for example '*-*-* 02:17:00' or 'daily'.",
        )
    for path in (values["config"], values["scheduler"], *roots):
        if not path.isprintable() or set(path) & set("%$\\\"'`"):
            raise rts.SettingsError(
                f"{path!r} cannot be written into a unit safely.",
                code="path_not_plain",
                remedy="Use paths without quotes, %, $, backslashes and control characters.",
            )


def _scheduler(form: str, given: str | None) -> str:
    """The address in full, where the form needs one."""
    if not form.startswith("cluster-"):
        return ""
    if given is None:
        raise click.UsageError(f"The form {form} needs --scheduler: where the scheduler listens.")
    from rubix_token_sync.cluster import Address

    return str(Address.parse(given))


def render(
    name: str,
    *,
    roots: tuple[str, ...],
    user: str,
    config: str,
    calendar: str,
    scheduler: str = "",
) -> str:
    """One file of `FORMS`, filled in; ``roots`` empty: those of the settings file."""
    text = files("rubix_token_sync.deploy").joinpath(name).read_text(encoding="utf-8")
    filled = {
        "@USER@": user,
        "@PROGRAM@": _program(),
        "@CONFIG@": _quoted(config),
        "@CALENDAR@": calendar,
        "@SCHEDULER@": scheduler,
        "@ROOTS@": " ".join(map(_quoted, roots)),
        "@ROOTS_SHOWN@": " ".join(roots) or "the configured roots",
    }
    for mark, value in filled.items():
        text = text.replace(mark, value)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _quoted(path: str) -> str:
    """For a unit and for cron's shell alike: quoted where there is a blank."""
    return f'"{path}"' if shlex.quote(path) != path else path


def _program() -> str:
    """The absolute path of this program, as the service will call it."""
    return program_path() or f"{sys.executable} -P -m rubix_token_sync"


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # this user id has no name
        raise rts.SettingsError(
            "This user has no name, so no service can run as it.",
            code="bad_user_name",
            remedy="Name the user that owns the nodes by --user.",
        ) from None
