"""HTML, written piece by piece: every text and every attribute is escaped on its way in."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote_plus

from rubix_token_sync.text import shown

__all__ = ["Element", "address", "link", "preformatted", "style", "style_sheet", "tag", "written"]

_SPECIAL: Final = re.compile("[&<>\"']")
_ESCAPED: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}
_VOID: Final = frozenset({"br", "hr", "input", "link", "meta"})


class Element(str):
    """HTML that is written already; any other text is escaped wherever it is put in.

    Only the functions of this module make one.  What becomes of one by formatting or adding is
    plain text again, and is escaped: a mistake shows, and does nothing.
    """

    __slots__ = ()


def tag(name: str, /, *inside: object, **attributes: object) -> Element:
    """An element with texts and elements in it; None is left out.

    Texts and attributes stand in one visible line (`rubix_token_sync.text.shown`): nothing in
    them can hide, reverse the direction of writing or begin a tag.  Underscores of names are
    dashes, those at the end are dropped (``class_``); True is an attribute without a value.
    """
    written = [_opening(name, attributes)]
    if name not in _VOID:
        after_element = False
        for part in inside:
            if part is None:
                continue
            if isinstance(part, Element):
                if after_element:
                    written.append("\n")
                written.append(part)
                after_element = True
            else:
                written.append(_escaped(shown(part)))
                after_element = False
        written.append(f"</{name}>")
    return Element("".join(written))


def _opening(name: str, attributes: dict[str, object]) -> str:
    written = f"<{name}"
    for key, value in attributes.items():
        if value is True:
            written += f" {_plain(key)}"
        elif value is not None and value is not False:
            written += f' {_plain(key)}="{_escaped(shown(value))}"'
    return f"{written}>"


def _plain(key: str) -> str:
    return key.rstrip("_").replace("_", "-") if "_" in key else key


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda match: _ESCAPED[match[0]], text) if _SPECIAL.search(text) else text


def preformatted(text: str, **attributes: object) -> Element:
    """A text of several lines, each of them made visible."""
    lines = "\n".join(_escaped(shown(line)) for line in text.split("\n"))
    return Element(f"{_opening('pre', attributes)}{lines}</pre>")


def style(rules: str) -> Element:
    """A style sheet of our own within the page."""
    if "</" in rules:
        raise ValueError("a style sheet ends no element")
    return Element(f"<style>{rules}</style>")


def link(text: object, url: str | None, **attributes: object) -> Element:
    """A link within this page's own addresses; without an address, the text alone."""
    if url is None:
        return tag("span", text, **attributes)
    if not url.startswith(("/", "#", "?")) or url.startswith("//"):
        raise ValueError(f"a page links to itself only: {url!r}")
    return tag("a", text, href=url, **attributes)


def address(path: str, /, **parameters: Any) -> str:
    """A path with its parameters: lists repeat, None and empty ones are left out."""
    pairs = []
    for name, value in parameters.items():
        for one in value if isinstance(value, list | tuple) else (value,):
            if one is not None and one != "":
                text = quote_plus(str(one), errors="backslashreplace")
                pairs.append(f"{name.rstrip('_')}={text}")
    return f"{path}?{'&'.join(pairs)}" if pairs else path


def style_sheet() -> str:
    """The one style sheet of page and report."""
    return files(__package__).joinpath("page.css").read_text("utf-8")


def written(head: Element, body: Element) -> str:
    """The page as HTML."""
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"
