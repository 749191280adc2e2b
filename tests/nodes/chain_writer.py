"""A process that writes a LevelDB directory as a node does, in order, with much rearranging.

For each line that comes in it prints how many keys it has written and writes some more,
which a test then copies; it ends at the end of its input.
``python chain_writer.py DIRECTORY``.
"""

from __future__ import annotations

import sys
from typing import Final

from rubix_token_sync.nodes.chain_store import require_leveldb

BURST: Final = 4_000


def main() -> None:
    written = 0
    with require_leveldb().DB(
        sys.argv[1], create_if_missing=True, write_buffer_size=2**16, max_file_size=2**20
    ) as database:
        while sys.stdin.readline():
            print(written, flush=True)
            for _ in range(BURST):
                database.put(b"k%012d" % (written * 7_919 % 10**12), b"%d" % written * 40)
                written += 1


if __name__ == "__main__":
    main()
