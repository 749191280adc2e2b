"""Kinds of token, as people read of them."""

from __future__ import annotations

import pytest

from rubix_token_sync.records.kinds import tokens_by_kind


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"rbt": 1357, "ft": 1, "nft": 3, "data": 2, "contract": 3},
         "1,357 RBT, 1 FT, 3 NFTs, 2 data tokens, 3 contracts"),
        ({"contract": 1, "data": 1, "nft": 1, "rbt": 0}, "1 NFT, 1 data token, 1 contract"),
        ({}, "0 tokens"),
    ],
)  # fmt: skip
def test_amounts_are_said_in_words(counts: dict[str, int], said: str) -> None:
    assert tokens_by_kind(counts) == said
