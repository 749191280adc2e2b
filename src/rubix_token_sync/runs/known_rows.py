"""What the target holds of one database, for comparison with what the node says.

40 bytes a record, nothing per row in Python: keys and digests are sorted once
and whole batches are looked up by numpy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rubix_token_sync.records.schema import RECORD_KEY_BYTES, ROW_DIGEST_BYTES

__all__ = ["Known", "PairIndex"]

_ABSENT: Final = -1


class PairIndex:
    """Positions of 16-byte values, found by the batch; exact whatever the values are."""

    def __init__(self, values: NDArray[np.uint64]) -> None:
        """``values`` has shape (n, 2)."""
        self._order = _order_of(values)
        self._high = np.ascontiguousarray(values[self._order, 0])
        self._low = np.ascontiguousarray(values[self._order, 1])

    def find(self, wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
        """For each row of ``wanted`` (m, 2) a position among the values, or -1."""
        found = np.full(len(wanted), _ABSENT, np.int64)
        if not len(self._high):
            return found
        high, low = wanted[:, 0], wanted[:, 1]
        left = np.searchsorted(self._high, high, "left")
        at = np.minimum(left, len(self._high) - 1)
        same = self._high[at] == high
        hit = same & (self._low[at] == low)
        found[hit] = self._order[at[hit]]
        # Values that share their first half are next to each other, ordered by the second.
        for row in np.flatnonzero(same & ~hit):
            start = int(left[row])
            stop = int(np.searchsorted(self._high, high[row], "right"))
            at_low = start + int(np.searchsorted(self._low[start:stop], low[row]))
            if at_low < stop and self._low[at_low] == low[row]:
                found[row] = self._order[at_low]
        return found


def _order_of(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The positions in ascending order; keys mostly come so, and digests differ in a half."""
    high = np.ascontiguousarray(values[:, 0])
    if (high[1:] > high[:-1]).all():
        return np.arange(len(high))
    order = np.argsort(high)
    ordered = high[order]
    if (ordered[1:] == ordered[:-1]).any():
        return np.lexsort((values[:, 1], high))
    return order


def _pairs(data: bytes, width: int, skip: int = 0) -> NDArray[np.uint64]:
    """The last 16 bytes of each ``width``-byte value, as two integers."""
    raw = np.frombuffer(data, np.uint8).reshape(-1, width)[:, skip:]
    return np.ascontiguousarray(raw).view(">u8").astype(np.uint64)


class Known:
    """Live records of one database in the target, and which of them the node still has."""

    def __init__(self, keys: bytes, digests: bytes, failed: Iterable[bytes] = ()) -> None:
        """``keys`` (24 bytes each) and ``digests`` (16 each) run parallel.

        ``failed`` are the keys whose content is to be asked for again.
        """
        if len(keys) // RECORD_KEY_BYTES != len(digests) // ROW_DIGEST_BYTES:
            raise ValueError("keys and digests differ in number")
        self._keys = keys
        self._by_digest = PairIndex(_pairs(digests, ROW_DIGEST_BYTES))
        self._by_key: PairIndex | None = None
        self._seen = np.zeros(len(keys) // RECORD_KEY_BYTES, np.bool_)
        self._again = np.zeros(len(self._seen), np.bool_)
        again = b"".join(failed)
        if again:
            at = self._find_keys(again)
            self._again[at[at != _ABSENT]] = True

    def __len__(self) -> int:
        return len(self._seen)

    def _find_keys(self, keys: bytes) -> NDArray[np.int64]:
        if self._by_key is None:
            self._by_key = PairIndex(_pairs(self._keys, RECORD_KEY_BYTES, 8))
        return self._by_key.find(_pairs(keys, RECORD_KEY_BYTES, 8))

    def changed_rows(self, digests: bytes) -> NDArray[np.int64]:
        """Positions in the batch of rows that are new, changed, or to be asked for again.

        The others are marked as seen.
        """
        if not len(self):
            return np.arange(len(digests) // ROW_DIGEST_BYTES)
        at = self._by_digest.find(_pairs(digests, ROW_DIGEST_BYTES))
        same = at != _ABSENT
        self._seen[at[same]] = True
        same[same] = ~self._again[at[same]]
        return np.flatnonzero(~same)

    def holds(self, digests: bytes) -> NDArray[np.bool_]:
        """For each row of a batch whether the target has an identical one."""
        if not len(self):
            return np.zeros(len(digests) // ROW_DIGEST_BYTES, np.bool_)
        at = self._by_digest.find(_pairs(digests, ROW_DIGEST_BYTES))
        held: NDArray[np.bool_] = at != _ABSENT
        return held

    def see(self, keys: bytes) -> NDArray[np.bool_]:
        """Mark records as seen; for each key whether the target holds it."""
        if not len(self):
            return np.zeros(len(keys) // RECORD_KEY_BYTES, np.bool_)
        at = self._find_keys(keys)
        held: NDArray[np.bool_] = at != _ABSENT
        self._seen[at[held]] = True
        return held

    def match(self, keys: bytes, digests: bytes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which records the target holds, and which of them with this very digest.

        Marks as seen by the key alone; of records with equal digests only one counts
        as the same.
        """
        held = self.see(keys)
        if not len(self):
            return held, held
        same: NDArray[np.bool_] = held & (
            self._find_keys(keys) == self._by_digest.find(_pairs(digests, ROW_DIGEST_BYTES))
        )
        return held, same

    def vanished(self) -> bytes:
        """Keys (24 bytes each) that the node no longer has, once all of it was seen."""
        raw = np.frombuffer(self._keys, np.uint8).reshape(-1, RECORD_KEY_BYTES)
        return raw[~self._seen].tobytes()
