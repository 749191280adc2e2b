"""What the real nodes' archive says of contents and keys, read without unpacking it to a disk."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile

from rubix_token_sync.ipfs.cid import Cid
from rubix_token_sync.ipfs.content import Failure, FailureCode
from tests.conftest import ARCHIVE
from tests.ipfs.trees import key_of

_BLOCK = re.compile(r"fixture/[^/]+/\.ipfs/blocks/[^/]+/([A-Z0-9]+)\.data")
_KEY = re.compile(r"fixture/[^/]+/Rubix/TestNetDID/([^/]+)/pubKey\.pem")


class RealNodes:
    """Contents by token, blocks by the hash in their name, keys by DID."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.key_files: dict[str, bytes] = {}
        """The files beside the nodes' databases: nothing proves them."""
        self._blocks: dict[str, bytes] = {}
        with tarfile.open(ARCHIVE.with_name("real_nodes.tar.gz")) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is None:
                    continue
                if match := _BLOCK.fullmatch(member.name):
                    self._blocks[match[1]] = file.read()
                elif match := _KEY.fullmatch(member.name):
                    self.key_files[match[1]] = file.read()
                elif member.name == "fixture/truth.json":
                    truth = json.load(file)["content"]
        for token, said in truth.items():
            if "text" in said:
                self.contents[token] = said["text"].encode()

    def block(self, cid: Cid) -> bytes | Failure:
        """One block of a repository whose blocks lie in files, proven by its hash."""
        block = self._blocks.get(key_of(cid.multihash))
        if block is None:
            return Failure(FailureCode.NOT_IN_REPOSITORY, "not here")
        function = {0x12: hashlib.sha256, 0x16: hashlib.sha3_256}[cid.multihash[0]]
        assert function(block).digest() == cid.multihash[2:]
        return block
