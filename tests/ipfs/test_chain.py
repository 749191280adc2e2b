"""The chain: order, what is kept of failures, what is said of healed blocks."""

from __future__ import annotations

import itertools
import pickle
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from rubix_token_sync.ipfs.cid import Cid, cid_v0
from rubix_token_sync.ipfs.content import Failure, FailureCode
from rubix_token_sync.ipfs.fetch import NO_CID, ContentChain, ContentOptions, open_chain
from tests.ipfs.trees import Store, leaf

ABSENT = cid_v0(bytes(32))


class Scripted:
    """A way that answers from a dictionary and remembers what it was asked."""

    def __init__(self, name: str, answers: dict[str, bytes | FailureCode]) -> None:
        self.name = name
        self.answers = answers
        self.asked: list[str] = []
        self.closed = False

    def read(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        self.asked += [cid.text for cid in cids]
        answers = [self.answers[cid.text] for cid in cids]
        return [
            Failure(a, f"says {self.name}") if isinstance(a, FailureCode) else a for a in answers
        ]

    def blocks(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        return self.read(cids)

    def close(self) -> None:
        self.closed = True


def ids(count: int) -> list[str]:
    return [cid_v0(bytes((index,)) * 32) for index in range(1, count + 1)]


def test_ways_are_asked_in_order_for_what_is_left() -> None:
    a, b, c = ids(3)
    missing = FailureCode.NOT_IN_REPOSITORY
    first = Scripted("blockstore", {a: b"A", b: missing, c: FailureCode.TOO_LARGE})
    second = Scripted("daemon", {b: b"B"})
    third = Scripted("gateway", {})
    chain = ContentChain([first, second, third])
    done = chain.resolve([a, None, "../../etc/passwd", b, c, a])
    assert done.data == [b"A", None, None, b"B", None, b"A"]
    assert done.via == ["blockstore", "", "", "daemon", "", "blockstore"]
    codes = [failure and failure.code for failure in done.failure]
    assert codes == [None, "no_cid", "no_cid", None, "too_large", None]
    assert first.asked[-1] == c  # once more, as a block: larger contents are proven
    assert second.asked == [b]  # what is final is not asked for again
    assert third.asked == []
    assert (done.healed, done.notes) == (0, {})
    chain.close()
    assert first.closed
    assert second.closed
    assert third.closed


def test_nothing_that_is_no_cid_reaches_a_way() -> None:
    way = Scripted("blockstore", {})
    hostile = ["--help", "../..", "-o/x", "a\nb", "x" * 1_000_000, "", None, f"{ABSENT}\n"]
    done = ContentChain([way]).resolve(hostile)
    assert way.asked == []
    assert done.failure == [NO_CID] * len(hostile)


TELLING = [
    FailureCode.DAMAGED,
    FailureCode.ACCESS_DENIED,
    FailureCode.READ_ERROR,
    FailureCode.TIMED_OUT,
    FailureCode.GATEWAY_FAILED,
    FailureCode.NOT_IN_REPOSITORY,
    FailureCode.DAEMON_REFUSED,
    FailureCode.PROGRAM_FAILED,
    FailureCode.DAEMON_NOT_RUNNING,
    FailureCode.UNSUPPORTED_FORMAT,
    FailureCode.NO_REPOSITORY,
]


@pytest.mark.parametrize(("more", "less"), list(itertools.combinations(TELLING, 2)))
def test_the_most_telling_failure_is_kept(more: FailureCode, less: FailureCode) -> None:
    (a,) = ids(1)
    for order in ((more, less), (less, more)):
        ways = [Scripted(str(code), {a: code}) for code in order]
        (failure,) = ContentChain(ways).resolve([a]).failure
        assert failure is not None
        assert failure.code is more
        assert failure.sentence == f"says {more}"


def test_every_code_that_a_way_can_give_has_its_place() -> None:
    (a,) = ids(1)
    for code in FailureCode:
        ways = [Scripted("one", {a: code}), Scripted("two", {a: FailureCode.NO_REPOSITORY})]
        if code is not FailureCode.NOT_ADOPTED:  # not a way's; a migration says it
            (failure,) = ContentChain(ways).resolve([a]).failure
            assert failure is not None


def test_a_final_failure_replaces_what_was_said_before() -> None:
    (a,) = ids(1)
    ways = [
        Scripted("blockstore", {a: FailureCode.DAMAGED}),
        Scripted("daemon", {a: FailureCode.NOT_A_FILE}),
    ]
    (failure,) = ContentChain(ways).resolve([a]).failure
    assert failure is not None
    assert failure.code is FailureCode.NOT_A_FILE


def test_healed_blocks_are_counted_and_told() -> None:
    a, b = ids(2)
    store = Scripted("blockstore", {a: FailureCode.DAMAGED, b: FailureCode.NOT_IN_REPOSITORY})
    done = ContentChain([store, Scripted("gateway", {a: b"A", b: b"B"})]).resolve([b, a])
    assert done.data == [b"B", b"A"]
    assert done.failure == [None, None]
    assert done.healed == 1
    assert list(done.notes) == [1]
    assert "damaged" in done.notes[1]
    assert "gateway" in done.notes[1]


def test_no_way_at_all() -> None:
    (a,) = ids(1)
    done = ContentChain([]).resolve([a, None])
    assert done.data == [None, None]
    assert all(failure is not None for failure in done.failure)


def test_an_empty_content_is_content(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cid = store.put(leaf(b""))
    with closing(open_chain(str(store.path), ContentOptions())) as chain:
        done = chain.resolve([cid.text])
    assert (done.data, done.failure, done.via) == ([b""], [None], ["blockstore"])


def test_the_defaults_tell_absent_content_plainly(fleet: Path, expected: Any) -> None:
    tokens = expected["node033/Rubix/rubix.db"]
    options = ContentOptions(timeout_s=1, attempts=1)
    with closing(open_chain(str(fleet / "node033" / ".ipfs"), options)) as chain:
        done = chain.resolve([token["token_id"] for token in tokens])
    for token, data, failure in zip(tokens, done.data, done.failure, strict=True):
        if token["ipfs_error"] == "not in this repository":
            assert failure is not None
            assert failure.code is FailureCode.NOT_IN_REPOSITORY
        elif failure is None:
            assert data == bytes.fromhex(token["content"])
        else:
            assert failure.code is FailureCode.TOO_LARGE_TO_STORE


def test_ways_can_be_switched_off(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cid = store.put(leaf(b"token"))
    options = ContentOptions(ways=("daemon",), timeout_s=1, attempts=1)
    with closing(open_chain(str(store.path), options)) as chain:
        assert chain.resolve([cid.text]).data == [None]
    with closing(open_chain(str(store.path), ContentOptions(ways=("blockstore",)))) as chain:
        assert chain.resolve([cid.text]).data == [b"token"]
    shutil.rmtree(store.path)
    with closing(open_chain(str(store.path), ContentOptions())) as chain:
        (failure,) = chain.resolve([cid.text]).failure
    assert failure is not None
    assert failure.code is FailureCode.NO_REPOSITORY


def test_options_cross_process_borders_and_hide_secrets() -> None:
    options = ContentOptions(daemon_authorization=SecretStr("Bearer hunter2"), workers=3)
    assert pickle.loads(pickle.dumps(options)) == options
    assert "hunter2" not in repr(options)
