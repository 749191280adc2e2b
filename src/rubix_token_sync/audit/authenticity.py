"""Verdicts on tokens from what is known of them; reads nothing and remembers nothing.

A whole token's content is its level (3 digits; 2 in old software, for level 1) and the sha256 of
its decimal number as 64 hexadecimal characters; its id is the CID that ``ipfs add`` gives to this
content.  So level, number and form make the id, and nothing else can.  Whether such a number
exists is what the sources of `rubix_token_sync.audit.limits` disagree about.

Part, test and data tokens are proven by their creator's signature alone.  Of fungible tokens,
NFTs and contracts no content proves the mint.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import cache
from hashlib import sha256
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rubix_token_sync.audit.limits import MAX_LEVEL, Form, Limits
from rubix_token_sync.ipfs.cid import cid_v0
from rubix_token_sync.ipfs.unixfs import encode_leaf

__all__ = [
    "ALL_SOURCES",
    "BY_ID",
    "Judgement",
    "Ruling",
    "Verdict",
    "WholeToken",
    "looks_whole",
    "parse_whole",
]

ALL_SOURCES: Final = "all"
"""In place of a source's name: what all of them say that say anything."""

BY_ID: Final = "cid"
"""In place of a source's name: the form of the id decided."""


class Verdict(StrEnum):
    """What is known of a token; at most 30 characters."""

    GENUINE = "genuine"
    """A whole token that every source accepts (or the ruling one)."""
    DISPUTED = "disputed"
    """A whole token that some sources accept and others do not."""
    OUT_OF_RANGE = "out_of_range"
    """Made of a number, but the level does not have that many."""
    FORGED_FORM = "forged_form"
    """Has the shape of a whole token, but no number of any level gives this content or this id."""
    NOT_DECIDABLE = "not_decidable"
    """Neither content nor id says what it is, or this kind of token cannot be proven by them."""
    SIGNATURE_CHECKED = "signature_checked"
    """A part, test or data token that the DID it names has signed."""
    SIGNATURE_NOT_CHECKED = "signature_not_checked"
    """The same, but the DID's key was not at hand: says nothing for or against it."""
    SIGNATURE_WRONG = "signature_wrong"
    """The same, but the DID it names has not signed it."""


class Judgement(NamedTuple):
    """A verdict with what it rests on."""

    verdict: Verdict
    source: str | None = None
    """Whose limit decided: a name of `Limits.names`, `ALL_SOURCES`, `BY_ID`; else None."""
    level: int | None = None
    number: int | None = None


class WholeToken(NamedTuple):
    """Level, number and form: all that makes a whole token."""

    level: int
    number: int
    form: Form = Form.THREE_DIGITS

    def content(self) -> bytes:
        """What is added to IPFS: 66 to 68 bytes for levels of at most three digits."""
        level = f"{self.level:0{self.form.digits}d}".encode("ascii")
        return level + sha256(b"%d" % self.number).hexdigest().encode("ascii") + self.form.end

    def digest(self) -> bytes:
        """The sha2-256 in its id."""
        head, tail = frame(self.level, self.form)
        digits = sha256(b"%d" % self.number).hexdigest().encode("ascii")
        return sha256(head + digits + tail).digest()

    def token_id(self) -> str:
        """Its id, a CID of version 0."""
        return cid_v0(self.digest())


class ParsedContent(NamedTuple):
    """A content in one of the four forms."""

    level: int
    form: Form
    hash: str
    """What should be the sha256 of a number: 64 lower-case hexadecimal characters."""


@cache
def frame(level: int, form: Form) -> tuple[bytes, bytes]:
    """What stands before and behind the 64 characters in the block of a whole token."""
    mark = b"#" * 64  # not a digit: the level's last one must not be taken for its beginning
    content = f"{level:0{form.digits}d}".encode("ascii") + mark + form.end
    head, tail = encode_leaf(content).split(mark)
    return head, tail


_CONTENT: Final = re.compile(rb"([0-9]{3}|01)([0-9a-f]{64})(\n?)", re.ASCII)
_LIKE_ONE: Final = re.compile(rb"\s*[+-]?[0-9]{1,8}[0-9a-fA-F]{64}\s*", re.ASCII)
_MOST_LIKE_ONE: Final = 90  # characters


