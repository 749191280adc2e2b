"""A batch of ids and contents as arrays: what has the shape of a whole token, found by numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rubix_token_sync.audit.limits import Form
from rubix_token_sync.ipfs import cid as cids
from rubix_token_sync.ipfs.cid_arrays import V0_CHARACTERS, v0_digests
from rubix_token_sync.records.rac import RacContent

__all__ = ["JUDGED_KINDS", "Batch", "Rows", "TextColumn"]

JUDGED_KINDS: Final = frozenset({"rbt", "data"})
"""The kinds of tokens whose content or id can prove anything; a kind that is not known, too."""

Rows = npt.NDArray[np.int64]
TextColumn: TypeAlias = "pa.Array | Sequence[bytes | str | None]"

_NIBBLES: Final = np.full(256, 0xFF, np.uint8)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_SIZES: Final = {
    66: (Form.TWO_DIGITS,),
    67: (Form.THREE_DIGITS, Form.TWO_DIGITS_NEWLINE),
    68: (Form.THREE_DIGITS_NEWLINE,),
}
_HASH: Final = 64
_SHA256: Final = b"\x12\x20"


class Batch:
    """Ids and contents as arrays, and the verdicts so far: none yet where ``open`` is set."""

    def __init__(
        self,
        ids: TextColumn,
        contents: TextColumn,
        kinds: TextColumn | None,
        decoded: Sequence[RacContent | None] | None,
        undecided: int,
    ) -> None:
        """See `rubix_token_sync.audit.judge.Judge.judge`.

        Raises:
            ValueError: the columns are not of the same length.
        """
        ids = _array(ids, pa.string())
        contents = _array(contents, pa.binary())
        count = len(ids)
        if len(contents) != count or (kinds is not None and len(kinds) != count):
            raise ValueError("a batch needs as many contents and kinds as ids")
        if decoded is not None and len(decoded) != count:
            raise ValueError("a batch needs as many decoded contents as ids")
        self._ids = ids
        self._id_offsets, self._id_data = _buffers(ids)
        self.decoded = decoded
        self.has_content = contents.is_valid().to_numpy(zero_copy_only=False)
        self.wanted = _wanted(kinds, count)
        self.verdicts = np.full(count, undecided, np.int8)
        self.sources = np.full(count, -1, np.int8)
        self.levels = np.full(count, -1, np.int64)
        self.numbers = np.full(count, -1, np.int64)
        self.open = self.wanted.copy()
        self._contents = contents
        self._offsets, self._data = _buffers(contents)

    def id_of(self, row: int) -> str | None:
        """The id; None where there is none."""
        text: str | None = self._ids[row].as_py()
        return text

    def digests_of(
        self, rows: Rows, *, version_0: bool = False
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """The sha2-256 digests in the ids of ``rows``, shape (n, 32), and who has one.

        With ``version_0`` only CIDs of this version count, else others too.
        """
        starts = self._id_offsets[rows]
        usual = np.flatnonzero(self._id_offsets[rows + 1] - starts == V0_CHARACTERS)
        digests, known = v0_digests(self._id_data, starts[usual])
        if len(usual) == len(rows):
            return digests, known
        all_digests = np.zeros((len(rows), 32), np.uint8)
        all_known = np.zeros(len(rows), np.bool_)
        all_digests[usual], all_known[usual] = digests, known
        if not version_0:
            for at in np.flatnonzero(~all_known).tolist():
                text = self.id_of(rows[at])
                cid = cids.parse(text) if text is not None else None
                if cid is not None and cid.multihash.startswith(_SHA256):
                    all_digests[at] = np.frombuffer(cid.multihash, np.uint8)[2:]
                    all_known[at] = True
        return all_digests, all_known

    def content_of(self, row: int) -> bytes | None:
        """The content; None where there is none."""
        if not self.has_content[row]:
            return None
        return self._data[self._offsets[row] : self._offsets[row + 1]].tobytes()

    def shaped(self) -> Iterator[tuple[Rows, Form, Rows, npt.NDArray[np.uint64]]]:
        """Rows whose content has the shape of a form: with its level and the hash's 8 bytes.

        Of the hash only those 16 characters have been looked at.
        """
        sizes = np.diff(self._offsets)
        for size, forms in _SIZES.items():
            rows = np.flatnonzero((sizes == size) & self.has_content & self.wanted)
            if not len(rows):
                continue
            contents = self._data[self._offsets[rows][:, None] + np.arange(size)]
            for form in forms:
                end = size - len(form.end)
                digits = contents[:, : form.digits] - np.uint8(ord("0"))  # below "0": above 200
                hash_ = _NIBBLES[contents[:, end - _HASH : end - _HASH + 16]]
                right = (digits <= 9).all(axis=1) & (hash_ <= 15).all(axis=1)
                if form.end:
                    right &= contents[:, -1] == ord("\n")
                else:
                    right &= contents[:, -1] != ord("\n")
                weights = 10 ** np.arange(form.digits)[::-1]
                levels = digits.astype(np.int64) @ weights
                if form.digits == 2:
                    right &= levels == 1
                if right.any():
                    high, low = hash_[right, ::2], hash_[right, 1::2]
                    keys = np.ascontiguousarray(high << 4 | low).view(">u8")[:, 0]
                    yield rows[right], form, levels[right], keys.astype(np.uint64)


def _array(values: TextColumn, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    if isinstance(values, pa.Array):
        return values
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:  # half of a surrogate pair: neither an id nor a content has one
        return pa.array([_encodable(value) for value in values], kind)


def _encodable(value: bytes | str | None) -> bytes | str | None:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _wanted(kinds: TextColumn | None, count: int) -> npt.NDArray[np.bool_]:
    if kinds is None:
        return np.ones(count, np.bool_)
    judged = _array(kinds, pa.string()).cast(pa.string())
    known = pc.is_in(judged, pa.array(sorted(JUDGED_KINDS)))
    mask: npt.NDArray[np.bool_] = pc.or_(known, judged.is_null()).to_numpy(zero_copy_only=False)
    return mask.copy()


def _buffers(array: pa.Array) -> tuple[Rows, npt.NDArray[np.uint8]]:
    """Offsets and bytes of an array of texts or binaries; no bytes are copied."""
    wide = pa.types.is_large_binary(array.type) or pa.types.is_large_string(array.type)
    _, offsets, data = array.buffers()
    if not len(array) or offsets is None:
        return np.zeros(1, np.int64), np.empty(0, np.uint8)
    of_all = np.frombuffer(offsets, np.int64 if wide else np.int32)
    of_these = of_all[array.offset : array.offset + len(array) + 1].astype(np.int64)
    return of_these, np.frombuffer(data or b"", np.uint8)
