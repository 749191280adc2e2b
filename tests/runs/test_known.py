"""Known and PairIndex behave as a dict would, whatever the bytes are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.runs.known_rows import Known, PairIndex

# Few different bytes: halves are shared, values repeat, neighbours differ in the last bit.
_HALF = st.sampled_from([bytes(8), b"\0" * 7 + b"\1", b"\xff" * 8, b"\x80" + bytes(7), b"abcdefgh"])
_DIGEST = st.one_of(st.tuples(_HALF, _HALF).map(b"".join), st.binary(min_size=16, max_size=16))
_DATABASE = b"database"


def _pairs(values: list[bytes]) -> np.ndarray:
    raw = np.frombuffer(b"".join(values), ">u8").astype(np.uint64)
    return raw.reshape(-1, 2)


@given(st.lists(_DIGEST), st.lists(_DIGEST))
def test_finds_what_a_dict_finds(values: list[bytes], wanted: list[bytes]) -> None:
    wanted = wanted + values
    found = PairIndex(_pairs(values)).find(_pairs(wanted))
    assert len(found) == len(wanted)
    for value, at in zip(wanted, found.tolist(), strict=True):
        if value in values:
            assert values[at] == value
        else:
            assert at == -1


def test_order_is_of_unsigned_bytes() -> None:
    # As signed integers, or in this machine's byte order, these would sort otherwise.
    values = [b"\xff" * 16, bytes(16), b"\x80" + bytes(15), b"\x7f" + b"\xff" * 15]
    assert PairIndex(_pairs(values)).find(_pairs(values)).tolist() == [0, 1, 2, 3]


class Model:
    """The same in plain Python: records by key, each with its digest."""

    def __init__(self, records: dict[bytes, bytes], failed: set[bytes]) -> None:
        self.records = records
        self.failed = failed
        self.seen: set[bytes] = set()

    def changed_rows(self, digests: list[bytes]) -> list[int]:
        by_digest = {digest: key for key, digest in self.records.items()}
        fresh = []
        for at, digest in enumerate(digests):
            key = by_digest.get(digest)
            if key is not None:
                self.seen.add(key)
            if key is None or key in self.failed:
                fresh.append(at)
        return fresh

    def see(self, keys: list[bytes]) -> list[bool]:
        self.seen.update(key for key in keys if key in self.records)
        return [key in self.records for key in keys]

    def vanished(self) -> list[bytes]:
        return [key for key in self.records if key not in self.seen]


@st.composite
def _tables(draw: st.DrawFn) -> tuple[dict[bytes, bytes], set[bytes], list[list[bytes]]]:
    suffixes = draw(st.lists(_DIGEST, unique=True, max_size=12))
    digests = draw(st.lists(_DIGEST, unique=True, min_size=len(suffixes), max_size=len(suffixes)))
    records = {_DATABASE + s: d for s, d in zip(suffixes, digests, strict=True)}
    failed = draw(st.sets(st.sampled_from(sorted(records)))) if records else set()
    step = st.one_of(_DIGEST, st.sampled_from(digests)) if digests else _DIGEST
    return records, failed, draw(st.lists(st.lists(step, max_size=8), max_size=5))


@given(_tables(), st.data())
def test_follows_a_dict_model(
    table: tuple[dict[bytes, bytes], set[bytes], list[list[bytes]]], data: st.DataObject
) -> None:
    records, failed, batches = table
    known = Known(b"".join(records), b"".join(records.values()), failed)
    model = Model(records, failed)
    assert len(known) == len(records)
    for batch in batches:
        assert known.changed_rows(b"".join(batch)).tolist() == model.changed_rows(batch)
        held = [digest in records.values() for digest in batch]
        assert known.holds(b"".join(batch)).tolist() == held
        key = st.one_of(_DIGEST.map(_DATABASE.__add__), *(map(st.just, records)))
        keys = data.draw(st.lists(key, max_size=6))
        assert known.see(b"".join(keys)).tolist() == model.see(keys)
    assert known.vanished() == b"".join(model.vanished())


def test_nothing_known_means_all_is_new() -> None:
    known = Known(b"", b"")
    assert known.changed_rows(bytes(48)).tolist() == [0, 1, 2]
    assert known.see(bytes(48)).tolist() == [False, False]
    assert known.vanished() == b""
    assert known.changed_rows(b"").tolist() == []


def test_failed_content_is_asked_for_until_it_is_no_longer_listed() -> None:
    keys = [_DATABASE + bytes([n]) * 16 for n in range(3)]
    digests = [bytes([n]) * 16 for n in range(3)]
    known = Known(b"".join(keys), b"".join(digests), {keys[1]})
    assert known.changed_rows(b"".join(digests)).tolist() == [1]
    # It is seen all the same: asking again is no reason to call it vanished.
    assert known.vanished() == b""


def test_failed_keys_that_are_not_live_are_no_matter() -> None:
    known = Known(_DATABASE + bytes(16), bytes(16), {_DATABASE + b"\1" * 16})
    assert known.changed_rows(bytes(16)).tolist() == []


def test_refuses_columns_of_different_length() -> None:
    with pytest.raises(ValueError, match="differ in number"):
        Known(bytes(24), bytes(32))
