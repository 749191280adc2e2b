#!/usr/bin/env python3
"""The guide's door to rubix-token-sync: without a command it syncs, with a log of its name.

    python3 sync_distributed_tokens.py                      sync, log in sync_distributed_tokens.log
    python3 sync_distributed_tokens.py --test-connection    check of the target that is named
    python3 sync_distributed_tokens.py status               any other command

Everything else is `rubix-token-sync`'s own; see docs/CLI.md.
"""

from __future__ import annotations

import os
import sys

# Before anything else is imported: no module is taken from the directory of this file, from
# the current one, or from what an empty entry of PYTHONPATH means.
_OWN = os.path.dirname(os.path.realpath(__file__))
_NOT_FROM = {_OWN, os.path.realpath(os.curdir)}
sys.path[:] = [entry for entry in sys.path if entry and os.path.realpath(entry) not in _NOT_FROM]

LOG_FILE = "sync_distributed_tokens.log"


def translate(arguments: list[str], commands: set[str]) -> list[str]:
    """The arguments as rubix-token-sync takes them."""
    if "--test-connection" in arguments:
        rest = [a for a in arguments if a != "--test-connection"]
        return ["check", "--no-default-target", *rest]
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
            sys.exit(_missing(error.name))
        sys.path.insert(0, os.path.join(_OWN, "src"))
        try:
            from rubix_token_sync.cli import COMMANDS, main
        except ModuleNotFoundError as missing:
            sys.exit(_missing(missing.name))
    from rubix_token_sync.surroundings import prepare

    prepare()
    main(translate(sys.argv[1:], set(COMMANDS)))


def _missing(name: str | None) -> str:
    requirements = os.path.join(_OWN, "requirements.txt")
    return f"{name} is missing. Run: {sys.executable} -m pip install -r {requirements}"


if __name__ == "__main__":
    run()