def parse_whole(content: bytes) -> ParsedContent | None:
    """The content in the form of a whole token; None: it has none of the four forms.

    Two digits are level 1's only, for no software has written another level so.
    """
    match = _CONTENT.fullmatch(content) if 66 <= len(content) <= 68 else None
    if match is None:
        return None
    digits, hash_, end = match.groups()
    form = Form((2 if end else 0) + (1 if len(digits) == 2 else 0))
    return ParsedContent(int(digits), form, hash_.decode("ascii"))


def looks_whole(content: bytes) -> bool:
    """Whether somebody may take this for a whole token: other spellings of level or hash.

    Node software trims white space and reads ``+01`` and ``0001`` as level 1; but no token is
    written so, so whatever looks like one and is not `parse_whole` is forged.
    """
    return (
        65 <= len(content) <= _MOST_LIKE_ONE
        and _LIKE_ONE.fullmatch(content) is not None
        and parse_whole(content) is None
    )


Integers = npt.NDArray[np.int64]

_GENUINE, _DISPUTED, _OUT_OF_RANGE, _FORGED_FORM, _NOT_DECIDABLE = range(5)
_VERDICTS: Final = tuple(Verdict)


class Ruling:
    """How limits become verdicts: all sources must agree, or one of them rules.

    Raises:
        ValueError: ``source`` is not one of the file's.
    """

    def __init__(self, limits: Limits, source: str | None = None) -> None:
        if source is not None and source not in limits.names:
            known = ", ".join(limits.names)
            raise ValueError(f"{source!r} is not a source of limits; there are: {known}")
        self.limits = limits
        self.source = source
        self._sources = [s for s in limits.sources if source in (None, s.name)]
        levels = range(MAX_LEVEL + 1)
        # By source and level; one level more for every level that is higher.
        self._silent = np.array([[s.last(n) is None for n in levels] for s in self._sources])
        self._last = np.array([[_or_none(s.last(n)) for n in levels] for s in self._sources])
        self._forms = np.array([[form in s.forms for form in Form] for s in self._sources])
        self._first = np.array([s.lowest_number for s in self._sources])
        self.source_names = (*(s.name for s in self._sources), ALL_SOURCES)
        """What the numbers of sources in `judge_numbers` stand for."""

    @property
    def version(self) -> str:
        """Changes whenever a verdict may: the limits' version, and who rules."""
        return f"{self.limits.version} {self.source or ALL_SOURCES}"

    def judge(self, token: WholeToken) -> Judgement:
        """The verdict on one whole token whose id or content is as `WholeToken` makes it."""
        verdicts, sources = self.judge_numbers(
            np.array([token.level]), np.array([token.number]), np.array([token.form])
        )
        source = self.source_names[sources[0]] if sources[0] >= 0 else None
        return Judgement(_VERDICTS[verdicts[0]], source, token.level, token.number)

    def judge_numbers(
        self, levels: Integers, numbers: Integers, forms: Integers
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
        """The verdicts on many: positions in `Verdict` and in `source_names`, -1 for no source.

        One element a token in each of the three arrays; numbers are 0 or more.
        """
        at = np.clip(levels, 0, MAX_LEVEL)
        silent = self._silent[:, at]
        written = self._forms[:, forms] & ~silent
        within = written & (numbers >= self._first[:, None]) & (numbers <= self._last[:, at])
        refused = ~within & ~silent
        accepted = within.any(axis=0)
        verdicts = np.full(len(levels), _OUT_OF_RANGE, np.int8)
        sources = np.full(len(levels), len(self._sources), np.int8)  # all of them
        verdicts[~written.any(axis=0)] = _FORGED_FORM
        verdicts[accepted] = _GENUINE
        disputed = accepted & refused.any(axis=0)
        verdicts[disputed] = _DISPUTED
        sources[disputed] = refused[:, disputed].argmax(axis=0)
        unknown = silent.all(axis=0)
        verdicts[unknown] = _NOT_DECIDABLE
        if self.source is not None:
            sources[:] = 0
        sources[unknown] = -1
        return verdicts, sources


def _or_none(last: int | None) -> int:
    return -1 if last is None else last
