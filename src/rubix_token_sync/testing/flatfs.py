"""Kubo repositories with flatfs block stores, written without any IPFS program.

Blocks, names, shards and modes are those of real Kubo (`ipfs add`; flatfs of
go-ds-flatfs): tests prove it against repositories that Kubo wrote.  What a
daemon keeps besides blocks (pins, peers, its private key) is not made; a Kubo
daemon that is to run on such a repository needs an identity of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from libipld import encode_multibase

from rubix_token_sync.ipfs.unixfs import CHUNK_SIZE, encode_leaf

__all__ = [
    "Block",
    "Files",
    "FlatfsWriter",
    "block_path",
    "encode_directory",
    "encode_file",
    "write_block",
]

_LINKS_PER_NODE = 174  # the balanced layout of `ipfs add`: links per inner node
_SHA2_256 = b"\x12\x20"
_EMPTY_DIRECTORY = b"\x0a\x02\x08\x01"  # every repository holds it
_SHARD_PREFIX = "/repo/flatfs/shard/v1/"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


Files = Mapping[str, "bytes | Files"]
"""A directory: names, each with a file's content or another directory."""


class Block(NamedTuple):
    """One block: its binary CID (a CIDv0 is the bare multihash), and its bytes."""

    cid: bytes
    data: bytes

    @property
    def multihash(self) -> bytes:
        return self.cid[2:] if self.cid[0] == 1 else self.cid


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _block(data: bytes, prefix: bytes = b"") -> Block:
    return Block(prefix + _SHA2_256 + sha256(data).digest(), data)


class _Part(NamedTuple):
    """A finished subtree: its root's CID bytes, file bytes, and cumulative block bytes."""

    cid: bytes
    content_size: int
    total_size: int


def _inner(parts: list[_Part], prefix: bytes) -> tuple[Block, _Part]:
    links = b"".join(
        b"\x12" + _varint(len(link)) + link
        for part in parts
        for link in [
            b"\x0a" + _varint(len(part.cid)) + part.cid + b"\x12\x00\x18" + _varint(part.total_size)
        ]
    )
    size = sum(part.content_size for part in parts)
    unixfs = b"\x08\x02\x18" + _varint(size)
    unixfs += b"".join(b"\x20" + _varint(part.content_size) for part in parts)
    data = links + b"\x0a" + _varint(len(unixfs)) + unixfs
    block = _block(data, prefix)
    return block, _Part(block.cid, size, len(data) + sum(part.total_size for part in parts))


def encode_file(
    content: bytes, *, version: int = 0, raw_leaves: bool | None = None, chunk: int = CHUNK_SIZE
) -> tuple[str, list[Block]]:
    """The CID and the blocks, root last, that ``ipfs add`` makes of ``content``.

    ``version`` is the CID's; ``raw_leaves`` defaults to what Kubo does
    (``--cid-version=1`` implies raw leaves).  A file of one raw leaf IS that leaf.
    """
    raw = version == 1 if raw_leaves is None else raw_leaves
    root, blocks = _file(content, version, raw, chunk)
    return _text(root.cid), blocks


def encode_directory(files: Files) -> tuple[str, list[Block]]:
    """The CIDv0 and the blocks, root last, that ``ipfs add -r`` makes of a directory.

    Raises:
        ValueError: a name that no file can have.
    """
    root, blocks = _directory(files)
    return _text(root.cid), blocks


def directory_block(entries: Iterable[tuple[str, bytes, int]]) -> bytes:
    """The block of a directory: name, binary CID and bytes of all blocks below, of each entry."""
    links = b""
    for name, cid, size in sorted(entries, key=lambda entry: entry[0].encode()):
        if not name or "/" in name or "\0" in name:
            raise ValueError(f"no file can be named {name!r}")
        named = b"\x12" + _varint(len(name.encode())) + name.encode()
        link = b"\x0a" + _varint(len(cid)) + cid + named + b"\x18" + _varint(size)
        links += b"\x12" + _varint(len(link)) + link
    return links + b"\x0a\x02\x08\x01"


