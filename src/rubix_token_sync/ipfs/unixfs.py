"""UnixFS in dag-pb blocks: what a block holds, and the block for a content.

Formats: https://ipld.io/specs/codecs/dag-pb/spec/ and
https://specs.ipfs.tech/unixfs/.  A token is normally one block:

    0a LEN  08 02  12 LEN content  18 LEN          (0a 04 08 02 18 00 when empty)

Larger files are trees: nodes with links, each with the size of what is below
it.  Directories are nodes with named links; large ones are spread over shards
(HAMT), whose links' names begin with a slot in hexadecimal.  Blocks are hostile
until proven otherwise; whatever is not exactly what it should be is refused with
a reason, at a cost bounded by the block's length.
"""

from __future__ import annotations

import hashlib
from typing import Final, Literal, NamedTuple

from rubix_token_sync.ipfs import cid as cids
from rubix_token_sync.ipfs.cid import DAG_PB, RAW, Cid

__all__ = [
    "CHUNK_SIZE",
    "DirectoryNode",
    "FileNode",
    "Link",
    "Refusal",
    "SymlinkNode",
    "decode_file",
    "decode_node",
    "encode_leaf",
    "leaf_content",
    "matches",
    "named_links",
    "refuse_oversize",
]

CHUNK_SIZE: Final = 262_144
"""Bytes of content in one block, as ``ipfs add`` cuts files by default."""

_TYPE_RAW, _TYPE_DIRECTORY, _TYPE_FILE, _TYPE_METADATA, _TYPE_SYMLINK, _TYPE_SHARD = range(6)
_NO_FILE = {
    _TYPE_DIRECTORY: "a directory",
    _TYPE_METADATA: "a metadata node",
    _TYPE_SYMLINK: "a symbolic link",
    _TYPE_SHARD: "a directory",
}
_SMALL_BLOCK = 1024
_FANOUTS = frozenset(8 << power for power in range(8))  # of a shard: 8 to 1,024, as in Kubo


class Link(NamedTuple):
    """A child: its CID and the bytes of content that are said to be below it."""

    cid: Cid
    size: int


class FileNode(NamedTuple):
    """A file or a part of one: content before the links, the links, bytes in all."""

    data: bytes
    links: tuple[Link, ...]
    size: int


class DirectoryNode(NamedTuple):
    """A directory or a shard of one: what its entries name, and the shards below it.

    Names are left out: nothing here needs them, and anybody can have written them.
    """

    entries: tuple[Cid, ...]
    shards: tuple[Cid, ...] = ()
    sharded: bool = False


class SymlinkNode(NamedTuple):
    """A symbolic link in a directory: bytes of its target, which nobody follows."""

    size: int


class Refusal(NamedTuple):
    """Why a block is not accepted."""

    reason: Literal["malformed", "not_a_file", "too_large", "damaged"]
    sentence: str


class _MalformedError(ValueError):
    """Never leaves this module; becomes a `Refusal`."""


def leaf_content(block: bytes) -> bytes | None:
    """The content of a block of the usual shape; None for any other block."""
    size = len(block)
    frame = _frames[size] if size < _SMALL_BLOCK else _frame(size)
    if frame is None:
        return None
    head, tail, start, stop = frame
    if block.startswith(head) and block.endswith(tail):
        return block[start:stop]
    return None


def decode_file(codec: int, block: bytes) -> FileNode | Refusal:
    """What a block of the given codec holds, if it is a file or part of one.

    The block's hash is not looked at.
    """
    if codec == RAW:
        return FileNode(block, (), len(block))
    if codec != DAG_PB:
        return Refusal("not_a_file", f"the id's codec 0x{codec:x} is not one of a file")
    content = leaf_content(block)
    if content is not None:
        return FileNode(content, (), len(content))
    try:
        links, data = _with_data(block)
        fields = _unixfs(data)
        if fields.kind in _NO_FILE:
            return Refusal("not_a_file", f"the id names {_NO_FILE[fields.kind]}")
        return _file(links, fields)
    except _MalformedError as error:
        return Refusal("malformed", str(error))


def decode_node(codec: int, block: bytes) -> FileNode | DirectoryNode | SymlinkNode | Refusal:
    """What a block of the given codec holds as a node of a tree; see `decode_file`."""
    if codec != DAG_PB or leaf_content(block) is not None:
        return decode_file(codec, block)
    try:
        links, data = _with_data(block)
        fields = _unixfs(data)
        if fields.kind == _TYPE_DIRECTORY:
            return DirectoryNode(tuple(_child(raw) for raw, _ in links))
        if fields.kind == _TYPE_SHARD:
            return _shard(links, fields.fanout)
        if fields.kind == _TYPE_SYMLINK:
            return SymlinkNode(len(fields.content))
        if fields.kind == _TYPE_METADATA:
            return Refusal("not_a_file", f"the id names {_NO_FILE[_TYPE_METADATA]}")
        return _file(links, fields)
    except _MalformedError as error:
        return Refusal("malformed", str(error))


