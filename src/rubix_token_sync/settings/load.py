"""Where settings come from: layers, the strongest wins, each value knows its origin."""

from __future__ import annotations

import errno
import os
import select
import stat
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import ValidationError

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.settings.masking import holds_secret
from rubix_token_sync.settings.model import GUIDE_NAMES, PROFILES, SECRETS, Settings, usable_cpus
from rubix_token_sync.settings.show import allowed, shown_name

PREFIX: Final = "RUBIX_SYNC_"
_BESIDE: Final = frozenset({"target_file", "alert_urls_file"})
"""Settings that name a file which is read: relative ones lie beside the settings file."""


class _Given(NamedTuple):
    value: object
    origin: str
    strength: int


def profile_values(profile: str, cpus: int) -> dict[str, int]:
    """The defaults of a profile on a machine with so many processors."""
    if profile == "high-performance":
        return {
            "num_ipfs_workers": cpus * 3,
            "batch_size": 5000,
            "bulk_insert_size": 20_000,
            "connection_pool_size": 15,
        }
    return {
        "num_ipfs_workers": max(2, cpus // 2),
        "batch_size": 1000,
        "bulk_insert_size": 5000,
        "connection_pool_size": 5,
    }


def load_settings(
    flags: Mapping[str, object],
    config: str | os.PathLike[str] | None = None,
    profile: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """The settings in force.

    ``flags`` holds what the command line gave, by setting name; None and an empty
    list mean 'not given'.  ``config`` and ``profile`` are flags, too; not given,
    ``RUBIX_SYNC_CONFIG`` and ``RUBIX_SYNC_PROFILE`` count.

    Raises:
        SettingsError: a value is not allowed, a key is unknown, the file cannot be
            read, or target and target_file are given at the same place.
    """
    unknown = [name for name in flags if name not in Settings.model_fields]
    if unknown:
        raise TypeError(f"flags that are not settings: {unknown}")
    given: dict[str, _Given] = {}

    def add(name: str, value: object, origin: str, strength: int) -> None:
        if value is not None and name not in given:
            given[name] = _Given(value, origin, strength)

    for name, value in [*flags.items(), ("profile", profile)]:
        add(name, value or None if value == () or value == [] else value, _flag(name), 4)
    for name in Settings.model_fields:
        for variable in _variables(name):
            add(name, environ.get(variable, "").strip() or None, f"environment: {variable}", 3)
    path = config or environ.get(f"{PREFIX}CONFIG", "").strip() or None
    held, problems = read_settings_file(path) if path is not None else ({}, [])
    if problems:
        raise problems[0]
    for name, value in held.items():
        add(name, value, f"file: {os.fspath(path or '')}", 2)
    _add_profile(given)
    _one_target(given)
    settings = _validated(given)
    if path is not None and not settings.allow_insecure_target_file:
        _check_file_mode(path, held)
    return settings


def check_settings_file(
    path: str | os.PathLike[str],
) -> tuple[Settings | None, list[SettingsError]]:
    """The settings that the file alone makes (None: none), and everything wrong with it."""
    try:
        held, problems = read_settings_file(path)
    except SettingsError as error:
        return None, [error]
    given = {name: _Given(value, f"file: {os.fspath(path)}", 2) for name, value in held.items()}
    _add_profile(given)
    try:
        _one_target(given)
        settings = _validated(given)
        if not settings.allow_insecure_target_file:
            _check_file_mode(path, held)
    except SettingsError as error:
        return None, [*problems, error]
    return settings, problems


def _add_profile(given: dict[str, _Given]) -> None:
    chosen = given.get("profile")
    if chosen is not None and chosen.value in PROFILES:
        for name, value in profile_values(str(chosen.value), usable_cpus()).items():
            given.setdefault(name, _Given(value, f"profile: {chosen.value}", 1))


def _flag(name: str) -> str:
    return "command line" if name == "roots" else f"flag: --{name.replace('_', '-')}"


def _variables(name: str) -> Iterable[str]:
    yield f"{PREFIX}{name.upper()}"
    if name in GUIDE_NAMES:
        yield name.upper()


def unknown_variables(environ: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """Variables with our prefix that mean nothing, most likely mistyped → the nearest known."""
    known = [variable for name in Settings.model_fields for variable in _variables(name)]
    known.append(f"{PREFIX}CONFIG")
    return {
        name: next(iter(get_close_matches(name, known, 1, 0.8)), None)
        for name in sorted(environ)
        if name.startswith(PREFIX)
        and name not in known
        and not name.startswith(f"{PREFIX}FAULT")  # points at which tests make us fail
    }


def read_settings_file(
    path: str | os.PathLike[str],
) -> tuple[dict[str, object], list[SettingsError]]:
    """What a settings file says, by setting name, and what is wrong with its keys.

    ``target_file`` and ``alert_urls_file`` are files beside it unless their paths are
    absolute: the settings mean the same wherever the program is started.

    Raises:
        SettingsError: it cannot be read or is not TOML.
    """
    shown = os.fspath(path)
    try:
        data = _content(path)
        if len(data) > _MOST_BYTES:
            raise OSError(errno.EFBIG, f"it is larger than {_MOST_BYTES:,} bytes")
        content = tomllib.loads(data.decode("utf-8-sig"))  # editors of Windows begin with a mark
    except (OSError, ValueError) as error:
        raise _unreadable(shown, error) from None
    values: dict[str, object] = {}
    problems = []
    for key, value in content.items():
        name = key.lower().replace("-", "_")
        if name not in Settings.model_fields:
            near = get_close_matches(name, Settings.model_fields, 1)
            problems.append(
                SettingsError(
                    f"The settings file {shown} has the unknown setting {key!r}.",
                    code="setting_unknown",
                    remedy=f"Did you mean {near[0]!r}?"
                    if near
                    else "`rubix-token-sync init` writes a file with every setting.",
                    context={"path": shown, "setting": key},
                )
            )
        elif name in values:
            problems.append(
                SettingsError(
                    f"The settings file {shown} has {name!r} twice, in upper and lower case.",
                    code="setting_twice",
                    remedy="Remove one of them.",
                    context={"path": shown, "setting": key},
                )
            )
        elif name in _BESIDE and isinstance(value, str):
            values[name] = os.path.join(os.path.dirname(shown), value)
        else:
            values[name] = value
    return values, problems


def _content(path: str | os.PathLike[str]) -> bytes:
    """At most one byte more than a settings file may have.

    A pipe that somebody writes into is read (``--config <(…)``), the null device is empty; a
    pipe without a writer is not waited for, and no other device is read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode):
            return os.read(handle, _MOST_BYTES + 1)
        if stat.S_ISCHR(status.st_mode) and os.path.samestat(status, os.stat(os.devnull)):
            return b""
        if not stat.S_ISFIFO(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return _from_pipe(handle)
    finally:
        os.close(handle)


def _from_pipe(handle: int) -> bytes:
    data = bytearray()
    while len(data) <= _MOST_BYTES:
        try:
            part = os.read(handle, _MOST_BYTES + 1)
        except BlockingIOError:
            if not select.select([handle], [], [], _PIPE_SECONDS)[0]:
                raise OSError(
                    errno.ETIMEDOUT, f"nothing came through the pipe for {_PIPE_SECONDS:g} s"
                ) from None
            continue
        if not part:
            break
        data += part
    if not data:
        raise OSError(errno.ENODATA, "a pipe that nobody writes into")
    return bytes(data)


def _unreadable(shown: str, error: OSError | ValueError) -> SettingsError:
    if isinstance(error, OSError):
        reason = "it is a directory" if os.path.isdir(shown) else error.strerror
        return SettingsError(
            f"The settings file {shown} cannot be read: {reason}.",
            code="config_unreadable",
            remedy="Check its path, and run as the user that owns it.",
            context={"path": shown},
        )
    # No message quotes the line, which could hold a secret.
    if isinstance(error, tomllib.TOMLDecodeError):
        place, remedy = str(error), 'A text goes between double quotes: target_file = "FILE".'
    else:
        place, remedy = "it is not valid UTF-8", "Save it as UTF-8."
    return SettingsError(
        f"The settings file {shown} is not TOML: {place}.",
        code="config_syntax",
        remedy=remedy,
        context={"path": shown},
    )


def _one_target(given: dict[str, _Given]) -> None:
    """The stronger one of target and target_file counts; the other is forgotten."""
    target, file = given.get("target"), given.get("target_file")
    if target is None or file is None:
        return
    if target.strength == file.strength:
        raise SettingsError(
            f"Both target ({target.origin}) and target_file ({file.origin}) are given.",
            code="target_twice",
            remedy="Give one of them.",
        )
    del given["target" if file.strength > target.strength else "target_file"]


_MOST_BYTES: Final = 2**20
"""Of a settings file."""
_PIPE_SECONDS: Final = 20.0
_CURE: Final = "`rubix-token-sync config show` shows every setting with its origin."


def _validated(given: Mapping[str, _Given]) -> Settings:
    try:
        settings = Settings.model_validate({name: g.value for name, g in given.items()})
    except ValidationError as error:
        names = sorted({str(problem["loc"][0]) for problem in error.errors()})
        sentences = [_complaint(name, given.get(name)) for name in names]
        raise SettingsError(
            " ".join(sentences),
            code="setting_invalid",
            remedy=_CURE,
            context={"settings": names},
        ) from None  # pydantic's own error could show a secret
    if settings.lease_seconds < settings.heartbeat_seconds * 3:
        raise SettingsError(
            f"lease_seconds = {settings.lease_seconds:g} ({_origin(given, 'lease_seconds')}) "
            f"is not allowed with heartbeat_seconds = {settings.heartbeat_seconds:g} "
            f"({_origin(given, 'heartbeat_seconds')}): at least three times that is needed.",
            code="setting_invalid",
            remedy=_CURE,
            context={"settings": ["heartbeat_seconds", "lease_seconds"]},
        )
    settings._origins.update({name: g.origin for name, g in given.items()})
    return settings


def _origin(given: Mapping[str, _Given], name: str) -> str:
    return given[name].origin if name in given else "default"


def _complaint(name: str, given: _Given | None) -> str:
    if given is None or name in SECRETS:
        shown = "the value (not shown)"
    else:
        text = repr(given.value) if isinstance(given.value, str) else str(given.value)
        shown = text if len(text) <= 100 else f"{text[:100]}…"
    origin = "default" if given is None else given.origin
    return f"{shown_name(name)} = {shown} ({origin}) is not allowed: it must be {allowed(name)}."


def _check_file_mode(path: str | os.PathLike[str], held: Mapping[str, object]) -> None:
    """A settings file with a secret in it is for its owner only, as the target file is.

    It counts what the file holds, also where a stronger layer overrules it.
    """
    secrets = [name for name in sorted(SECRETS) if name in held and _has_secret(name, held[name])]
    if not secrets or os.name != "posix":
        return
    mode = stat.S_IMODE(Path(path).stat().st_mode)
    if mode & 0o077:
        raise SettingsError(
            f"The settings file {os.fspath(path)} holds a secret ({', '.join(secrets)}) "
            f"and others may read it (mode {mode:o}).",
            code="config_insecure",
            remedy=f"Run: chmod 600 {os.fspath(path)}",
            context={"path": os.fspath(path), "settings": secrets},
        )


def _has_secret(name: str, value: object) -> bool:
    if name in ("ipfs_api_token", "alert_urls", "heartbeat_url"):
        return bool(value)
    texts = value if isinstance(value, list) else [value]
    return any(holds_secret(str(text)) for text in texts)
