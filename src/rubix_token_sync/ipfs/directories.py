"""A file in a UnixFS directory: how a DID's public key lies in IPFS.

A DID is the CID of a directory (dag-pb, as `unixfs` describes) whose links have names.  Only
plain directories are read: one whose entries are spread over several blocks (HAMT) is refused.
Every step is proven by a hash: the directory's block by its CID, the file by its link.
"""

from __future__ import annotations

from typing import Final

from rubix_token_sync.ipfs import unixfs
from rubix_token_sync.ipfs.blocks import Fetch, content_of, refused
from rubix_token_sync.ipfs.cid import DAG_PB, Cid
from rubix_token_sync.ipfs.content import Failure, FailureCode

__all__ = ["file_in"]

_NOT_A_DIRECTORY: Final = Failure(FailureCode.MALFORMED, "the id does not name a directory")
_NO_SUCH_FILE: Final = Failure(FailureCode.NOT_IN_REPOSITORY, "the directory has no such file")


def file_in(directory: Cid, name: bytes, fetch: Fetch) -> bytes | Failure:
    """The content of the file ``name`` in ``directory``, from verified blocks.

    At most `CONTENT_LIMIT` bytes; never raises for what the blocks hold.
    """
    if directory.codec != DAG_PB:
        return _NOT_A_DIRECTORY
    block = fetch(directory)
    if isinstance(block, Failure):
        return block
    links = unixfs.named_links(block)
    if isinstance(links, unixfs.Refusal):
        return refused(links)
    child = links.get(name)
    return _NO_SUCH_FILE if child is None else content_of(child, fetch)