def refuse_oversize(codec: int, head: bytes, size: int | None) -> Refusal:
    """Why a block larger than any allowed content is refused, from its first bytes.

    ``head`` is the beginning of the block (a few hundred bytes will do), ``size``
    its length where known.  Such a block is never read whole, so its hash stays
    unproven; a length that contradicts the head is damage.
    """
    if codec == DAG_PB:
        try:
            if head[:1] == b"\x0a":
                length, at = _varint(head, 1, len(head))
                if size is not None and at + length != size:
                    return Refusal("damaged", "the block's length is not what it says itself")
                kind = head[at + 1] if head[at : at + 1] == b"\x08" and len(head) > at + 1 else -1
                if kind in _NO_FILE:
                    return Refusal("not_a_file", f"the id names {_NO_FILE[kind]}")
            elif head[:1] == b"\x12":
                length, at = _varint(head, 1, len(head))
                if _link(head[at : at + length])[1]:
                    return Refusal("not_a_file", "the id names a directory")
        except _MalformedError:
            return Refusal("damaged", "the block's beginning makes no sense")
    elif codec != RAW:
        return Refusal("not_a_file", f"the id's codec 0x{codec:x} is not one of a file")
    return Refusal("too_large", "the block alone is larger than the limit")


def encode_leaf(content: bytes) -> bytes:
    """The one block that ``ipfs add`` makes of a content of up to `CHUNK_SIZE` bytes."""
    return _encode_leaf(_TYPE_FILE, content)


def matches(cid: Cid, content: bytes) -> bool | None:
    """Whether ``content`` is what ``cid`` names, found out from the content alone.

    True: proven.  False: neither a raw block nor any one-block file that
    ``ipfs add`` makes of this content has this id (a file that was added with
    chunks smaller than itself can be told apart only by its blocks).  None: more
    than one chunk, or a hash function or codec that cannot be checked.
    """
    if cid.codec == RAW:
        return cids.hash_matches(cid.multihash, content)
    if cid.codec != DAG_PB or len(content) > CHUNK_SIZE:
        return None
    leaf = encode_leaf(content)
    answer = cids.hash_matches(cid.multihash, leaf)
    if answer is False:
        # ``ipfs add --trickle`` hangs even a single leaf below a root.
        return cids.hash_matches(cid.multihash, _encode_trickle(content))
    return answer


def named_links(block: bytes) -> dict[bytes, Cid] | Refusal:
    """Names and CIDs of the entries of a plain directory in one dag-pb block.

    The block's hash is not looked at.  A name that is there twice is refused.
    """
    try:
        links, data = _dag_pb(block)
        if data != bytes((0x08, _TYPE_DIRECTORY)):
            raise _MalformedError("the block does not hold a plain directory")
        entries: dict[bytes, Cid] = {}
        for raw, name in links:
            child = cids.from_bytes(raw)
            if child is None:
                raise _MalformedError("a link is not a CID")
            if name in entries:
                raise _MalformedError("a name is there twice")
            entries[name] = child
    except _MalformedError as error:
        return Refusal("malformed", str(error))
    return entries


def _encode_leaf(kind: int, content: bytes) -> bytes:
    length = _encode_varint(len(content))
    data = b"\x12" + length + content if content else b""
    return _field(0x0A, bytes((0x08, kind)) + data + b"\x18" + length)


def _encode_trickle(content: bytes) -> bytes:
    """The node that ``ipfs add --trickle`` puts above a single leaf, of type Raw."""
    leaf = _encode_leaf(_TYPE_RAW, content)
    name = cids.sha256_multihash(hashlib.sha256(leaf).digest())
    link = _field(0x0A, name) + b"\x12\x00\x18" + _encode_varint(len(leaf))
    length = _encode_varint(len(content))
    return _field(0x12, link) + _field(0x0A, b"\x08\x02\x18" + length + b"\x20" + length)


def _field(tag: int, value: bytes) -> bytes:
    return bytes((tag,)) + _encode_varint(len(value)) + value


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_Frame = tuple[bytes, bytes, int, int]


def _frame(size: int) -> _Frame | None:
    """First and last bytes of the usual block of ``size`` bytes, and where its content is."""
    if size == 6:
        return b"\x0a\x04\x08\x02\x18\x00", b"", 6, 6
    for overhead in range(8, 18):  # grows with the lengths of the varints
        length = size - overhead
        if length < 1:
            return None
        number = _encode_varint(length)
        inner = length + 2 * len(number) + 4
        head = b"\x0a" + _encode_varint(inner) + b"\x08\x02\x12" + number
        tail = b"\x18" + number
        if len(head) + length + len(tail) == size:
            return head, tail, len(head), size - len(tail)
    return None


