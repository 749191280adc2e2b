"""'Did you mean …?' for words that a user mistyped."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["did_you_mean", "unknown_word"]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``Did you mean …?`` with up to three near words, or nothing."""
    near = get_close_matches(word.lower(), list(known), 3, 0.6)
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else ""


def unknown_word(kind: str, word: str, known: Iterable[str]) -> str:
    """The sentence about a word that is none of ``known``."""
    return f"Unknown {kind} {word!r}. {did_you_mean(word, known)}".strip()
