"""Where the content of new and changed rows comes from: the target first, then the node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rubix_token_sync.ipfs.content import Failure, FailureCode
from rubix_token_sync.ipfs.fetch import ContentChain
from rubix_token_sync.records.build import decode_content
from rubix_token_sync.records.schema import RECORD_KEY_BYTES, SourceRow
from rubix_token_sync.runs.jobs import Job
from rubix_token_sync.targets.base import KnownContent, Target

__all__ = ["Content", "ContentOfRows"]


@dataclass
class ContentOfRows:
    """What is known of the content of some rows, at their positions."""

    data: list[bytes | None]
    failure: list[Failure | None]
    via: list[str]
    healed: int = 0
    from_target: int = 0
    failed_before: dict[int, str | None] = field(default_factory=dict)
    """``ipfs_error`` that the target has for records that were asked for again."""


class Content:
    """Where the content of new and changed rows comes from.

    First what the target already has: of the same record (what failed stays
    failed until it is due again), then of any record with the same token id.
    The rest is asked of the node.
    """

    def __init__(self, job: Job, store: Callable[[], Target], chain: ContentChain) -> None:
        """``store`` opens the target at the first need."""
        self._job = job
        self._store = store
        self._chain = chain

    def of(self, rows: Sequence[SourceRow], keys: bytes, held: NDArray[np.bool_]) -> ContentOfRows:
        """Content or failure for each row; ``held`` marks the records that the target has."""
        count = len(rows)
        ids = [row[0] if isinstance(row[0], str) else None for row in rows]
        if not (self._job.ask_target or held.any()):
            resolved = self._chain.resolve(ids)
            return ContentOfRows(resolved.data, resolved.failure, resolved.via, resolved.healed)
        found = ContentOfRows([None] * count, [None] * count, [""] * count)
        if held.any():
            self._recall(keys, held, found)
        if self._job.ask_target:
            self._borrow(ids, found)
        missing = [i for i in range(count) if found.data[i] is None and found.failure[i] is None]
        if missing:
            resolved = self._chain.resolve([ids[i] for i in missing])
            for at, i in enumerate(missing):
                found.data[i] = resolved.data[at]
                found.failure[i] = resolved.failure[at]
                found.via[i] = resolved.via[at]
            found.healed = resolved.healed
        return found

    def _recall(self, keys: bytes, held: NDArray[np.bool_], found: ContentOfRows) -> None:
        width = RECORD_KEY_BYTES
        at = {keys[i * width : i * width + width]: i for i in np.flatnonzero(held).tolist()}
        for key, content in self._store().known_content(list(at)).items():
            if content.ipfs_fetched and content.ipfs_data is not None:
                found.data[at[key]] = decode_content(content.ipfs_data)
                found.via[at[key]] = "target"
                found.from_target += 1
            elif self._job.retry_content:
                found.failed_before[at[key]] = content.ipfs_error
            else:
                found.failure[at[key]] = _failure(content)

    def _borrow(self, ids: Sequence[str | None], found: ContentOfRows) -> None:
        wanted = [
            token
            for i, token in enumerate(ids)
            if token and found.data[i] is None and found.failure[i] is None
        ]
        held = self._store().content_of_tokens(wanted) if wanted else {}
        for i, token in enumerate(ids):
            if found.data[i] is None and token in held:
                found.data[i] = decode_content(held[token])
                found.failure[i] = None
                found.via[i] = "target"
                found.from_target += 1


def _failure(content: KnownContent) -> Failure | None:
    """A stored ``ipfs_error`` as it was; None where there is none that this version knows."""
    code, _, sentence = (content.ipfs_error or "").partition(": ")
    try:
        return Failure(FailureCode(code), sentence)
    except ValueError:
        return None
