"""A way that reads a node's own files, within bounded time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from rubix_token_sync.errors import SourceError
from rubix_token_sync.ipfs.cid import Cid
from rubix_token_sync.ipfs.content import ContentReader, Failure
from rubix_token_sync.ipfs.repository import note_stall
from rubix_token_sync.node_files import STALL_SECONDS, BoundedCalls

__all__ = ["BoundedReader"]

_SLICE: Final = 200
"""Contents read between two signs of life: some seconds on the slowest disk."""


class BoundedReader:
    """Opens and reads another reader in a thread that is left behind when it hangs.

    Contents that could not be read say nothing of their tokens: READ_ERROR, which
    the next run asks again.

    Args:
        name: the way's name.
        path: the repository that is read, to be remembered when it stalls.
        opening: makes the reader.
        stall_s: seconds without an answer after which a call is given up.
    """

    def __init__(
        self,
        name: str,
        path: str | None,
        opening: Callable[[], ContentReader],
        stall_s: float = STALL_SECONDS,
    ) -> None:
        self.name = name
        self._path = path or ""
        self._calls = BoundedCalls(stall_s)
        self._reader: ContentReader | None = None
        self._stalled: Failure | None = None
        try:
            self._reader = self._calls.call(opening, if_late=lambda reader: reader.close())
        except SourceError as error:
            self._stalled = note_stall(self._path, error)
        except BaseException:
            self._calls.close()
            raise

    def read(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        """What the other reader gives, or READ_ERROR for what it did not give in time."""
        return self._bounded(cids, whole=True)

    def blocks(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        """The same for blocks."""
        return self._bounded(cids, whole=False)

    def _bounded(self, cids: Sequence[Cid], *, whole: bool) -> list[bytes | Failure]:
        reader, answers = self._reader, list[bytes | Failure]()
        if self._stalled is not None or reader is None:
            return [self._stalled or self._closed()] * len(cids)

        def work() -> None:
            for start in range(0, len(cids), _SLICE):
                part = cids[start : start + _SLICE]
                answers.extend(reader.read(part) if whole else reader.blocks(part))
                self._calls.progress()

        try:
            self._calls.call(work)
        except SourceError as error:
            self._stalled = note_stall(self._path, error)
            # A copy: the thread left behind may still add to the list.
            had = answers[: len(cids)]
            return [*had, *[self._stalled] * (len(cids) - len(had))]
        return answers

    def close(self) -> None:
        """Close the other reader; one that hangs is closed when it answers."""
        self._calls.close(self._reader.close if self._reader is not None else None)
        self._reader = None

    @staticmethod
    def _closed() -> Failure:
        raise ValueError("the reader is closed")
