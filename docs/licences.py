"""LICENCES.md: what the program needs at run time, and under which licence, from metadata.

Only packages that are installed are looked at: extras whose wheels this Python lacks keep the
row that they have.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "LICENCES.md"
HEAD = """\
# Licences of dependencies

Generated from installed packages by `python docs`; do not edit. Rubix Token Sync itself is under
the MIT licence. These are all packages that `requirements.txt` and the extra
`cluster` install on Linux, with the licences that they declare; versions are in that file and in
each release's SBOM (CycloneDX). Nothing of them is copied into the program.

`mssql-python-odbc` redistributes Microsoft's ODBC Driver for SQL Server, which is proprietary and
free of charge; it is loaded only where the target is Azure SQL or SQL Server. `psycopg` is under
the LGPL: it is imported as it is, and can be replaced.

| package | licence | needed by |
|---|---|---|
"""
_ROW = re.compile(r"^\| `([a-z0-9-]+)` \| (.*) \| (.*) \|$", re.MULTILINE)
_OTHER_NAMES = {
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "Other/Proprietary License": "proprietary (Microsoft)",
}
_NOT_DECLARED = {"mssql-python": "MIT"}
"""Packages whose metadata name none; read in the licence file that they bring."""


def direct() -> dict[str, str]:
    """Packages that pyproject.toml names → ``the program`` or the extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {canonicalize_name(Requirement(text).name): "the program"
             for text in project["dependencies"]}  # fmt: skip
    for extra, texts in project["optional-dependencies"].items():
        for text in texts:
            name = canonicalize_name(Requirement(text).name)
            if name != project["name"]:
                named.setdefault(name, f"extra {extra}")
    return named


def installed() -> dict[str, tuple[str, str]]:
    """Package → licence and who needs it, of all that is installed here and needed."""
    found: dict[str, tuple[str, str]] = {}
    waiting = list(direct().items())
    extras = {"psycopg": {"binary"}}
    while waiting:
        name, needed_by = waiting.pop(0)
        if name in found:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = (licence(package), needed_by)
        for text in package.requires or ():
            requirement = Requirement(text)
            wanted = [{"extra": extra} for extra in ("", *extras.get(name, ()))]
            if requirement.marker is None or any(map(requirement.marker.evaluate, wanted)):
                waiting.append((canonicalize_name(requirement.name), f"`{name}`"))
    return found


def licence(package: Distribution) -> str:
    """As it declares it."""
    data = package.metadata
    name = canonicalize_name(data["Name"])
    declared = data.get("License-Expression") or _NOT_DECLARED.get(name)
    if declared:
        return str(declared)
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in data.get_all("Classifier") or ()
        if text.startswith("License ::")
    ]
    plain = (data.get("License") or "").strip()
    chosen = plain if plain and "\n" not in plain and len(plain) < 40 else " OR ".join(classifiers)
    if not chosen:
        raise ValueError(f"{name} declares no licence: read its files, then add it here")
    return _OTHER_NAMES.get(chosen, chosen)


def rows(page: str) -> dict[str, tuple[str, str]]:
    """What a page says."""
    return {match[1]: (match[2], match[3]) for match in _ROW.finditer(page)}


def licences_page() -> str:
    """The page; packages that are not installed here keep their rows."""
    here = installed()
    before = rows(PAGE.read_text("utf-8")) if PAGE.exists() else {}
    lost = {name: row for name, row in before.items() if name in direct() and name not in here}
    lines = [f"| `{name}` | {licence} | {by} |" for name, (licence, by)
             in sorted({**lost, **here}.items())]  # fmt: skip
    return HEAD + "\n".join(lines) + "\n"
