#!/usr/bin/env python3
"""The guide's door to rubix-token-sync: without a command it syncs, with a log of its name.

    python3 sync_distributed_tokens.py                      sync, log in sync_distributed_tokens.log
    python3 sync_distributed_tokens.py --test-connection    check
    python3 sync_distributed_tokens.py status               any other command

Everything else is `rubix-token-sync`'s own; see docs/CLI.md.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

LOG_FILE = "sync_distributed_tokens.log"


def translate(arguments: list[str], commands: set[str]) -> list[str]:
    """The arguments as rubix-token-sync takes them."""
    if "--test-connection" in arguments:
        return ["check", *(a for a in arguments if a != "--test-connection")]
    first = next((a for a in arguments if not a.startswith("-")), None)
    if first in commands or {"-h", "--help", "--version"} & set(arguments):
        return arguments
    named = any(a == "--log-file" or a.startswith("--log-file=") for a in arguments)
    log = [] if named or os.environ.get("RUBIX_SYNC_LOG_FILE") else ["--log-file", LOG_FILE]
    return ["sync", *log, *arguments]


def run() -> None:
    """Hand over to the installed program, or to the one beside this file."""
    try:
        from rubix_token_sync.cli import COMMANDS, main
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("rubix_token_sync"):
            sys.exit(f"{error.name} is missing. Run: pip install -r requirements.txt")
        sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))
        try:
            from rubix_token_sync.cli import COMMANDS, main
        except ModuleNotFoundError as missing:
            sys.exit(f"{missing.name} is missing. Run: pip install -r requirements.txt")
    main(translate(sys.argv[1:], set(COMMANDS)))


if __name__ == "__main__":
    run()
