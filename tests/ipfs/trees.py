"""Blocks and repositories made by hand, independent of the package's own encoder."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rubix_token_sync.ipfs.cid import DAG_PB, Cid, cid_v0

DEFAULT_SHARDING = "/repo/flatfs/shard/v1/next-to-last/2"


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return out + bytes((value,))


def field(number: int, value: bytes | int) -> bytes:
    """A protobuf field: varint or length-delimited by the value's type."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def unixfs(
    kind: int, data: bytes | None = None, size: int | None = None, sizes: Iterable[int] = ()
) -> bytes:
    out = field(1, kind)
    if data is not None:
        out += field(2, data)
    if size is not None:
        out += field(3, size)
    return out + b"".join(field(4, below) for below in sizes)


def node(data: bytes | None, links: Sequence[tuple[bytes, str, int]] = ()) -> bytes:
    """A dag-pb block; links are (binary CID, name, size of the blocks below)."""
    out = b"".join(
        field(2, field(1, cid) + field(2, name.encode()) + field(3, below))
        for cid, name, below in links
    )
    return out + (b"" if data is None else field(1, data))


def leaf(content: bytes) -> bytes:
    return node(unixfs(2, content or None, len(content)))


def multihash(block: bytes) -> bytes:
    return b"\x12\x20" + hashlib.sha256(block).digest()


def cid_of(block: bytes) -> Cid:
    name = multihash(block)
    return Cid(cid_v0(name[2:]), 0, DAG_PB, name)


def tree(content: bytes, chunk: int, width: int = 174) -> list[bytes]:
    """All blocks of a balanced tree, the root last."""
    parts = [content[at : at + chunk] for at in range(0, len(content), chunk)] or [b""]
    level = [(leaf(part), len(part)) for part in parts]
    blocks = [block for block, _ in level]
    while len(level) > 1:
        above = []
        for at in range(0, len(level), width):
            children = level[at : at + width]
            sizes = [size for _, size in children]
            links = [(multihash(block), "", len(block)) for block, _ in children]
            above.append((node(unixfs(2, None, sum(sizes), sizes), links), sum(sizes)))
        blocks += [block for block, _ in above]
        level = above
    return blocks


def key_of(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=")


class Store:
    """A flatfs repository on disk, made with nothing of the package's code."""

    def __init__(
        self,
        path: Path,
        sharding: str = DEFAULT_SHARDING,
        version: str | None = "14",
        shard: Callable[[str], str] = lambda key: ("___" + key)[-3:-1],
    ) -> None:
        self.path = path / ".ipfs"
        self.shard = shard
        self.blocks = self.path / "blocks"
        self.blocks.mkdir(parents=True)
        (self.blocks / "SHARDING").write_text(sharding + "\n")
        if version is not None:
            (self.path / "version").write_text(version + "\n")
        mounts = [{"mountpoint": "/blocks", "path": "blocks", "type": "flatfs"}]
        (self.path / "datastore_spec").write_text(json.dumps({"mounts": mounts, "type": "mount"}))

    def file(self, raw: bytes) -> Path:
        """Where the block with this multihash (or, in old repositories, CID) belongs."""
        key = key_of(raw)
        return self.blocks / self.shard(key) / f"{key}.data"

    def put(self, block: bytes, raw: bytes | None = None) -> Cid:
        path = self.file(raw or multihash(block))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(block)
        return cid_of(block)

    def put_tree(self, content: bytes, chunk: int) -> Cid:
        *_, root = [self.put(block) for block in tree(content, chunk)]
        return root
