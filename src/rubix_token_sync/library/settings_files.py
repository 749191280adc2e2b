"""Which settings are in force and where each comes from; whether a settings file will do."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, Unpack

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.library.configuration import (
    PathName,
    SettingsOverrides,
    check_roots,
    mistyped_variables,
    no_target_named,
    settings_of,
)
from rubix_token_sync.nodes.keep_out import Output, keep_out, node_around
from rubix_token_sync.settings import Settings, describe
from rubix_token_sync.settings.load import check_settings_file
from rubix_token_sync.settings.masking import masked
from rubix_token_sync.settings.model import Profile
from rubix_token_sync.settings.search import find_settings_file, find_target, settings_candidates
from rubix_token_sync.targets.connection_file import read_target_file
from rubix_token_sync.targets.registry import parse_target

__all__ = ["SettingRow", "SettingsOverview", "check_settings", "describe_settings"]


@dataclass(frozen=True)
class SettingRow:
    """One setting; secrets are masked."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True)
class SettingsOverview:
    """Every setting in force, the settings file, and the target."""

    settings_file: str | None
    settings_file_because: str
    searched: tuple[str, ...]
    target_kind: Literal["address", "file", "none"]
    target: str
    """An address without its secrets, or the path of a connection file."""
    target_because: str
    settings: tuple[SettingRow, ...]
    notes: tuple[str, ...]


def describe_settings(
    *roots: PathName,
    config: PathName | None = None,
    profile: Profile | None = None,
    embedded: bool = True,
    **overrides: Unpack[SettingsOverrides],
) -> SettingsOverview:
    """What a call with these options would use; ``embedded`` as in `configure`.

    Raises:
        SettingsError: a setting or the settings file is wrong.
    """
    settings = settings_of(*roots, config=config, profile=profile, **overrides)
    found = settings.settings_file
    choice = find_target(settings, found.path, node_around, embedded=embedded)
    is_address = choice.kind == "address"
    rows = [SettingRow(row.name, row.value, row.origin) for row in describe(settings)]
    named = None if config is None else os.fspath(config)
    return SettingsOverview(
        settings_file=found.path,
        settings_file_because=found.why,
        searched=tuple(
            place.path for place in settings_candidates(named, os.environ, os.path.expanduser("~"))
        ),
        target_kind=choice.kind,
        target=masked(choice.value) if is_address else choice.value,
        target_because=choice.why,
        settings=tuple(
            SettingRow(row.name, "not used", row.origin)
            if row.name == "target" and not is_address
            else row
            for row in rows
        ),
        notes=(*found.notes, *choice.notes, *mistyped_variables()),
    )


def check_settings(file: PathName | None = None) -> tuple[str, list[SettingsError]]:
    """The path of a settings file, by default the one in use, and everything wrong with it.

    Tests its keys, its values and the files and directories that it names; connects to nothing.

    Raises:
        SettingsError: ``no_settings_file``: none was named or found.
    """
    found = os.fspath(file) if file is not None else None
    path = found or find_settings_file(None, os.environ, node_around).path
    if path is None:
        raise SettingsError(
            "No settings file was found in any of the places searched.",
            code="no_settings_file",
            remedy="Name one, or run `rubix-token-sync init`.",
        )
    settings, problems = check_settings_file(path)
    if settings is not None:
        problems += _problems_of_files(settings, path)
    return path, problems


def _problems_of_files(settings: Settings, path: str) -> list[SettingsError]:
    """What is wrong with the files and directories that the settings name."""
    problems: list[SettingsError] = []
    tests: tuple[Callable[[Settings], None], ...] = (
        partial(_target, path=path),
        _alert_urls,
        lambda settings: check_roots(settings.roots),
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
    choice = find_target(settings, path, node_around)
    if choice.kind == "none":
        raise no_target_named()
    text = choice.value
    if choice.kind == "file":
        insecure = settings.allow_insecure_target_file
        text = read_target_file(choice.value, allow_insecure=insecure).text.get_secret_value()
    target = parse_target(text)
    target.secrets()  # which reads a connection string to its end
    target.exists()  # and this the name of a file; nothing is connected to


def _alert_urls(settings: Settings) -> None:
    if settings.alert_urls_file is not None:
        from rubix_token_sync.alerts.channels import read_urls_file

        insecure = settings.allow_insecure_target_file
        read_urls_file(settings.alert_urls_file, allow_insecure=insecure)


def _program(settings: Settings) -> None:
    program = settings.ipfs_program
    if program is not None and not (os.path.isfile(program) and os.access(program, os.X_OK)):
        raise SettingsError(
            f"ipfs_program = {program!r} is not a program that this user can run.",
            code="ipfs_program_missing",
            remedy="Give the path of the ipfs program, or remove the setting.",
        )


_OUTPUTS: Final[dict[str, Output]] = {"log_file": "stream", "metrics_file": "file"}


def _places(settings: Settings) -> None:
    if settings.scratch is not None and not Path(settings.scratch).is_dir():
        raise SettingsError(
            f"scratch = {settings.scratch!r} is not a directory.",
            code="scratch_missing",
            remedy="Make it, or remove the setting.",
        )
    for name in ("scratch", "report", "log_file", "state_directory", "metrics_file"):
        place: str | None = getattr(settings, name)
        if place is not None:
            keep_out(place, f"{name} = {place!r}", _OUTPUTS.get(name, "place"))
