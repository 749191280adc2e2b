"""Blocks: files are understood, everything else is refused with its reason."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.ipfs.cid import DAG_PB, RAW, cid_v1, parse
from rubix_token_sync.ipfs.unixfs import (
    CHUNK_SIZE,
    DirectoryNode,
    FileNode,
    Refusal,
    SymlinkNode,
    decode_file,
    decode_node,
    encode_leaf,
    leaf_content,
    matches,
    refuse_oversize,
)
from tests.ipfs.trees import cid_of, field, leaf, multihash, node, tree, unixfs, varint

LINK = (multihash(b"x"), "", 1)


def refusal(block: bytes) -> Refusal:
    answer = decode_file(DAG_PB, block)
    assert isinstance(answer, Refusal)
    return answer


@pytest.mark.parametrize(
    "size",
    [
        0,
        1,
        67,
        114,
        119,
        120,
        121,
        122,
        123,
        127,
        128,
        1000,
        1023,
        1024,
        16370,
        16371,
        16372,
        16375,
        16376,
        16377,
        16383,
        16384,
        51200,
        51201,
        CHUNK_SIZE,
    ],
)
def test_a_leaf_of_every_shape_of_lengths(size: int) -> None:
    content = random.Random(size).randbytes(size)
    block = encode_leaf(content)
    assert block == leaf(content)
    assert leaf_content(block) == content
    assert decode_file(DAG_PB, block) == FileNode(content, (), size)


@given(st.binary(max_size=2000))
def test_leaves_survive(content: bytes) -> None:
    assert encode_leaf(content) == leaf(content)
    assert leaf_content(encode_leaf(content)) == content
    assert matches(cid_of(leaf(content)), content) is True
    assert matches(cid_of(leaf(content)), content + b"x") is False


@given(st.binary(max_size=300))
def test_any_bytes_are_a_file_or_refused(block: bytes) -> None:
    answer = decode_file(DAG_PB, block)
    assert isinstance(answer, FileNode | Refusal)
    usual = leaf_content(block)
    if usual is not None:
        assert leaf(usual) == block


@given(st.binary(min_size=1, max_size=200), st.data())
def test_damage_anywhere_in_a_leaf_never_raises(content: bytes, data: st.DataObject) -> None:
    block = bytearray(leaf(content))
    at = data.draw(st.integers(0, len(block) - 1))
    block[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(block)))
    assert isinstance(decode_file(DAG_PB, bytes(block)), FileNode | Refusal)
    assert isinstance(decode_file(DAG_PB, bytes(block[:cut])), FileNode | Refusal)


_NODES = (FileNode, DirectoryNode, SymlinkNode, Refusal)


@given(st.binary(max_size=300), st.sampled_from([DAG_PB, RAW, 0x71]))
def test_any_bytes_are_a_node_or_refused(block: bytes, codec: int) -> None:
    answer = decode_node(codec, block)
    assert isinstance(answer, _NODES)
    if isinstance(answer, FileNode):  # the two agree on what a file is
        assert decode_file(codec, block) == answer


@given(st.sampled_from([1, 4, 5]), st.lists(st.binary(max_size=8), max_size=4), st.data())
def test_damage_anywhere_in_a_directory_never_raises(
    kind: int, names: list[bytes], data: st.DataObject
) -> None:
    links = [(multihash(name), name.hex(), len(name)) for name in names]
    block = bytearray(node(unixfs(kind, b"\xff") + field(6, 256), links))
    for _ in range(data.draw(st.integers(0, 3))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(block)))
    assert isinstance(decode_node(DAG_PB, bytes(block)), _NODES)
    assert isinstance(decode_node(DAG_PB, bytes(block[:cut])), _NODES)
    assert isinstance(decode_file(DAG_PB, bytes(block)), FileNode | Refusal)


@given(st.binary(max_size=300), st.one_of(st.none(), st.integers(0, 1 << 40)))
def test_any_head_of_a_large_block_is_refused(head: bytes, size: int | None) -> None:
    for codec in (DAG_PB, RAW, 0x71):
        assert isinstance(refuse_oversize(codec, head, size), Refusal)


def test_leaves_that_others_write_are_files_too() -> None:
    assert decode_file(DAG_PB, node(unixfs(0, b"raw leaf", 8))) == FileNode(b"raw leaf", (), 8)
    assert decode_file(DAG_PB, node(unixfs(2, b"no size"))) == FileNode(b"no size", (), 7)
    dated = unixfs(2, b"dated", 5) + field(7, 0o644) + field(8, field(1, 1736937000))
    assert decode_file(DAG_PB, node(dated)) == FileNode(b"dated", (), 5)
    odd = varint(9 << 3 | 5) + bytes(4) + varint(10 << 3 | 1) + bytes(8)
    assert decode_file(DAG_PB, node(unixfs(2, b"odd", 3) + odd)) == FileNode(b"odd", (), 3)
    assert decode_file(RAW, b"\x0a\x04\x08\x01") == FileNode(b"\x0a\x04\x08\x01", (), 4)


def test_links_are_told_with_their_sizes() -> None:
    packed = field(1, 2) + field(3, 3) + field(4, varint(1) + varint(2))
    for data in (unixfs(2, None, 3, [1, 2]), packed):
        found = decode_file(DAG_PB, node(data, [LINK, (b"\x01\x55" + multihash(b"y"), "", 2)]))
        assert isinstance(found, FileNode)
        assert [(link.cid.version, link.cid.codec, link.size) for link in found.links] == [
            (0, DAG_PB, 1),
            (1, RAW, 2),
        ]
        assert found.size == 3


def test_fields_in_the_other_order_are_legal() -> None:
    block = field(1, unixfs(2, None, 1, [1])) + node(None, [LINK])
    assert isinstance(decode_file(DAG_PB, block), FileNode)


@pytest.mark.parametrize(("kind", "word"), [(1, "directory"), (4, "link"), (5, "directory")])
def test_what_is_no_file(kind: int, word: str) -> None:
    answer = refusal(node(unixfs(kind), [(multihash(b"x"), "name", 1)]))
    assert answer.reason == "not_a_file"
    assert word in answer.sentence
    head = node(unixfs(kind, bytes(60_000)))[:200]
    assert refuse_oversize(DAG_PB, head, None).reason == "not_a_file"


def test_other_codecs_are_no_files() -> None:
    for codec in (0x71, 0x0200, 0x72):
        answer = decode_file(codec, b"")
        assert isinstance(answer, Refusal)
        assert answer.reason == "not_a_file"
        assert refuse_oversize(codec, b"", None).reason == "not_a_file"


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\x0a",
        b"\x0a" + b"\xff" * 9,
        b"\x0a" + b"\xff" * 1000,
        b"\x0a" + b"\xff" * 9 + b"\x7f",
        b"\x0a\x05\x08\x02",
        b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
        node(None, [LINK]),
        node(b""),
        node(b"\x08"),
        node(b"\x08\x03" * 2),
        node(b"hello"),
        node(unixfs(9, b"x", 1)),
        node(unixfs(2, b"x", 1) + field(2, b"y")),
        node(unixfs(2, b"x", 1) + field(3, 1)),
        node(unixfs(2, b"x", 1) + field(1, 2)),
        node(unixfs(2, b"x", 2)),
        node(unixfs(2, None, 1, [1])),
        node(unixfs(2, None, 0, []), [LINK]),
        node(unixfs(2, None, 2, [1]), [LINK]),
        node(unixfs(2, None, 1, [1]), [(b"no cid", "", 1)]),
        node(unixfs(2) + varint(2 << 3 | 3)),
        node(unixfs(2) + varint(3 << 3 | 5) + bytes(4)),
        node(unixfs(2) + varint(9 << 3 | 5) + bytes(3)),
        node(unixfs(2) + field(4, b"\x80")),
        node(unixfs(2, b"x", 1)) + node(unixfs(2, b"x", 1)),
        node(None, [LINK]) + node(unixfs(2, None, 2, [1, 1])) + node(None, [LINK]),
        node(unixfs(2, b"x", 1)) + field(3, b"unknown"),
        field(2, field(2, b"a link without a hash")) + node(unixfs(2, None, 1, [1])),
        field(2, field(1, multihash(b"x")) * 2) + node(unixfs(2, None, 1, [1])),
        field(2, b"\x0a\x7fshort") + node(unixfs(2, None, 1, [1])),
    ],
    ids=lambda block: block[:12].hex(),
)
def test_malformed_blocks(block: bytes) -> None:
    assert refusal(block).reason == "malformed"


def test_a_block_of_ones_costs_no_more_than_its_length() -> None:
    assert refusal(b"\x12\x00" * 30_000).reason == "malformed"
    wide = node(unixfs(2, None, 10_000, [1] * 10_000), [LINK] * 10_000)
    found = decode_file(DAG_PB, wide)
    assert isinstance(found, FileNode)
    assert len(found.links) == 10_000


def test_large_blocks_are_judged_by_their_beginning() -> None:
    block = leaf(bytes(60_000))
    assert refuse_oversize(DAG_PB, block[:300], len(block)).reason == "too_large"
    assert refuse_oversize(DAG_PB, block[:300], None).reason == "too_large"
    assert refuse_oversize(DAG_PB, block[:300], len(block) - 1).reason == "damaged"
    assert refuse_oversize(DAG_PB, leaf(b"small")[:300], 60_000).reason == "damaged"
    assert refuse_oversize(DAG_PB, b"\x0a" + b"\xff" * 299, 60_000).reason == "damaged"
    assert refuse_oversize(RAW, b"", 60_000).reason == "too_large"
    directory = node(unixfs(1), [(multihash(b"x"), f"name{i}", 1) for i in range(2000)])
    assert refuse_oversize(DAG_PB, directory[:300], len(directory)).reason == "not_a_file"
    wide = node(unixfs(2, None, 2000, [1] * 2000), [LINK] * 2000)
    assert refuse_oversize(DAG_PB, wide[:300], len(wide)).reason == "too_large"


def test_what_a_content_alone_can_prove() -> None:
    content = b"0" * 67
    assert matches(cid_of(leaf(content)), content) is True
    raw = parse(cid_v1(RAW, multihash(content)))
    assert raw is not None
    assert matches(raw, content) is True
    assert matches(raw, content[:-1]) is False
    other = parse(cid_v1(0x71, multihash(content)))
    assert other is not None
    assert matches(other, content) is None
    sha1 = parse(cid_v1(RAW, b"\x11\x14" + bytes(20)))
    assert sha1 is not None
    assert matches(sha1, content) is None
    large = b"1" * (CHUNK_SIZE + 1)
    assert matches(cid_of(tree(large, CHUNK_SIZE)[-1]), large) is None


def test_a_trickle_tree_of_one_leaf_is_recognised() -> None:
    content = b"0" * 67
    below = node(unixfs(0, content, 67))
    block = node(unixfs(2, None, 67, [67]), [(multihash(below), "", len(below))])
    # Kubo 0.42: printf '0%.0s' {1..67} | ipfs add --quiet --trickle
    assert cid_of(block).text == "QmWNqEaFaqPcLu6JhGRRWG5B1KhboDusDz97LPUSG43paE"
    assert matches(cid_of(block), content) is True


def test_the_fixtures_contents_prove_their_ids(
    expected: dict[str, list[dict[str, Any]]], unpacked_fleet: Path
) -> None:
    proven = 0
    for tokens in expected.values():
        for token in tokens:
            cid = parse(token["token_id"]) if isinstance(token["token_id"], str) else None
            if cid is not None and token["content"] is not None:
                content = bytes.fromhex(token["content"])
                answer = matches(cid, content)
                assert answer is (True if len(content) <= CHUNK_SIZE else None), cid
                assert matches(cid, content + b"\n") is (False if answer else None)
                proven += 1
    assert proven > 300