def _directory(files: Files) -> tuple[_Part, list[Block]]:
    blocks: list[Block] = []
    parts: list[tuple[str, _Part]] = []
    for name, entry in files.items():
        if isinstance(entry, bytes):
            part, below = _file(entry, 0, raw=False, chunk=CHUNK_SIZE)
        else:
            part, below = _directory(entry)
        blocks += below
        parts.append((name, part))
    data = directory_block((name, part.cid, part.total_size) for name, part in parts)
    block = _block(data)
    total = len(data) + sum(part.total_size for _, part in parts)
    return _Part(block.cid, 0, total), [*blocks, block]


def _text(cid: bytes) -> str:
    """A binary CID as Kubo prints it."""
    if cid[:1] == b"\x01":
        return encode_multibase("b", cid)
    return encode_multibase("z", cid)[1:]


def _file(content: bytes, version: int, raw: bool, chunk: int) -> tuple[_Part, list[Block]]:
    dag_pb = b"\x01\x70" if version else b""
    blocks: list[Block] = []
    parts: list[_Part] = []
    for at in range(0, len(content) or 1, chunk):
        piece = content[at : at + chunk]
        block = _block(piece, b"\x01\x55") if raw else _block(encode_leaf(piece), dag_pb)
        blocks.append(block)
        parts.append(_Part(block.cid, len(piece), len(block.data)))
    while len(parts) > 1:
        nodes = [
            _inner(parts[at : at + _LINKS_PER_NODE], dag_pb)
            for at in range(0, len(parts), _LINKS_PER_NODE)
        ]
        blocks += [block for block, _ in nodes]
        parts = [part for _, part in nodes]
    return parts[0], blocks


def encode_token(content: bytes) -> tuple[str, Block]:
    """CIDv0 and block of a file of one chunk (most tokens): `encode_file`, but fast."""
    block = _block(encode_leaf(content))
    return encode_multibase("z", block.cid)[1:], block


def block_path(block: Block, *, shard: str = "next-to-last/2") -> str:
    """Path of a block below ``blocks/``: ``SHARD/KEY.data``."""
    key = encode_multibase("B", block.multihash)[1:]
    return f"{_shard(key, *_parse_shard(shard))}/{key}.data"


def _parse_shard(shard: str) -> tuple[str, int]:
    kind, _, length = shard.partition("/")
    if kind not in ("next-to-last", "prefix", "suffix") or not length.isdigit() or length == "0":
        raise ValueError(f"unknown shard function {shard!r}")
    return kind, int(length)


def _shard(key: str, kind: str, length: int) -> str:
    """Shard of a key; short keys are padded with ``_`` as flatfs does."""
    if kind == "prefix":
        return key.ljust(length, "_")[:length]
    if kind == "suffix":
        return key.rjust(length, "_")[-length:]
    return key.rjust(length + 1, "_")[-length - 1 : -1]


