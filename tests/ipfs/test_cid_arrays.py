"""Digests of many ids at a time: the same ids, and the same digests, as one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from rubix_token_sync.ipfs.cid import cid_v0, parse
from rubix_token_sync.ipfs.cid_arrays import V0_CHARACTERS, v0_digests

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
of_base58 = st.text(alphabet=ALPHABET, min_size=V0_CHARACTERS, max_size=V0_CHARACTERS)
like_ids = st.one_of(
    st.binary(min_size=32, max_size=32).map(cid_v0),
    of_base58,
    of_base58.map(lambda text: "Qm" + text[2:]),
    st.text(st.characters(max_codepoint=127), min_size=V0_CHARACTERS, max_size=V0_CHARACTERS),
)


@given(st.lists(like_ids, max_size=20))
@example([])
@example([cid_v0(bytes(32)), cid_v0(b"\xff" * 32)])
@example(["1" * 46, "z" * 46, "Qm" + "1" * 44, "Qm" + "z" * 44, "Ql" + "z" * 44, "Qn" + "1" * 44])
def test_the_same_as_one_by_one(texts: list[str]) -> None:
    data = np.frombuffer("".join(texts).encode(), np.uint8)
    digests, known = v0_digests(data, np.arange(len(texts), dtype=np.int64) * V0_CHARACTERS)
    assert digests.shape == (len(texts), 32)
    for text, digest, is_one in zip(texts, digests, known, strict=True):
        cid = parse(text)
        assert bool(is_one) is (cid is not None and cid.version == 0)
        if cid is not None:
            assert digest.tobytes() == cid.multihash[2:]


def test_ids_anywhere_in_the_bytes() -> None:
    text = f"..{cid_v0(b'1' * 32)}....{cid_v0(b'2' * 32)}"
    digests, known = v0_digests(np.frombuffer(text.encode(), np.uint8), np.array([52, 2]))
    assert known.tolist() == [True, True]
    assert [digest.tobytes() for digest in digests] == [b"2" * 32, b"1" * 32]
