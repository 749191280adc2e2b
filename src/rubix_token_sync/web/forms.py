"""Filters of lists: plain forms whose addresses can be sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rubix_token_sync.pages.markup import Element, link, tag

__all__ = ["choice_field", "filters", "text_field"]


def filters(action: str, fields: Iterable[Element], *, clear: str | None = None) -> Element:
    """The form; ``clear`` is the address without any filter, if there are some."""
    return tag(
        "form",
        tag(
            "div",
            *fields,
            tag(
                "div",
                tag("button", "Show"),
                None if clear is None else link("Without filters", clear),
                class_="do",
            ),
            class_="filters",
        ),
        action=action,
        method="get",
        class_="card",
        aria_label="Filters",
    )


def text_field(
    label: str,
    name: str,
    value: object,
    *,
    hint: str | None = None,
    wide: bool = False,
    numeric: bool = False,
) -> Element:
    """A line of text."""
    return tag(
        "label",
        label,
        tag(
            "input",
            name=name,
            value=None if value is None else value,
            placeholder=hint,
            maxlength=1000,
            autocomplete="off",
            spellcheck="false",
            inputmode="numeric" if numeric else None,
        ),
        class_="wide" if wide else None,
    )


def choice_field(
    label: str, name: str, value: str | None, choices: Sequence[tuple[str, str]]
) -> Element:
    """One of a few; the first is what an address without it means."""
    known = [word for word, _ in choices]
    offered = [*choices] if value is None or value in known else [*choices, (value, value)]
    return tag(
        "label",
        label,
        tag(
            "select",
            *(
                tag("option", shown, value=word, selected=word == (value or ""))
                for word, shown in offered
            ),
            name=name,
        ),
    )
