"""Which settings file and which target are used, and why: one search order, decided in one place.

Settings file, the first that is there:

1. ``--config FILE``
2. ``RUBIX_SYNC_CONFIG``
3. ``./rubix-token-sync.toml``
4. ``$XDG_CONFIG_HOME/rubix-token-sync/settings.toml`` (``~/.config/…``)
5. ``/etc/rubix-token-sync/settings.toml``

In the last two directories ``rubix-token-sync.toml``, the name that ``init`` writes, is
accepted as well.

Target, the first that is given: command line, environment, ``target`` or ``target_file`` of the
settings file, ``azure_sql_connection.txt`` beside the settings file, the same in the current
directory, the guide's ``/datadrive/Rubix/azure_sql_connection.txt``.  Only where neither a
settings file nor a connection file is at hand is the embedded default used.

What is merely found in the current directory may have been put there by somebody else (a
node's directory, a shared one), and it decides where every record goes.  So it counts only
when this user or root owns it, nobody else may write it, and it is not inside a node; anything
else stops the run.  A file that is named on the command line or in the environment is trusted.

The functions that decide take facts; `look_at` and `find_settings_file` fetch them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from rubix_token_sync.errors import SettingsError

if TYPE_CHECKING:
    from rubix_token_sync.settings.model import Settings

__all__ = [
    "CONNECTION_FILE",
    "GUIDE_CONNECTION_FILE",
    "SETTINGS_FILE",
    "Candidate",
    "FileFacts",
    "SettingsFile",
    "TargetChoice",
    "choose_settings_file",
    "choose_target",
    "connection_candidates",
    "current_user",
    "find_settings_file",
    "find_target",
    "look_at",
    "settings_candidates",
]

SETTINGS_FILE: Final = "rubix-token-sync.toml"
"""What ``init`` writes, and the settings file of the current directory."""
CONNECTION_FILE: Final = "azure_sql_connection.txt"
GUIDE_CONNECTION_FILE: Final = "/datadrive/Rubix/azure_sql_connection.txt"
_DIRECTORY: Final = "rubix-token-sync"
_NAMES: Final = ("settings.toml", SETTINGS_FILE)

NodeAround = Callable[[str], str | None]
"""The node's directory that a path is in, or None (`rubix_token_sync.nodes.keep_out`)."""


class Candidate(NamedTuple):
    """A place where a file may be.  ``named``: the user named it, so it must be there."""

    path: str
    why: str
    named: bool = False
    untrusted: bool = False
    """Found in the current directory: `FileFacts` decide whether it counts."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of a path without reading the file.

    ``owners`` are the user ids of the file and, where it is a link, of the link;
    ``hidden`` says why it cannot be looked at; ``node`` is the node it lies in.
    """

    state: Literal["absent", "there", "hidden"]
    owners: frozenset[int] = frozenset()
    writable_by_others: bool = False
    node: str | None = None
    hidden: str = ""


class SettingsFile(NamedTuple):
    """The settings file in use (None: none), why, and what has to be said about others."""

    path: str | None
    why: str
    notes: tuple[str, ...] = ()


class TargetChoice(NamedTuple):
    """Where the records go: ``kind`` says what ``value`` is; secrets are not masked in it."""

    kind: Literal["address", "file", "none"]
    value: str
    why: str
    notes: tuple[str, ...] = ()


# --- decisions -----------------------------------------------------------------


def settings_candidates(
    flag: str | None, environ: Mapping[str, str], home: str | None
) -> tuple[Candidate, ...]:
    """The places of a settings file, in order.  A named one is the only one."""
    if flag:
        return (Candidate(flag, "--config", named=True),)
    variable = environ.get("RUBIX_SYNC_CONFIG", "").strip()
    if variable:
        return (Candidate(variable, "RUBIX_SYNC_CONFIG", named=True),)
    found = [Candidate(os.path.join(".", SETTINGS_FILE), "current directory", untrusted=True)]
    base = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):  # as the specification has it: a relative one is ignored
        base = os.path.join(home, ".config") if home else ""
    for directory, why in ((base, "user's settings"), ("/etc", "machine's settings")):
        if directory:
            found += [Candidate(os.path.join(directory, _DIRECTORY, n), why) for n in _NAMES]
    return tuple(found)


def connection_candidates(settings_file: str | None) -> tuple[Candidate, ...]:
    """The places of a connection file that nobody named, in order."""
    here = Candidate(os.path.join(".", CONNECTION_FILE), "current directory", untrusted=True)
    guide = Candidate(GUIDE_CONNECTION_FILE, "the guide's place")
    beside = os.path.dirname(settings_file) if settings_file is not None else "."
    if beside in ("", "."):
        return (here, guide)
    path = os.path.join(beside, CONNECTION_FILE)
    return (Candidate(path, "beside the settings file"), here, guide)


