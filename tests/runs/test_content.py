"""Where content comes from, in which order, and what is not asked for again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest

from rubix_token_sync.ipfs.content import Failure, FailureCode
from rubix_token_sync.ipfs.fetch import ContentChain, Resolved
from rubix_token_sync.nodes.discovery import Node
from rubix_token_sync.records.kinds import RBT
from rubix_token_sync.records.schema import record_key
from rubix_token_sync.runs.content import Content, ContentOfRows
from rubix_token_sync.targets.base import KnownContent, Target
from tests.runs.makers import make_job

NODE = Node("/fleet/a/Rubix/rubix.db", "a", None)
ABSENT = Failure(FailureCode.NOT_IN_REPOSITORY, "not there")
STORED_FAILURE = KnownContent(None, False, "too_large: 60000 bytes")


class FakeChain:
    """A node that has the content ``node:ID`` of the ids it was given."""

    def __init__(self, *has: str) -> None:
        self.has = has
        self.asked: list[str | None] = []

    def resolve(self, ids: Sequence[str | None]) -> Resolved:
        self.asked += ids
        data = [f"node:{i}".encode() if i in self.has else None for i in ids]
        return Resolved(
            data,
            [None if d is not None else ABSENT for d in data],
            ["blockstore" if d is not None else "" for d in data],
            healed=sum(d is not None for d in data),
        )


class FakeTarget:
    """A target: what it holds by record, and by token id of anybody's records."""

    def __init__(self, records: dict[bytes, KnownContent], tokens: dict[str, str]) -> None:
        self.records = records
        self.tokens = tokens
        self.asked: list[str] = []

    def known_content(self, keys: Sequence[bytes]) -> dict[bytes, KnownContent]:
        return {key: self.records[key] for key in keys if key in self.records}

    def content_of_tokens(self, ids: Sequence[str]) -> dict[str, KnownContent]:
        self.asked += ids
        return {i: KnownContent(self.tokens[i], True, None) for i in ids if i in self.tokens}


def _of(
    ids: list[str | bytes | None],
    *,
    has: Sequence[str] = (),
    known: dict[str, KnownContent] | None = None,
    tokens: dict[str, str] | None = None,
    ask_target: bool = True,
    retry: bool = True,
) -> tuple[ContentOfRows, FakeChain, FakeTarget]:
    job = make_job(NODE, ask_target=ask_target, retry_content=retry)
    keys = [record_key(job.database_key, i) for i in ids]
    known = known or {}
    chain = FakeChain(*has)
    target = FakeTarget(
        {record_key(job.database_key, i): c for i, c in known.items()}, tokens or {}
    )
    content = Content(job, lambda: cast(Target, target), cast(ContentChain, chain))
    held = np.array([i in known for i in ids], np.bool_)
    found = content.of(RBT, [(i,) for i in ids], b"".join(keys), held)
    for data, failure in zip(found.data, found.failure, strict=True):
        assert (data is None) != (failure is None)  # one of both, always
    return found, chain, target


def test_the_record_first_then_anybodys_then_the_node() -> None:
    found, chain, target = _of(
        ["mine", "others", "fresh", "absent"],
        has=["mine", "others", "fresh"],
        known={"mine": KnownContent("of mine", True, None)},
        tokens={"mine": "of others", "others": "of others"},
    )
    assert found.data == [b"of mine", b"of others", b"node:fresh", None]
    assert found.failure == [None, None, None, ABSENT]
    assert found.via == ["target", "target", "blockstore", ""]
    assert (found.from_target, found.healed) == (2, 1)
    assert target.asked == ["others", "fresh", "absent"]
    assert chain.asked == ["fresh", "absent"]


def test_a_target_without_content_is_not_asked() -> None:
    found, chain, target = _of(["a"], has=["a"], tokens={"a": "x"}, ask_target=False)
    assert (found.data, found.via) == ([b"node:a"], ["blockstore"])
    assert (chain.asked, target.asked) == (["a"], [])


def test_what_failed_stays_failed_until_it_is_due() -> None:
    found, chain, target = _of(["a"], has=["a"], known={"a": STORED_FAILURE}, retry=False)
    assert found.failure == [Failure(FailureCode.TOO_LARGE, "60000 bytes")]
    assert (chain.asked, target.asked) == ([], [])


def test_what_failed_is_asked_for_again_when_due() -> None:
    found, chain, _ = _of(["a"], has=["a"], known={"a": STORED_FAILURE}, retry=True)
    assert (found.data, chain.asked) == ([b"node:a"], ["a"])


def test_somebody_elses_content_comes_before_a_retry_of_the_node() -> None:
    found, chain, _ = _of(["a"], known={"a": STORED_FAILURE}, tokens={"a": "x"}, retry=True)
    assert (found.data, chain.asked) == ([b"x"], [])


@pytest.mark.parametrize("text", ["something of a later version: x", "", None])
def test_a_reason_that_nobody_knows_is_no_reason(text: str | None) -> None:
    _, chain, _ = _of(["a"], known={"a": KnownContent(None, False, text)}, retry=False)
    assert chain.asked == ["a"]


def test_ids_that_are_no_text_go_to_the_node_as_none() -> None:
    found, chain, target = _of([b"a", None, "a"], tokens={"a": "x"})
    assert found.data[2] == b"x"
    assert chain.asked == [None, None]
    assert target.asked == ["a"]


def test_stored_bytes_come_back_as_they_were() -> None:
    marked = "data:application/octet-stream;base64,AP8="
    found, _, _ = _of(["a"], tokens={"a": marked})
    assert found.data == [b"\x00\xff"]