_frames: Final = tuple(_frame(size) for size in range(_SMALL_BLOCK))


def _dag_pb(block: bytes) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    """Links (binary CID, name) and data of a dag-pb node."""
    links: list[tuple[bytes, bytes]] = []
    data: bytes | None = None
    at, end = 0, len(block)
    links_closed = False
    while at < end:
        tag = block[at]
        length, at = _varint(block, at + 1, end)
        if length > end - at:
            raise _MalformedError("a length points beyond the block")
        value = block[at : at + length]
        at += length
        if tag == 0x12 and not links_closed:
            links.append(_link(value))
        elif tag == 0x0A and data is None:
            data = value
            links_closed = bool(links)
        else:
            raise _MalformedError("the block has a field that dag-pb does not know")
    return links, data


def _link(value: bytes) -> tuple[bytes, bytes]:
    """Binary CID and name of a dag-pb link."""
    hash_: bytes | None = None
    name = b""
    at, end = 0, len(value)
    while at < end:
        tag = value[at]
        number, at = _varint(value, at + 1, end)
        if tag == 0x18:  # the size of the blocks below; nothing depends on it
            continue
        if number > end - at:
            raise _MalformedError("a length points beyond the block")
        if tag == 0x0A and hash_ is None:
            hash_ = value[at : at + number]
        elif tag == 0x12:
            name = value[at : at + number]
        else:
            raise _MalformedError("a link has a field that dag-pb does not know")
        at += number
    if hash_ is None:
        raise _MalformedError("a link names nothing")
    return hash_, name


_Links = list[tuple[bytes, bytes]]
"""Binary CID and name of each."""


class _Fields(NamedTuple):
    """The fields of a UnixFS message that are read."""

    kind: int
    content: bytes
    size: int | None
    sizes: list[int]
    fanout: int | None


def _with_data(block: bytes) -> tuple[_Links, bytes]:
    links, data = _dag_pb(block)
    if data is None:
        raise _MalformedError("the block holds no UnixFS data")
    return links, data


def _unixfs(data: bytes) -> _Fields:
    kind: int | None = None
    size: int | None = None
    content: bytes | None = None
    fanout: int | None = None
    sizes: list[int] = []
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at, end)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            number, at = _varint(data, at, end)
            if field == 1 and kind is None:
                kind = number
            elif field == 3 and size is None:
                size = number
            elif field == 4:
                sizes.append(number)
            elif field == 6 and fanout is None:
                fanout = number
            elif field in (1, 2, 3):
                raise _MalformedError("a UnixFS field is there twice or of a wrong type")
            continue
        if wire == 5:
            length = 4
        elif wire == 1:
            length = 8
        elif wire == 2:
            length, at = _varint(data, at, end)
        else:
            raise _MalformedError("a UnixFS field has an unknown type")
        if length > end - at:
            raise _MalformedError("a length points beyond the block")
        value = data[at : at + length]
        at += length
        if field == 2 and wire == 2 and content is None:
            content = value
        elif field == 4 and wire == 2:  # the same numbers, packed
            inner = 0
            while inner < length:
                number, inner = _varint(value, inner, length)
                sizes.append(number)
        elif field <= 4:
            raise _MalformedError("a UnixFS field is there twice or of a wrong type")
    if kind is None:
        raise _MalformedError("the block's UnixFS data has no type")
    if kind not in _NO_FILE and kind not in (_TYPE_RAW, _TYPE_FILE):
        raise _MalformedError("the block's UnixFS type is unknown")
    return _Fields(kind, content or b"", size, sizes, fanout)


def _file(links: _Links, fields: _Fields) -> FileNode:
    if len(fields.sizes) != len(links):
        raise _MalformedError("the block has not one size for each link")
    total = len(fields.content) + sum(fields.sizes)
    if fields.size is not None and fields.size != total:
        raise _MalformedError("the sizes in the block do not add up")
    parsed = [Link(_child(raw), below) for (raw, _), below in zip(links, fields.sizes, strict=True)]
    return FileNode(fields.content, tuple(parsed), total)


def _shard(links: _Links, fanout: int | None) -> DirectoryNode:
    if fanout not in _FANOUTS:
        raise _MalformedError("a directory's shard has an impossible number of slots")
    width = len(f"{fanout - 1:X}")
    entries: list[Cid] = []
    shards: list[Cid] = []
    for raw, name in links:
        if len(name) < width:
            raise _MalformedError("a link of a directory's shard names no slot")
        (shards if len(name) == width else entries).append(_child(raw))
    return DirectoryNode(tuple(entries), tuple(shards), sharded=True)


def _child(raw: bytes) -> Cid:
    child = cids.from_bytes(raw)
    if child is None:
        raise _MalformedError("a link is not a CID")
    return child


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A protobuf varint (at most 64 bits) and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, at
        shift += 7
    raise _MalformedError("a number in the block has no end or is too large")
