"""``python -m rubix_token_sync``."""

from rubix_token_sync.cli import main

if __name__ == "__main__":
    main()
