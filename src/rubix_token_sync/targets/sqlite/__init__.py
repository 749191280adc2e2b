"""The embedded target: one SQLite file."""

from __future__ import annotations

from typing import Final

SCHEMES: Final = ("sqlite",)


def recognises(text: str) -> int:  # noqa: ARG001 - part of every target's entry
    """How surely a text without one of `SCHEMES` means this target: a path alone names no kind."""
    return 0