def choose_settings_file(
    candidates: tuple[Candidate, ...], facts: Mapping[str, FileFacts], user: int
) -> SettingsFile:
    """The settings file to use.

    Raises:
        SettingsError: ``config_untrusted``: the one in the current directory could have
            been put there by somebody else.
    """
    chosen, notes = _first(candidates, facts, user, "settings file", "--config")
    if chosen is None:
        return SettingsFile(None, "none found", notes)
    return SettingsFile(chosen.path, chosen.why, notes)


def choose_target(
    settings: Settings,
    settings_file: str | None,
    facts: Mapping[str, FileFacts],
    user: int,
    *,
    embedded: bool = True,
) -> TargetChoice:
    """The target to use; ``embedded`` False forbids the default where nothing is named.

    Raises:
        SettingsError: ``config_untrusted``, as `choose_settings_file`.
    """
    if settings.target_file is not None:
        return TargetChoice("file", settings.target_file, settings.origin("target_file"))
    address = settings.target.get_secret_value()
    if settings.origin("target") != "default":
        return TargetChoice("address", address, settings.origin("target"))
    places = connection_candidates(settings_file)
    chosen, notes = _first(places, facts, user, "connection file", "--target-file")
    if chosen is not None:
        return TargetChoice("file", chosen.path, chosen.why, notes)
    if settings_file is None and embedded:
        return TargetChoice("address", address, "default", notes)
    return TargetChoice("none", "", "none named", notes)


def _first(
    candidates: tuple[Candidate, ...],
    facts: Mapping[str, FileFacts],
    user: int,
    what: str,
    option: str,
) -> tuple[Candidate | None, tuple[str, ...]]:
    notes = []
    for candidate in candidates:
        seen = facts.get(candidate.path, FileFacts("absent"))
        if candidate.named:
            return candidate, ()
        if seen.state == "hidden":
            notes.append(
                f"Cannot check for a {what} at {candidate.path} ({seen.hidden}); none is used from "
                "there."
            )
        if seen.state == "there":
            if candidate.untrusted:
                _refuse_untrusted(candidate.path, seen, user, what, option)
            return candidate, tuple(notes)
    return None, tuple(notes)


def _refuse_untrusted(path: str, seen: FileFacts, user: int, what: str, option: str) -> None:
    strangers = seen.owners - {user, 0}
    if seen.node is not None:
        reason, cure = f"it is inside the node's directory {seen.node}", "Start from another place"
    elif strangers:
        reason = f"it belongs to another user (id {min(strangers)})"
        cure = "Make it your own (chown)"
    elif seen.writable_by_others:
        reason, cure = "others may write it", f"Run: chmod go-w {path}"
    else:
        return
    raise SettingsError(
        f"The {what} {path} was found in the current directory, but not used: {reason}, so "
        "somebody else could decide where the records go.",
        code="config_untrusted",
        remedy=f"{cure}, or name the file to use by {option} FILE.",
        context={"path": path},
    )


# --- facts ---------------------------------------------------------------------


def look_at(path: str, node_around: NodeAround | None = None) -> FileFacts:
    """The facts about ``path``; opens nothing."""
    try:
        link = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return FileFacts("absent")
    except OSError as error:
        return FileFacts("hidden", hidden=error.strerror or str(error))
    except ValueError:  # a NUL in it
        return FileFacts("absent")
    owners, mode = {link.st_uid}, link.st_mode
    if stat.S_ISLNK(mode):
        try:
            target = os.stat(path)
        except OSError:
            mode = stat.S_IFREG  # reading it will say what is wrong
        else:
            owners.add(target.st_uid)
            mode = target.st_mode
    posix = os.name == "posix"
    return FileFacts(
        "there",
        frozenset(owners) if posix else frozenset(),
        posix and bool(mode & 0o022),
        node_around(path) if node_around is not None else None,
    )


def current_user() -> int:
    """This process's user id; 0 where there are none."""
    return os.geteuid() if hasattr(os, "geteuid") else 0


def find_settings_file(
    flag: str | None, environ: Mapping[str, str], node_around: NodeAround
) -> SettingsFile:
    """The settings file to use, as it is on this machine now.

    Raises:
        SettingsError: ``config_untrusted``.
    """
    home = environ.get("HOME") or os.path.expanduser("~")
    places = settings_candidates(flag, environ, home if os.path.isabs(home) else None)
    facts = {
        place.path: look_at(place.path, node_around if place.untrusted else None)
        for place in places
        if not place.named
    }
    return choose_settings_file(places, facts, current_user())


def find_target(
    settings: Settings,
    settings_file: str | None,
    node_around: NodeAround,
    *,
    embedded: bool = True,
) -> TargetChoice:
    """The target to use, as it is on this machine now.

    Raises:
        SettingsError: ``config_untrusted``.
    """
    places = connection_candidates(settings_file)
    facts = {
        place.path: look_at(place.path, node_around if place.untrusted else None)
        for place in places
    }
    return choose_target(settings, settings_file, facts, current_user(), embedded=embedded)
