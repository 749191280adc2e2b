"""``python -m rubix_token_sync``."""

# First of all, because `python -m` puts the current directory before the standard library.
from rubix_token_sync.surroundings import prepare

if __name__ == "__main__":
    prepare()

from rubix_token_sync.cli import main

if __name__ == "__main__":
    main()
