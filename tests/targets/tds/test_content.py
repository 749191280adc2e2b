"""What the target says of contents over the wire: the attributes of kinds that name trees, too."""

from __future__ import annotations

from rubix_token_sync.targets.base import Chunk, KnownContent, Lease
from rubix_token_sync.targets.sql.target import SqlTarget
from tests.targets.records_made import SESSION, SOURCE, batch, record

_SAID = '{"trees":{"raw_code_hash":{"size":12}}}'


def test_only_kinds_that_name_trees_give_their_attributes(store: SqlTarget) -> None:
    lease = Lease(SOURCE, SESSION)
    store.start_session(SESSION, SOURCE, "host", 1, "sync")
    store.acquire_lease(lease, "elsewhere|-|1|1")
    store.prepare_load()
    made = [
        record(number, token_kind=kind, attributes=_SAID, ipfs_data="text")
        for number, kind in enumerate(("contract", "rbt"), 1)
    ]
    store.publish(lease, Chunk(batch(*made)))
    known = [KnownContent("text", True, None, said) for said in (_SAID, None)]
    keys = [row["record_key"] for row in made]
    assert store.known_content(keys) == dict(zip(keys, known, strict=True))
    tokens = [row["token_id"] for row in made]
    assert store.content_of_tokens(tokens) == dict(zip(tokens, known, strict=True))
