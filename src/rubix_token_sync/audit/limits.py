"""How many whole tokens each level has, according to each source, and in which form.

The sources disagree, so none is built into code: ``limits.json`` has each one's limits, what it
says at their edge, the forms of content it accepts, and where it was read.  Its ``version``
changes with it; stored verdicts and tables carry it, so a new file has everything judged again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Final, Literal

__all__ = ["MAX_LEVEL", "MAX_NUMBER", "Form", "Limits", "Source", "package_limits", "parse_limits"]

MAX_LEVEL: Final = 127
MAX_NUMBER: Final = (1 << 23) - 1
"""Bounds of what a table's entry can hold (`rubix_token_sync.audit.token_numbers`)."""


class Form(IntEnum):
    """How a whole token's content is written: the level's digits, and whether a line ends it."""

    THREE_DIGITS = 0
    TWO_DIGITS = 1
    THREE_DIGITS_NEWLINE = 2
    TWO_DIGITS_NEWLINE = 3

    @property
    def digits(self) -> int:
        """Of the level: 3, or 2 as old software wrote level 1."""
        return 2 if self in (Form.TWO_DIGITS, Form.TWO_DIGITS_NEWLINE) else 3

    @property
    def end(self) -> bytes:
        """What follows the hash."""
        return b"\n" if self >= Form.THREE_DIGITS_NEWLINE else b""


@dataclass(frozen=True)
class Source:
    """What one piece of software accepts."""

    name: str
    """At most 50 ASCII characters: what ``verdict_source`` says."""
    title: str
    origin: str
    """Where it was read: repository, commit, file."""
    limits: tuple[int | None, ...]
    """By level, from 0; None: it says nothing of that level."""
    other_levels: Literal["refused", "silent"]
    """What it says of a level that is not in ``limits``."""
    lowest_number: int
    limit_included: bool
    """Whether the number that equals the limit is a token."""
    forms: frozenset[Form]

    def last(self, level: int) -> int | None:
        """The highest number it accepts in ``level`` (-1: none at all); None: it says nothing."""
        if 0 <= level < len(self.limits):
            limit = self.limits[level]
        else:
            limit = 0 if self.other_levels == "refused" else None
        if limit is None:
            return None
        return limit if self.limit_included and limit else limit - 1

    def accepts(self, level: int, number: int, form: Form) -> bool | None:
        """Whether this is a token for it; None: it says nothing of this level."""
        last = self.last(level)
        if last is None:
            return None
        return form in self.forms and self.lowest_number <= number <= last


@dataclass(frozen=True)
class Limits:
    """All sources, in the order of the file: where several refuse, the first one is named."""

    version: str
    sources: tuple[Source, ...]

    def source(self, name: str) -> Source:
        """The source of that name.

        Raises:
            KeyError: there is none.
        """
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Source]:
        return {source.name: source for source in self.sources}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What an auditor can choose from."""
        return tuple(source.name for source in self.sources)

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """The levels of which at least one source has tokens, ascending."""
        size = max(len(source.limits) for source in self.sources)
        return tuple(level for level in range(size) if self.highest(level) >= 0)

    def highest(self, level: int) -> int:
        """The highest number that any source has a word on: its limit itself, included or not.

        -1 where no source has tokens of that level.
        """
        limits = [
            source.limits[level] or 0 for source in self.sources if level < len(source.limits)
        ]
        return max(limits, default=0) or -1


@cache
def package_limits() -> Limits:
    """The limits of this version of the program."""
    text = files("rubix_token_sync.audit").joinpath("limits.json").read_text(encoding="utf-8")
    return parse_limits(text)


def parse_limits(text: str) -> Limits:
    """The limits in a file like ``limits.json``.

    Raises:
        ValueError: it is not one, with what is wrong about it.
    """
    data = json.loads(text)
    if not isinstance(data, dict) or not isinstance(data.get("sources"), list):
        raise ValueError("a file of limits has a version and a list of sources")
    version = data.get("version")
    if not isinstance(version, str) or not version.replace("-", "").replace(".", "").isalnum():
        raise ValueError("the version of the limits must be letters, digits, '-' and '.'")
    sources = tuple(_source(item) for item in data["sources"])
    if not sources or len({source.name for source in sources}) != len(sources):
        raise ValueError("each source of limits needs a name of its own")
    return Limits(version, sources)


def _source(item: Any) -> Source:
    try:
        source = Source(
            name=str(item["name"]),
            title=str(item["title"]),
            origin=str(item["origin"]),
            limits=tuple(item["limits"]),
            other_levels=item["other_levels"],
            lowest_number=int(item["lowest_number"]),
            limit_included=bool(item["limit_included"]),
            forms=frozenset(Form[name.upper()] for name in item["forms"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"a source of limits is not complete: {error!r}") from error
    if not source.name.isascii() or not 0 < len(source.name) <= 50:
        raise ValueError(f"a source's name has 1 to 50 ASCII characters: {source.name!r}")
    if source.other_levels not in ("refused", "silent") or source.lowest_number < 0:
        raise ValueError(f"{source.name}: other_levels or lowest_number is not one")
    if len(source.limits) > MAX_LEVEL or not all(
        limit is None or (type(limit) is int and 0 <= limit <= MAX_NUMBER)
        for limit in source.limits
    ):
        raise ValueError(f"{source.name}: levels or limits that a table cannot hold")
    return source
