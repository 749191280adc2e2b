"""A named file in a directory: found by hashes alone, refused when anything is odd."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.ipfs.cid import Cid, cid_v1, parse
from rubix_token_sync.ipfs.content import Failure, FailureCode
from rubix_token_sync.ipfs.directories import file_in
from rubix_token_sync.ipfs.unixfs import Refusal, named_links
from tests.ipfs.trees import cid_of, leaf, multihash, node, tree, unixfs

KEY = leaf(b"the key")
BIG = tree(b"0123456789" * 30, 100)
LINKS = [
    (multihash(KEY), "pubKey.pem", len(KEY)),
    (multihash(BIG[-1]), "did.png", 300),
    (multihash(b"absent"), "absent", 6),
]
DIRECTORY = node(unixfs(1), LINKS)
BLOCKS = {multihash(block): block for block in [KEY, DIRECTORY, *BIG]}


def fetch(cid: Cid) -> bytes | Failure:
    return BLOCKS.get(cid.multihash, Failure(FailureCode.NOT_IN_REPOSITORY, "not here"))


def test_files_of_one_and_of_several_blocks() -> None:
    assert file_in(cid_of(DIRECTORY), b"pubKey.pem", fetch) == b"the key"
    assert file_in(cid_of(DIRECTORY), b"did.png", fetch) == b"0123456789" * 30


@pytest.mark.parametrize(
    ("block", "name", "code"),
    [
        (DIRECTORY, b"other", FailureCode.NOT_IN_REPOSITORY),
        (DIRECTORY, b"absent", FailureCode.NOT_IN_REPOSITORY),
        (KEY, b"pubKey.pem", FailureCode.MALFORMED),
        (node(unixfs(5), LINKS), b"pubKey.pem", FailureCode.MALFORMED),
        (node(None, LINKS), b"pubKey.pem", FailureCode.MALFORMED),
        (node(unixfs(1), [LINKS[0], LINKS[0]]), b"pubKey.pem", FailureCode.MALFORMED),
        (node(unixfs(1), [(b"no CID", "pubKey.pem", 6)]), b"pubKey.pem", FailureCode.MALFORMED),
        (b"", b"pubKey.pem", FailureCode.MALFORMED),
        (b"\x12\xff", b"pubKey.pem", FailureCode.MALFORMED),
    ],
)
def test_what_is_refused(block: bytes, name: bytes, code: FailureCode) -> None:
    blocks = BLOCKS | {multihash(block): block}
    absent = Failure(FailureCode.NOT_IN_REPOSITORY, "not here")
    answer = file_in(cid_of(block), name, lambda cid: blocks.get(cid.multihash, absent))
    assert isinstance(answer, Failure)
    assert answer.code is code


def test_an_id_that_is_not_a_directorys() -> None:
    cid = parse(cid_v1(0x55, multihash(DIRECTORY)))
    assert cid is not None
    answer = file_in(cid, b"pubKey.pem", fetch)
    assert isinstance(answer, Failure)
    assert answer.code is FailureCode.MALFORMED
    missing = file_in(cid_of(b"elsewhere"), b"pubKey.pem", fetch)
    assert isinstance(missing, Failure)
    assert missing.code is FailureCode.NOT_IN_REPOSITORY


@given(
    st.one_of(st.binary(max_size=200), st.binary(max_size=30).map(lambda more: DIRECTORY + more))
)
def test_any_block_can_be_looked_at(block: bytes) -> None:
    links = named_links(block)
    if isinstance(links, Refusal):
        assert links.reason == "malformed"
    else:
        assert all(isinstance(child, Cid) for child in links.values())
