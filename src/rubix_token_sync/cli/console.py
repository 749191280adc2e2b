"""Where tables go: as wide as the terminal, or as wide as they like into a pipe."""

from __future__ import annotations

import sys

from rich.console import Console

__all__ = ["stdout_console"]

_WIDE = 10_000


def stdout_console() -> Console:
    """A console on stdout that never cuts or folds what goes to a file or a pipe."""
    if sys.stdout.isatty():
        return Console(highlight=False, soft_wrap=True)
    return Console(highlight=False, soft_wrap=True, width=_WIDE)