class FlatfsWriter:
    """Makes a Kubo repository at ``path`` (or opens one it made) and adds blocks to it.

    Args:
        path: the repository itself, normally ``NODE/.ipfs``.
        shard: shard function of a new repository: ``next-to-last/N``, ``prefix/N``, ``suffix/N``.
        version: of a new repository; below 12, CIDv1 blocks are keyed by the whole CID.

    Files get Kubo's modes (blocks, ``config`` and ``datastore_spec`` 0600).
    """

    def __init__(
        self, path: str | Path, *, shard: str = "next-to-last/2", version: int = 14
    ) -> None:
        self.path = Path(path)
        self._blocks = str(self.path / "blocks")
        self._made: set[str] = set()
        there = (self.path / "version").exists()
        if there:
            version = int((self.path / "version").read_text(encoding="ascii"))
            function = (self.path / "blocks" / "SHARDING").read_text(encoding="ascii").strip()
            shard = function.removeprefix(_SHARD_PREFIX)
        self.version, self.shard = version, shard
        self._kind, self._length = _parse_shard(shard)
        if not there:
            self._initialise()

    def _initialise(self) -> None:
        for name in ("blocks/.temp", "datastore"):
            (self.path / name).mkdir(parents=True)
        function = _SHARD_PREFIX + self.shard
        flatfs = {"path": "blocks", "shardFunc": function, "type": "flatfs"}
        levelds = {"path": "datastore", "type": "levelds"}
        spec = {
            "mounts": [{"mountpoint": "/blocks", **flatfs}, {"mountpoint": "/", **levelds}],
            "type": "mount",
        }
        peer = b"\x12\x20" + sha256(os.fsencode(self.path.resolve().parent.name)).digest()
        config = {
            "Identity": {"PeerID": encode_multibase("z", peer)[1:]},
            "Datastore": {
                "StorageMax": "10GB",
                "StorageGCWatermark": 90,
                "GCPeriod": "1h",
                "Spec": {
                    "mounts": [
                        _measured("/blocks", "flatfs.datastore", {**flatfs, "sync": False}),
                        _measured("/", "leveldb.datastore", {**levelds, "compression": "none"}),
                    ],
                    "type": "mount",
                },
                "HashOnRead": False,
                "BloomFilterSize": 0,
            },
            "Addresses": {
                "Swarm": [],
                "API": "/ip4/127.0.0.1/tcp/5001",
                "Gateway": "/ip4/127.0.0.1/tcp/8080",
            },
            "Discovery": {"MDNS": {"Enabled": False}},
            "Routing": {"Type": "none"},
            "Bootstrap": [],
        }
        compact = json.dumps(spec, separators=(",", ":"), sort_keys=True)
        self._create("blocks/SHARDING", f"{function}\n".encode(), 0o644)
        self._create("datastore_spec", compact.encode(), 0o600)
        self._create("config", json.dumps(config, indent=2).encode(), 0o600)
        self._create("version", b"%d\n" % self.version, 0o644)
        self.put([_block(_EMPTY_DIRECTORY)])

    def _create(self, name: str, data: bytes, mode: int) -> None:
        fd = os.open(self.path / name, _CREATE, mode)
        with open(fd, "wb") as file:
            file.write(data)

    def add(self, content: bytes, *, version: int = 0, raw_leaves: bool | None = None) -> str:
        """Store ``content`` as `ipfs add` does; gives its CID.  Content may be there already."""
        cid, blocks = encode_file(content, version=version, raw_leaves=raw_leaves)
        self.put(blocks)
        return cid

    def add_directory(self, files: Files) -> str:
        """Store a directory as ``ipfs add -r`` does; gives its CID."""
        cid, blocks = encode_directory(files)
        self.put(blocks)
        return cid

    def put(self, blocks: Iterable[Block]) -> int:
        """Write blocks; gives the number of files that were not there before.

        Fast for many blocks at once: they are written shard by shard.
        """
        kind, length, whole_cid = self._kind, self._length, self.version < 12
        shards: dict[str, list[tuple[str, bytes]]] = {}
        for cid, data in blocks:
            named = cid if whole_cid or cid[0] != 1 else cid[2:]
            key = encode_multibase("B", named)[1:]
            shards.setdefault(_shard(key, kind, length), []).append((key, data))
        return sum(self._write_shard(shard, shards[shard]) for shard in sorted(shards))

    def _write_shard(self, shard: str, keyed: list[tuple[str, bytes]]) -> int:
        directory = f"{self._blocks}/{shard}"
        if shard not in self._made:
            os.makedirs(directory, exist_ok=True)
            self._made.add(shard)
        opened, write, close, written = os.open, os.write, os.close, 0
        shard_fd = opened(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for key, data in keyed:
                try:
                    fd = opened(f"{key}.data", _CREATE, 0o600, dir_fd=shard_fd)
                except FileExistsError:
                    continue  # blocks are immutable: what is there is the same
                try:
                    rest = memoryview(data)
                    while rest:
                        rest = rest[write(fd, rest) :]
                finally:
                    close(fd)
                written += 1
        finally:
            close(shard_fd)
        return written


def _measured(mountpoint: str, prefix: str, child: dict[str, object]) -> dict[str, object]:
    return {"child": child, "mountpoint": mountpoint, "prefix": prefix, "type": "measure"}


def write_block(repository: str | Path, content: bytes, *, version: int = 0) -> str:
    """Store ``content`` in the repository at that path (made where absent); gives its CID."""
    return FlatfsWriter(repository).add(content, version=version)
