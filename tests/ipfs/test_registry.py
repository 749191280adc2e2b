"""A way of getting content is one file and one entry in the registry."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

import pytest

from rubix_token_sync.ipfs.cid import Cid
from rubix_token_sync.ipfs.content import ContentReader, Failure
from rubix_token_sync.ipfs.fetch import ContentOptions, open_chain
from rubix_token_sync.ipfs.readers import REGISTRY, WAYS, opener
from rubix_token_sync.ipfs.repository import Repository

CID = "QmNLoNtdmWt9dYeZ6JAbw3tobVGSJcvnuPR1PGaGwu26Xw"


class _Fixed:
    name = "extra"

    def read(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        return [b"content"] * len(cids)

    def close(self) -> None:
        pass


def _open(
    path: str | None, repository: Repository | Failure, options: ContentOptions
) -> ContentReader:
    return _Fixed()


def test_a_further_way(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("a_further_way")
    module.open_reader = _open  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(REGISTRY, "extra", module.__name__)
    chain = open_chain(None, ContentOptions(ways=(*WAYS, "extra")))
    resolved = chain.resolve([CID])
    chain.close()
    assert (resolved.data, resolved.via) == ([b"content"], ["extra"])


@pytest.mark.parametrize("way", WAYS)
def test_every_way_opens_by_the_same_call(way: str) -> None:
    options = ContentOptions(ways=(way,), network=True, gateways=("http://127.0.0.1:1",))
    reader = opener(way)(None, Failure("no_repository", "none"), options)  # type: ignore[arg-type]
    if reader is not None:
        assert reader.name == way
        reader.close()
