"""Where tables go: as wide as the terminal, or as wide as they like into a pipe."""

from __future__ import annotations

import sys
from typing import NoReturn

from rich.console import Console

__all__ = ["Output", "stdout_console"]

_WIDE = 10_000


class Output(Console):
    """A console whose reader may leave; see `rubix_token_sync.cli`."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError  # rich would end the program with 1, which means something else


def stdout_console() -> Console:
    """A console on stdout that never cuts or folds what goes to a file or a pipe."""
    if sys.stdout.isatty():
        return Output(highlight=False, soft_wrap=True)
    return Output(highlight=False, soft_wrap=True, width=_WIDE)
