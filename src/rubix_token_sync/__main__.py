"""Where the program starts: ``rubix-token-sync`` and ``python -m rubix_token_sync``."""

from __future__ import annotations

# Nothing else may be imported before `prepare` has run: `python -m` and an empty entry of
# PYTHONPATH put the current directory before everything else.
from rubix_token_sync.surroundings import hide_unused, prepare


def start() -> None:
    """Run the command line in surroundings that it can rely on."""
    prepare()
    hide_unused()
    from rubix_token_sync.cli import main

    main()


if __name__ == "__main__":
    start()
