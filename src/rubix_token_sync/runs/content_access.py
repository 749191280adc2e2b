"""A node's repository, read with limited patience: its file system may not answer.

The database of a node is read so, too (`rubix_token_sync.nodes.bounded_calls`); here
it is the block store, token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rubix_token_sync.errors import SourceError
from rubix_token_sync.ipfs.cid import Cid
from rubix_token_sync.ipfs.content import ContentReader, Failure, FailureCode
from rubix_token_sync.ipfs.fetch import ContentChain, ContentOptions, open_chain
from rubix_token_sync.ipfs.repository import repository_fingerprint
from rubix_token_sync.nodes.bounded_calls import Patience

__all__ = ["PatientReader", "fingerprint_patiently", "open_patiently"]

_SLICE: Final = 200
"""So many contents are read between two signs of life: some seconds on the slowest disk."""


class PatientReader:
    """A way of getting content that reads files; what hangs becomes a failure.

    Contents that could not be read say nothing of their tokens: READ_ERROR, which
    the next run asks again.
    """

    def __init__(self, reader: ContentReader, patience: Patience) -> None:
        self._reader = reader
        self._patience = patience
        self.name = reader.name

    def read(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        answers: list[bytes | Failure] = []

        def work() -> None:
            for start in range(0, len(cids), _SLICE):
                answers.extend(self._reader.read(cids[start : start + _SLICE]))
                self._patience.progress()

        try:
            self._patience.call(work)
        except SourceError as stalled:
            # A copy: the thread left behind may still add to the list.
            had = answers[: len(cids)]
            missing = Failure(FailureCode.READ_ERROR, stalled.message)
            return [*had, *[missing] * (len(cids) - len(had))]
        return answers

    def close(self) -> None:
        self._patience.close(self._reader.close)


def fingerprint_patiently(repository: str | None) -> str | None:
    """`repository_fingerprint`, None where there is no repository.

    Raises:
        SourceError: ``stalled``.
    """
    if not repository:
        return None
    patience = Patience()
    try:
        return patience.call(lambda: repository_fingerprint(repository))
    finally:
        patience.close()


def open_patiently(repository: str | None, options: ContentOptions) -> ContentChain:
    """`open_chain`, for a repository whose file system may not answer.

    Raises:
        SourceError: ``stalled``.
        SettingsError: a gateway is no plain http or https URL.
    """
    patience = Patience()

    guarded: list[PatientReader] = []

    def guard(reader: ContentReader) -> ContentReader:
        guarded.append(PatientReader(reader, patience))
        return guarded[-1]

    try:
        return patience.call(lambda: open_chain(repository, options, guard=guard))
    except BaseException:
        guarded.clear()
        raise
    finally:
        if not guarded:  # else the reader ends the thread
            patience.close()
