"""Content identifiers (stub replaced by the content work)."""

from __future__ import annotations

from typing import NamedTuple


class Cid(NamedTuple):
    """A parsed CID: ``text`` as canonical as it was given, codec, multihash bytes."""

    text: str
    version: int
    codec: int
    multihash: bytes
