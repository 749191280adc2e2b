"""What every code means, what causes it and what cures it: the entries of TROUBLESHOOTING.md.

The page is the catalogue.  It ships with the package (``explanations.md`` is the page itself),
so `rubix-token-sync explain` answers without a network.  Its tables with the header ``code``
are read here, nothing else of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from typing import Final

__all__ = ["Explanation", "explanations", "find", "nearest"]

_ROW: Final = re.compile(r"^\| `([a-z0-9_]+)` \| (.*) \|$")
_LINK: Final = re.compile(r"\[([^\]]*)\]\([^)]*\)")


@dataclass(frozen=True, slots=True)
class Explanation:
    """One row of the page.  ``area`` is its section; ``cause`` is empty where it needs none."""

    code: str
    area: str
    says: str
    cause: str
    cure: str


def explanations() -> tuple[Explanation, ...]:
    """Every entry, in the page's order; a code that means two things has two."""
    text = files("rubix_token_sync").joinpath("explanations.md").read_text(encoding="utf-8")
    found = []
    area = ""
    columns: tuple[str, ...] = ()
    for line in text.splitlines():
        if line.startswith("## "):
            area = line[3:].strip()
        elif line.startswith(("| code |", "| exit code |")):
            columns = tuple(name.strip() for name in line.strip("|").split("|"))
        elif row := _ROW.match(line):
            cells = [_plain(cell) for cell in row[2].split(" | ")]
            given: dict[str, str] = dict(zip(columns[1:], cells, strict=False))
            says = given.get("what it says") or given.get("meaning", "")
            found.append(
                Explanation(row[1], area, says, given.get("cause", ""), given.get("cure", ""))
            )
    return tuple(found)


def find(code: str) -> tuple[Explanation, ...]:
    """The entries of ``code``; none: it is unknown."""
    wanted = _name_of(code)
    return tuple(entry for entry in explanations() if entry.code == wanted)


def nearest(code: str) -> list[str]:
    """Up to three known codes that look like ``code``."""
    wanted = _name_of(code)
    return get_close_matches(wanted, sorted({e.code for e in explanations()}), 3, 0.6)


def _name_of(code: str) -> str:
    """A code as it was pasted: in brackets, or behind its category (``ipfs/no_repository``)."""
    return code.strip().strip("[]`.:").rpartition("/")[2].lower().replace("-", "_")


def _plain(cell: str) -> str:
    """A cell as text for a terminal."""
    return _LINK.sub(r"\1", cell).replace("\\|", "|").strip()
