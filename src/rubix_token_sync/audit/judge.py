"""Verdicts on many tokens at a time: what a worker of a sync, or an audit of a target, calls.

How a sync uses it::

    # in the main process, once a run; builds what is not there: 3 s of a processor for numbers,
    # 12 s for ids, which only tokens without a content need (a first sync can leave them out)
    limits = package_limits()
    numbers = open_or_build(directory, numbers_spec(limits), progress=...)
    ids = open_or_build(directory, ids_spec(limits), progress=...)

    # in each worker, once: maps the same files, costs 1 ms
    judge = Judge(
        Ruling(limits, source),
        TokenTable(numbers.path, numbers.spec),
        TokenTable(ids.path, ids.spec),
    )

    # for each batch that is finished: one column a name of `JUDGEMENT_SCHEMA`
    columns = judge.judge(batch["token_id"], batch["ipfs_data"], batch["token_kind"])

    # the same with signatures, where blocks are at hand; 250 µs each, so rather in an audit
    columns = judge.judge(..., key_of=keys_from(lambda cid: reader.blocks([cid])[0]))

A content must have been verified against its id's blocks before, as everything a reader of
contents gives; that the id is the one that this content has by ``ipfs add``, and no other CID
whose blocks give the same bytes, is proven here.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric import ec

from rubix_token_sync.audit.authenticity import (
    BY_ID,
    Judgement,
    Ruling,
    Verdict,
    WholeToken,
    frame,
    looks_whole,
    parse_whole,
)
from rubix_token_sync.audit.batches import JUDGED_KINDS, Batch, Rows, TextColumn
from rubix_token_sync.audit.limits import Form
from rubix_token_sync.audit.signatures import KeyOf, public_key, signed_by
from rubix_token_sync.audit.token_numbers import TokenTable, unpack
from rubix_token_sync.ipfs import cid as cids
from rubix_token_sync.ipfs import unixfs
from rubix_token_sync.records.rac import RacContent, decode_rac

__all__ = ["JUDGED_KINDS", "JUDGEMENT_SCHEMA", "Judge"]

JUDGEMENT_SCHEMA: Final = pa.schema(
    [
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("verdict_source", pa.string()),
        pa.field("token_level", pa.int32()),
        pa.field("token_number", pa.int32()),
    ]
)
"""The columns of a judgement: at most 30 and 50 characters, level 0 to 999, number 0 to 2**23."""

_AT: Final = {verdict: at for at, verdict in enumerate(Verdict)}
_NOT_DECIDABLE: Final = _AT[Verdict.NOT_DECIDABLE]
_FORGED_FORM: Final = _AT[Verdict.FORGED_FORM]

_MOST_KEYS: Final = 4096  # contents may name any number of DIDs
_UNDECIDED: Final = Judgement(Verdict.NOT_DECIDABLE)
_SHA256: Final = b"\x12\x20"


class Judge:
    """Judges batches; one a process, not for several threads at a time."""

    def __init__(self, ruling: Ruling, numbers: TokenTable, ids: TokenTable | None = None) -> None:
        """Judge by ``ruling`` with the tables of its limits.

        Args:
            ruling: which sources decide.
            numbers: inverts the hash in a content.
            ids: decodes ids without a content; without it they are not decidable.
        """
        self._ruling = ruling
        self._numbers = numbers
        self._ids = ids
        self._verdicts = pa.array([verdict.value for verdict in Verdict], pa.string())
        self._sources = pa.array([*ruling.source_names, BY_ID], pa.string())
        self._by_id = len(self._sources) - 1
        self._source_at = {name: at for at, name in enumerate(self._sources.to_pylist())}
        self._keys: dict[str, ec.EllipticCurvePublicKey] = {}

    given_up = False

    @property
    def decodes_ids(self) -> bool:
        """Tokens without content can be judged."""
        return self._ids is not None

    def judge(
        self,
        ids: TextColumn,
        contents: TextColumn,
        kinds: TextColumn | None = None,
        *,
        key_of: KeyOf | None = None,
        decoded: Sequence[RacContent | None] | None = None,
    ) -> pa.RecordBatch:
        """The verdicts on a batch, in its order, as `JUDGEMENT_SCHEMA`.

        About 2 µs a whole token in batches of 5,000 and more; a part or test token costs 13 µs
        (5 where it is ``decoded``), and 260 µs more where its signature is checked.  Never
        raises for what ids and contents hold.

        Args:
            ids: token ids as text.
            contents: verified contents as bytes or text; None where there is none.
            kinds: see `JUDGED_KINDS`; None: all are judged.
            key_of: keys of DIDs; without it no signature is checked.
            decoded: what `decode_rac` gave for each content, where that is known already.

        Raises:
            TokenTableError: ``token_table_damaged``, a table's file is not what was written.
        """
        batch = Batch(ids, contents, kinds, decoded, _NOT_DECIDABLE)
        self._whole(batch)
        self._without_content(batch)
        for row in np.flatnonzero(batch.open).tolist():
            self._set(batch, row, self._other(batch, row, key_of))
        return pa.RecordBatch.from_arrays(
            [
                self._verdicts.take(pa.array(batch.verdicts)),
                self._sources.take(pa.array(batch.sources, mask=batch.sources < 0)),
                pa.array(batch.levels.astype(np.int32), mask=batch.levels < 0),
                pa.array(batch.numbers.astype(np.int32), mask=batch.numbers < 0),
            ],
            schema=JUDGEMENT_SCHEMA,
        )

    def one(
        self,
        token_id: str,
        content: bytes | None = None,
        kind: str | None = None,
        *,
        key_of: KeyOf | None = None,
    ) -> Judgement:
        """The verdict on one token; see `judge`."""
        answer = self.judge([token_id], [content], [kind], key_of=key_of)
        verdict, source, level, number = (column[0].as_py() for column in answer.columns)
        return Judgement(Verdict(verdict), source, level, number)

    def _whole(self, batch: Batch) -> None:
        """Contents that look like whole tokens, where the id is proven by level and number."""
        for rows, form, levels, keys in batch.shaped():
            values = self._numbers.find(keys)
            found = values >= 0
            self._confirm(
                batch, rows[found], levels[found], values[found], np.full(found.sum(), int(form))
            )

    def _without_content(self, batch: Batch) -> None:
        """Ids without a content, by the table of ids."""
        rows = np.flatnonzero(batch.wanted & ~batch.has_content)
        batch.open[rows] = False
        if self._ids is None or not len(rows):
            return
        digests, known = batch.digests_of(rows)
        rows, digests = rows[known], digests[known]
        values = self._ids.find(np.ascontiguousarray(digests[:, :8]).view(">u8")[:, 0])
        found = values >= 0
        rows = rows[found]
        batch.open[rows] = True
        self._confirm(batch, rows, *unpack(values[found]))

    def _confirm(self, batch: Batch, rows: Rows, levels: Rows, numbers: Rows, forms: Rows) -> None:
        """Judge the rows whose id is a version 0 CID and has exactly this token's digest."""
        if not len(rows):
            return
        # Those of version 1 are left to the general way.
        digests, known = batch.digests_of(rows, version_0=True)
        expected = _digests(levels, numbers, forms)
        right = known & (digests == expected).all(axis=1)
        rows, levels, numbers, forms = rows[right], levels[right], numbers[right], forms[right]
        batch.verdicts[rows], batch.sources[rows] = self._ruling.judge_numbers(
            levels, numbers, forms
        )
        batch.levels[rows] = levels
        batch.numbers[rows] = numbers
        batch.open[rows] = False

    def _other(self, batch: Batch, row: int, key_of: KeyOf | None) -> Judgement:
        """Whatever the general case is not, one at a time."""
        token_id, content = batch.id_of(row), batch.content_of(row)
        cid = cids.parse(token_id) if token_id is not None else None
        if content is None:
            return self._by_id_alone(cid) if cid is not None else _UNDECIDED
        whole = self._whole_content(cid, content)
        if whole is not None:
            return whole
        rac = batch.decoded[row] if batch.decoded is not None else decode_rac(content)
        if rac is None:
            return _UNDECIDED
        if cid is None or unixfs.matches(cid, content) is False:
            return Judgement(Verdict.FORGED_FORM, BY_ID)
        return Judgement(self._signature(rac, key_of))

    def _whole_content(self, cid: cids.Cid | None, content: bytes) -> Judgement | None:
        """The verdict on what has the form of a whole token or imitates one; else None."""
        parsed = parse_whole(content)
        if parsed is None:
            return Judgement(Verdict.FORGED_FORM) if looks_whole(content) else None
        for number in self._numbers.find_all(int(parsed.hash[:16], 16)):
            if sha256(b"%d" % number).hexdigest() == parsed.hash:
                return self._with_id(cid, WholeToken(parsed.level, number, parsed.form))
        return Judgement(Verdict.FORGED_FORM, level=parsed.level)

    def _by_id_alone(self, cid: cids.Cid) -> Judgement:
        assert self._ids is not None  # only its hits come here
        for value in self._ids.find_all(int.from_bytes(cid.multihash[2:10])):
            level, number, form = (int(part[0]) for part in unpack(np.array([value])))
            token = WholeToken(level, number, Form(form))
            if cid.multihash == _SHA256 + token.digest():
                return self._with_id(cid, token)
        return _UNDECIDED

    def _with_id(self, cid: cids.Cid | None, token: WholeToken) -> Judgement:
        """The verdict on a token under this id, which may not be the one that makes it."""
        judgement = self._ruling.judge(token)
        if cid is not None and cid.multihash == _SHA256 + token.digest() and cid.version == 0:
            return judgement
        if cid is not None and unixfs.matches(cid, token.content()):
            # ``ipfs add --cid-version=1`` or ``--trickle``: the same content, another id.
            if judgement.verdict is Verdict.GENUINE:
                return judgement._replace(verdict=Verdict.DISPUTED, source=BY_ID)
            return judgement
        return Judgement(Verdict.FORGED_FORM, BY_ID, token.level, token.number)

    def _signature(self, rac: RacContent, key_of: KeyOf | None) -> Verdict:
        key = self._keys.get(rac.creator_did)
        if key is None and key_of is not None:
            pem = key_of(rac.creator_did)
            key = public_key(pem) if pem is not None else None
            if key is not None:
                if len(self._keys) >= _MOST_KEYS:
                    self._keys.clear()
                self._keys[rac.creator_did] = key
        if key is None:
            return Verdict.SIGNATURE_NOT_CHECKED
        return Verdict.SIGNATURE_CHECKED if signed_by(key, rac) else Verdict.SIGNATURE_WRONG

    def _set(self, batch: Batch, row: int, judgement: Judgement) -> None:
        batch.verdicts[row] = _AT[judgement.verdict]
        batch.sources[row] = -1 if judgement.source is None else self._source_at[judgement.source]
        batch.levels[row] = -1 if judgement.level is None else judgement.level
        batch.numbers[row] = -1 if judgement.number is None else judgement.number


def _digests(levels: Rows, numbers: Rows, forms: Rows) -> npt.NDArray[np.uint8]:
    """The digests of these whole tokens' ids: the two hashes that prove a token, 0.7 µs."""
    codes = levels * len(Form) + forms
    frames = {
        code: frame(code // len(Form), Form(code % len(Form))) for code in set(codes.tolist())
    }
    if len(frames) == 1:  # the usual batch
        ((head, tail),) = frames.values()
        found = [
            sha256(head + sha256(b"%d" % number).hexdigest().encode() + tail).digest()
            for number in numbers.tolist()
        ]
    else:
        heads = {code: head for code, (head, _) in frames.items()}
        tails = {code: tail for code, (_, tail) in frames.items()}
        found = [
            sha256(heads[code] + sha256(b"%d" % number).hexdigest().encode() + tails[code]).digest()
            for code, number in zip(codes.tolist(), numbers.tolist(), strict=True)
        ]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, 32)
