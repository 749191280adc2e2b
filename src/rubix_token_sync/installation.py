"""How this program was installed and is started: for commands that can be run as printed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

__all__ = ["NAME", "extra_command", "program", "program_path", "runnable"]

NAME: Final = "rubix-token-sync"
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


def extra_command(extra: str) -> str:
    """The command that adds the package's ``extra`` to this installation."""
    requirement = shlex.quote(_requirement(extra))
    if _direct_url().get("dir_info", {}).get("editable"):
        requirement = f"-e {requirement}"
    environment = Path(sys.prefix)
    if "pipx" in environment.parts:
        return f"pipx install --force {requirement}"
    if environment.parts[-3:-1] == ("uv", "tools"):
        return f"uv tool install --force {requirement}"
    if find_spec("pip") is None:
        return f"uv pip install --python {shlex.quote(sys.executable)} {requirement}"
    return f"{shlex.quote(sys.executable)} -m pip install {requirement}"


def _requirement(extra: str) -> str:
    """The package with ``extra`` from where this installation has it: directory, archive, index."""
    origin = _direct_url()
    url = str(origin.get("url", ""))
    if "dir_info" in origin:
        return f"{unquote(urlsplit(url).path)}[{extra}]"
    if "vcs_info" in origin:
        commit = origin["vcs_info"].get("commit_id", "")
        return f"{NAME}[{extra}] @ {origin['vcs_info']['vcs']}+{url}@{commit}"
    return f"{NAME}[{extra}] @ {url}" if url else f"{NAME}[{extra}]"


def _direct_url() -> dict[str, Any]:
    """What the installer noted of the origin (PEP 610); nothing for an index."""
    try:
        text = distribution(NAME).read_text("direct_url.json")
    except PackageNotFoundError:  # started from its source directory
        source = Path(__file__).parents[2]
        return {"url": source.as_uri(), "dir_info": {}}
    return dict(json.loads(text)) if text else {}
