"""Parts of pages: numbers, badges, tables, problems, empty states."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from rubix_token_sync.pages.markup import Element, link, tag

__all__ = [
    "Cell",
    "Column",
    "Number",
    "amount",
    "badge",
    "empty",
    "facts",
    "left_out",
    "mono",
    "notice",
    "numbers",
    "problem_list",
    "section",
    "short_id",
    "table",
    "with_code",
]

_MANY_COLUMNS: Final = 7
_CODE: Final = re.compile(r"`([^`]*)`")
_TONES: Final = {
    "COMPLETED": "good", "current": "good", "processed": "good", "resolved": "good",
    "retired": "good", "genuine": "good", "verified": "good", "signature_checked": "good",
    "RUNNING": "live",
    "FAILED": "bad", "failed": "bad", "missing": "bad", "STUCK": "bad", "error": "bad",
    "forged_form": "bad", "out_of_range": "bad", "signature_wrong": "bad",
    "INTERRUPTED": "warn", "pending": "warn", "overdue": "warn", "warning": "warn",
    "disputed": "warn", "suspected": "warn", "reopened": "warn",
}  # fmt: skip
_MARKS: Final = {"good": "✓", "warn": "!", "bad": "✕", "live": "▸"}
"""Beside the colour, for whoever does not see it."""


class Cell(NamedTuple):
    """A cell with a kind of its own: ``good``, ``warn``, ``bad``."""

    content: object
    kind: str


@dataclass(frozen=True)
class Column:
    """A column; ``kind``: "", ``n`` (numbers), ``text`` (sentences), ``wide`` (bars), ``id``."""

    title: str
    kind: str = ""


@dataclass(frozen=True)
class Number:
    """A number that is read first."""

    label: str
    value: str
    note: object = None
    tone: str = ""
    url: str | None = None


def section(title: str, *inside: object, id_: str | None = None, lead: object = None) -> Element:
    """A part of the page under a heading of its own."""
    return tag(
        "section",
        tag("h2", title, id=id_),
        tag("p", lead, class_="lead") if isinstance(lead, str) else lead,
        *inside,
    )


def numbers(items: Iterable[Number]) -> Element:
    """The numbers of a page."""
    return tag(
        "dl",
        *(
            tag(
                "div",
                tag("dt", one.label),
                tag(
                    "dd",
                    link(one.value, one.url) if one.url else one.value,
                    class_=f"value {one.tone}".strip(),
                ),
                None if one.note is None else tag("dd", one.note, class_="note"),
                class_="number",
            )
            for one in items
        ),
        class_="numbers",
    )


def amount(number: int | None, url: str | None = None) -> Cell:
    """A number in a table; a zero steps back, and a phone leaves it out."""
    if number is None:
        return Cell("", "none")
    if not number:
        return Cell("0", "zero")
    return Cell(link(f"{number:,}", url) if url else f"{number:,}", "")


def badge(word: str, tone: str | None = None, text: str | None = None) -> Element:
    """A state: a sign, a word and a colour."""
    tone = _TONES.get(word, "plain") if tone is None else tone
    mark = _MARKS.get(tone)
    sign = tag("span", mark, class_="mark", aria_hidden="true") if mark else None
    return tag("span", sign, text or word, class_=f"badge {tone}")


def notice(tone: str, *inside: object) -> Element:
    """A sentence that must be seen."""
    return tag("p", *inside, class_=f"notice {tone}")


def empty(said: str, *more: object) -> Element:
    """Nothing is here: what that means, and what would change it."""
    return tag("div", tag("p", said), *more, class_="empty")


def left_out(number: int, what: str) -> Element | None:
    """What a list does not show is said."""
    return tag("p", f"… and {number:,} {what}", class_="more") if number > 0 else None


def mono(text: object, title: str | None = None, class_: str | None = None) -> Element:
    """An id, a path, a command."""
    return tag("code", text, title=title, class_=class_)


def short_id(token_id: str | None) -> str:
    """A token id that leaves room for the rest."""
    text = token_id or ""
    return text if len(text) <= 18 else f"{text[:8]}…{text[-8:]}"


def with_code(text: str, name: str = "span", **attributes: object) -> Element:
    """A sentence in which `` `commands` `` are set apart."""
    parts: list[object] = []
    for number, part in enumerate(_CODE.split(text)):
        if part:
            parts.append(tag("code", part) if number % 2 else part)
    return tag(name, *parts, **attributes)


def facts(pairs: Iterable[tuple[str, object]]) -> Element:
    """Names with values; what has no value is left out."""
    inside: list[Element] = []
    for name, value in pairs:
        if value is not None and value != "":
            inside.append(tag("div", tag("dt", name), tag("dd", value)))
    return tag("dl", *inside, class_="facts")


def problem_list(problems: Sequence[dict[str, Any]]) -> Element:
    """What is wrong, how bad it is, and what to do about each.

    Each has ``severity``, ``message``, ``cure``, ``code`` (or ``detail``) and, if there are rows
    behind it, ``url`` with ``rows`` (what the link says).
    """
    return tag(
        "ul",
        *(
            tag(
                "li",
                tag(
                    "p",
                    badge(one["severity"]),
                    with_code(one["message"], class_="what"),
                    tag("code", one.get("detail") or one["code"], class_="code"),
                ),
                tag(
                    "p",
                    with_code(one["cure"]) if one.get("cure") else None,
                    " " if one.get("cure") and one.get("url") else None,
                    link(one["rows"], one["url"]) if one.get("url") else None,
                    class_="cure",
                )
                if one.get("cure") or one.get("url")
                else None,
                class_="problem error" if one["severity"] == "error" else "problem warning",
            )
            for one in problems
        ),
        class_="problems",
        # Without bullets, Safari would not call it a list.
        role="list",
    )


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[object]],
    *,
    stacked: bool = True,
    class_: str = "",
) -> Element:
    """A table, whose first cell names its row.

    On a phone each row stands by itself, its cells under each other with the column's title
    beside them (``stacked``), or the table scrolls within itself.
    """
    role = _role if stacked else _no_role
    head = tag(
        "tr",
        *(
            tag("th", c.title, scope="col", class_=c.kind or None, **role("columnheader"))
            for c in columns
        ),
        **role("row"),
    )
    made = tag(
        "table",
        tag("caption", caption),
        tag("thead", head, **role("rowgroup")),
        tag("tbody", *(_row(columns, cells, role) for cells in rows), **role("rowgroup")),
        class_=" ".join(filter(None, (*_folding(columns, stacked), class_))) or None,
        **role("table"),
    )
    # What may scroll and has no link inside needs a stop of its own for the keyboard.
    reached = stacked and "<a " in made
    inside = {} if reached else {"tabindex": "0", "role": "region", "aria_label": caption}
    return tag("div", made, class_="scroll", **inside)


def _folding(columns: Sequence[Column], stacked: bool) -> tuple[str, ...]:
    """Many columns need more room than a tablet has."""
    if not stacked:
        return ()
    return ("stacked", "many") if len(columns) >= _MANY_COLUMNS else ("stacked",)


def _role(name: str) -> dict[str, str]:
    """``display: block`` on a phone would take the meaning away from rows and cells."""
    return {"role": name}


def _no_role(name: str) -> dict[str, str]:
    del name
    return {}


def _row(
    columns: Sequence[Column], cells: Sequence[object], role: Callable[[str], dict[str, str]]
) -> Element:
    made = []
    for place, (cell, column) in enumerate(zip(cells, columns, strict=True)):
        content, kind = cell if isinstance(cell, Cell) else (cell, "")
        kinds = f"{column.kind} {kind}".strip()
        if place == 0:
            own = {"scope": "row", "class_": kinds or None, **role("rowheader")}
            made.append(tag("th", content, **own))
            continue
        if content is None or content == "":
            kinds = f"{kinds} none".strip()
        made.append(
            tag(
                "td",
                tag("span", column.title, class_="of", aria_hidden="true"),
                tag("span", content, class_="is"),
                class_=kinds or None,
                **role("cell"),
            )
        )
    return tag("tr", *made, **role("row"))
