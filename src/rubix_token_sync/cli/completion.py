"""`completion`: what a shell needs in order to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from rubix_token_sync.cli.output import print_text
from rubix_token_sync.installation import NAME

__all__ = ["SHELLS", "completion", "completion_script"]

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> int:
    """Print the script that completes commands and options in SHELL.

    bash: eval "$(rubix-token-sync completion bash)" in ~/.bashrc.
    """
    print_text(completion_script(shell) + "\n")
    return 0


def completion_script(shell: str) -> str:
    """The script for one of `SHELLS`; it calls the program each time Tab is pressed."""
    from rubix_token_sync.cli import command_line

    kind = get_completion_class(shell)
    if kind is None:
        raise ValueError(f"click knows no shell {shell!r}")
    return kind(command_line, {}, NAME, "_RUBIX_TOKEN_SYNC_COMPLETE").source()
