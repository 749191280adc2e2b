"""How this program was installed and is started: for commands that can be run as printed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

__all__ = [
    "LEVELDB",
    "NAME",
    "extra_command",
    "installed_from",
    "program",
    "program_path",
    "runnable",
    "versions",
]

NAME: Final = "rubix-token-sync"
LEVELDB: Final = "plyvel" if sys.version_info < (3, 13) else "plyvel_next"
"""The module that reads LevelDB: plyvel-ci's, or plyvel-next's, which exists for newer Pythons."""
_TOLD: Final = (
    "SQLAlchemy",
    "psycopg",
    "mssql-python",
    "pyarrow",
    "cbor2",
    "libipld",
    "cryptography",
    "plyvel-ci",
    "plyvel-next",
    "coincurve",
)
"""Packages whose version a fault may depend on."""
_MENTION: Final = re.compile(rf"(?<![\w/.-]){NAME}(?= [a-z])")


def program_path() -> str | None:
    """The absolute path of this program's script; None where there is only the package."""
    beside = Path(sys.executable).parent / NAME
    for place in (sys.argv[0] if os.path.basename(sys.argv[0]) == NAME else "", str(beside)):
        if place and os.path.isfile(place) and os.access(place, os.X_OK):
            return os.path.abspath(place)
    return None


def program() -> str:
    """How to call this program here, for a shell.

    The bare name where ``PATH`` finds this very program, else its path, else the
    interpreter with the module (``-P``: nothing is imported from the current directory).
    """
    path = program_path()
    if path is None:
        return f"{shlex.quote(sys.executable)} -P -m rubix_token_sync"
    found = shutil.which(NAME)
    if found is not None and os.path.realpath(found) == os.path.realpath(path):
        return NAME
    return shlex.quote(path)


def runnable(text: str) -> str:
    """``text`` with each ``rubix-token-sync COMMAND`` in it as it can be run here."""
    return _MENTION.sub(lambda _: program(), text)


def extra_command(
    extra: str,
    *,
    origin: dict[str, Any] | None = None,
    prefix: str = sys.prefix,
    has_pip: bool | None = None,
) -> str:
    """The command that adds the package's ``extra`` to this installation.

    ``origin`` (`installed_from`), ``prefix`` (the environment's directory) and ``has_pip``
    are found out where they are not given.
    """
    source = installed_from() if origin is None else origin
    requirement = shlex.quote(_requirement(extra, source))
    if source.get("dir_info", {}).get("editable"):
        requirement = f"-e {requirement}"
    parts = Path(prefix).parts
    if "pipx" in parts:
        return f"pipx install --force {requirement}"
    if parts[-3:-1] == ("uv", "tools"):
        return f"uv tool install --force {requirement}"
    if find_spec("pip") is not None if has_pip is None else has_pip:
        return f"{shlex.quote(sys.executable)} -m pip install {requirement}"
    return f"uv pip install --python {shlex.quote(sys.executable)} {requirement}"


def _requirement(extra: str, origin: dict[str, Any]) -> str:
    """The package with ``extra`` from where it was installed: directory, archive, index."""
    url = str(origin.get("url", ""))
    if "dir_info" in origin:
        return f"{unquote(urlsplit(url).path)}[{extra}]"
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        return f"{NAME}[{extra}] @ {vcs['vcs']}+{url}@{vcs['commit_id']}"
    return f"{NAME}[{extra}] @ {url}" if url else f"{NAME}[{extra}]"


def installed_from() -> dict[str, Any]:
    """What the installer noted of the origin (PEP 610); empty for a package index."""
    try:
        text = distribution(NAME).read_text("direct_url.json")
    except PackageNotFoundError:  # started from its source directory
        return {"url": Path(__file__).parents[2].as_uri(), "dir_info": {}}
    return dict(json.loads(text)) if text else {}


def versions() -> list[tuple[str, str]]:
    """What a report of a fault needs to know of this installation: names with values.

    No path below a home directory, no setting, no secret.
    """
    import platform
    import sqlite3

    return [
        ("Python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("platform", f"{platform.platform()}, {os.cpu_count()} processors"),
        ("SQLite", sqlite3.sqlite_version),
        *((name, _version_of(name)) for name in _TOLD),
    ]


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
