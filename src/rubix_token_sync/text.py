"""Text for people: what comes from outside is escaped here, and nowhere else.

Names of files, values in databases and messages of servers may hold anything: escape
sequences that rewrite a terminal, line feeds that forge a line, characters that reverse
the direction of writing, formulas that a spreadsheet would execute.  `shown` makes text
safe for one line of a terminal, log or page; `cell` also for a spreadsheet; `json_text`
writes JSON in which nothing but letters, digits and signs stands unescaped.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

__all__ = ["cell", "counted", "json_text", "parse_age", "shown", "storable", "told_apart"]

_FORMULA: Final = ("=", "+", "-", "@")
_RISKY: Final = re.compile(
    "[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
"""What JSON may hold as it is but no terminal should get: controls and invisible marks."""

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", re.IGNORECASE)


def shown(text: object) -> str:
    """``text`` in one line, every character visible: others are written as escapes (``\\x1b``)."""
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in plain)


def storable(text: str) -> bool:
    """Whether a target can hold it: an argument that is not UTF-8 is nothing's name there."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def cell(value: object) -> object:
    """A cell of CSV: as `shown`, and no spreadsheet takes it for a formula."""
    if not isinstance(value, str):
        return value
    text = shown(value)
    # A tab or carriage return in front has become an escape, which is harmless.
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """JSON for files and terminals: letters of every language, but no control characters."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _RISKY.sub(lambda match: json.dumps(match[0])[1:-1], text)


def counted(number: int, one: str, many: str | None = None) -> str:
    """``1 database``, ``1,200 databases``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def told_apart(nodes: Sequence[tuple[str, str]]) -> list[str]:
    """Names of nodes for people; where one repeats, with the file or path that tells them apart.

    Args:
        nodes: names with the paths of their databases.
    """
    paths: dict[str, set[str]] = {}
    for name, path in nodes:
        paths.setdefault(name, set()).add(path)
    return [
        name if len(paths[name]) == 1 else f"{name} ({_short(path, paths[name])})"
        for name, path in nodes
    ]


def _short(path: str, alike: Iterable[str]) -> str:
    """The name of the file where all are in one directory: a node of the main and the test net."""
    return os.path.basename(path) if len({*map(os.path.dirname, alike)}) == 1 else path


def parse_age(text: str) -> timedelta:
    """``90s``, ``30m``, ``24h``, ``7d``, ``2w``.

    Raises:
        ValueError: it is none of these, or longer than a hundred years.
    """
    match = _AGE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an age: write 90s, 30m, 24h, 7d or 2w")
    number = float(match[1])
    unit = _UNITS[match[2].lower()]
    try:
        age = timedelta(**{unit: number})
    except OverflowError:
        age = timedelta.max
    if age > timedelta(days=36_525):
        raise ValueError(f"{text!r} is more than a hundred years")
    return age
