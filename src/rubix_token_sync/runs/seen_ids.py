"""Which token ids of a database were met before, in 8 to 32 bytes of memory an id."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from rubix_token_sync.records.schema import SqliteValue

__all__ = ["EXACT_IDS", "SeenIds"]

EXACT_IDS: Final = 50_000
"""Ids that are compared one by one even where the schema promises that they differ."""
_FIRST_SLOTS: Final = 1 << 12

Hashes = NDArray[np.uint64]
_hash_of_text: Final = cast(Callable[[object], int], str.__hash__)
"""TypeError for anything else than text."""


class SeenIds:
    """A set of ids, as 64-bit hashes under a key that nobody can foresee.

    Two of ten million different ids are taken for one with a probability of three in a
    million; an attacker cannot do better without knowing the key.

    Args:
        promised: the schema promises unique ids.  Then only the first `EXACT_IDS` are
            compared one by one, and the rest within each call and by `broken_promises`,
            which costs a third of the time.
    """

    def __init__(self, *, promised: bool = False) -> None:
        self._promised = promised
        self._key = os.urandom(16)
        self._slots: Hashes = np.zeros(_FIRST_SLOTS, np.uint64)
        self._used = 0
        self._later: list[Hashes] = []
        self.nulls = False
        """Whether the ids given last hold NULL; those are never equal to each other."""

    def broken_promises(self) -> int:
        """How many ids repeat an earlier one that `repeated` did not compare them with."""
        if not self._later:
            return 0
        every = np.sort(np.concatenate([self._slots[self._slots != 0], *self._later]))
        return int(np.count_nonzero(every[1:] == every[:-1]))

    def repeated(self, ids: Sequence[SqliteValue]) -> list[int]:
        """Positions of ids that were met before, here or in an earlier call, in order."""
        at: NDArray[np.int64] | None = None
        try:
            # Python's own hash: keyed at random in every process, and there already.
            hashes = np.fromiter(map(_hash_of_text, ids), np.int64, len(ids)).view(np.uint64)
            self.nulls = False
        except TypeError:  # not all of them are text
            at = np.flatnonzero([value is not None for value in ids])
            hashes = np.fromiter((self._hash(ids[i]) for i in at.tolist()), np.uint64, len(at))
            self.nulls = len(at) < len(ids)
        hashes[hashes == 0] = 1  # 0 is a free slot
        repeated = np.flatnonzero(self._add(hashes))
        return (repeated if at is None else at[repeated]).tolist()  # type: ignore[no-any-return]

    def _hash(self, value: SqliteValue) -> int:
        if isinstance(value, str):
            return hash(value) & 0xFFFF_FFFF_FFFF_FFFF
        # 1 and 1.0 are equal to Python, and two ids to SQLite's BINARY and to the records' keys.
        text = f"{type(value).__name__}:{value!r}" if not isinstance(value, bytes) else value
        data = text.encode() if isinstance(text, str) else text
        person = b"bytes" if isinstance(value, bytes) else b"number"
        digest = blake2b(data, digest_size=8, key=self._key, person=person).digest()
        return int.from_bytes(digest, "little")

    def _add(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Put hashes in; True for those that are in already, or came before in the same call."""
        ordered = np.sort(hashes)
        if len(ordered) > 1 and (ordered[1:] == ordered[:-1]).any():
            met = np.ones(len(hashes), np.bool_)
            first = np.sort(np.unique(hashes, return_index=True)[1])
            met[first] = self._add(hashes[first])
            return met
        if self._promised and self._used >= EXACT_IDS:
            self._later.append(ordered)
            return np.zeros(len(hashes), np.bool_)
        while (self._used + len(hashes)) * 2 > len(self._slots):
            kept = self._slots[self._slots != 0]
            self._slots = np.zeros(len(self._slots) * 2, np.uint64)
            _insert(self._slots, kept)
        met = _insert(self._slots, hashes)
        self._used += len(hashes) - int(np.count_nonzero(met))
        return met


def _insert(slots: Hashes, hashes: Hashes) -> NDArray[np.bool_]:
    """Put different hashes in by open addressing; True for those that are in already."""
    mask = np.uint64(len(slots) - 1)
    met = np.zeros(len(hashes), np.bool_)
    places = (hashes & mask).astype(np.intp)
    pending: NDArray[np.intp] | None = None  # positions; None: all
    while len(places):
        wanted = hashes if pending is None else hashes[pending]
        held = slots.take(places)
        equal = held == wanted
        if equal.any():
            met[np.flatnonzero(equal) if pending is None else pending[equal]] = True
        free = np.flatnonzero(held == 0)
        slots[places.take(free)] = wanted.take(free)
        # Of several for one free slot one has it; the others go on with the next.
        left = np.flatnonzero(slots.take(places) != wanted)
        pending = left if pending is None else pending.take(left)
        places = (places.take(left) + 1) & int(mask)
    return met
