"""The generator's repositories are those of real Kubo: proven against the fixture fleet."""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.testing import FlatfsWriter, block_path, encode_file, write_block
from rubix_token_sync.testing.flatfs import encode_token

Truth = dict[str, list[dict[str, Any]]]

REPOSITORIES = {
    "node032/Rubix/rubix.db": "node032/.ipfs",
    "node033/Rubix/rubix.db": "node033/.ipfs",
    "SafePass/Rubix/Qnode1/Rubix/rubix.db": "SafePass/Rubix/Qnode1/.ipfs",
    "pool/a/node035/Rubix/rubix.db": "pool/.ipfs",
}


def _style(token_id: str) -> dict[str, Any]:
    """How the fixture's maker added a token, told from its id."""
    if token_id.startswith("Qm"):
        return {"version": 0}
    return {"version": 1, "raw_leaves": token_id.startswith("bafk")}


def _contents(expected: Truth) -> list[tuple[str, str, bytes]]:
    return [
        (database, token["token_id"], bytes.fromhex(token["content"]))
        for database, tokens in expected.items()
        for token in tokens
        if token["content"] is not None
    ]


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_every_content_of_the_fixture_gets_its_id_and_its_blocks(
    unpacked_fleet: Path, expected: Truth, tmp_path: Path
) -> None:
    writers = {
        database: FlatfsWriter(tmp_path / repository)
        for database, repository in REPOSITORIES.items()
    }
    compared = 0
    for database, token_id, content in _contents(expected):
        cid, blocks = encode_file(content, **_style(token_id))
        assert cid == token_id
        assert writers[database].add(content, **_style(token_id)) == token_id
        for block in blocks:
            theirs = unpacked_fleet / REPOSITORIES[database] / "blocks" / block_path(block)
            ours = tmp_path / REPOSITORIES[database] / "blocks" / block_path(block)
            assert ours.read_bytes() == block.data
            assert theirs.read_bytes() == block.data
            assert _mode(ours) == 0o600
            if not token_id.startswith("bafk"):  # those raw blocks were not put there by Kubo
                assert _mode(theirs) == 0o600
            assert _mode(ours.parent) == _mode(theirs.parent)
            compared += 1
    assert compared == 328  # the stored tokens of the fixture, one of them in four blocks


def test_the_generator_writes_every_block_file_of_the_fixture_and_no_other(
    unpacked_fleet: Path, expected: Truth, tmp_path: Path
) -> None:
    for database, repository in REPOSITORIES.items():
        writer = FlatfsWriter(tmp_path / repository)
        for where, token_id, content in _contents(expected):
            if where == database:
                writer.add(content, **_style(token_id))
        theirs = _blocks(unpacked_fleet / repository)
        ours = _blocks(tmp_path / repository)
        assert ours <= theirs
        # Left over: the directory that the fixture's files were added in, damaged blocks.
        damaged = sum("damaged" in (token["ipfs_error"] or "") for token in expected[database])
        assert len(theirs - ours) == 1 + damaged


def _blocks(repository: Path) -> set[str]:
    return {str(path.relative_to(repository)) for path in repository.glob("blocks/*/*.data")}


def test_a_new_repository_has_the_layout_and_modes_of_a_real_one(
    unpacked_fleet: Path, tmp_path: Path
) -> None:
    real, made = unpacked_fleet / "node032/.ipfs", tmp_path / "node/.ipfs"
    FlatfsWriter(made)
    for name in ("version", "datastore_spec", "blocks/SHARDING"):
        assert (made / name).read_bytes() == (real / name).read_bytes()
    for name in ("version", "datastore_spec", "blocks/SHARDING", "config", "blocks", "datastore"):
        assert _mode(made / name) == _mode(real / name), name
    assert (made / "blocks/.temp").is_dir()


@pytest.mark.parametrize(
    ("shard", "directory"),
    [
        ("next-to-last/2", "TF"),
        ("next-to-last/3", "CTF"),
        ("prefix/5", "CIQNS"),
        ("suffix/4", "CTFQ"),
        ("prefix/60", "CIQNSHP345G4JKGXEBD4LIYET3LTVBSYTRDJZDB4WDHSCMKCQBECTFQ_____"),
        ("next-to-last/60", "______CIQNSHP345G4JKGXEBD4LIYET3LTVBSYTRDJZDB4WDHSCMKCQBECTF"),
    ],
)
def test_shard_functions(tmp_path: Path, shard: str, directory: str) -> None:
    writer = FlatfsWriter(tmp_path / ".ipfs", shard=shard)
    cid = writer.add(b"shards")
    (block,) = encode_file(b"shards")[1]
    path = tmp_path / ".ipfs" / "blocks" / block_path(block, shard=shard)
    assert path.read_bytes() == block.data
    assert path.parent.name == directory
    assert FlatfsWriter(tmp_path / ".ipfs").shard == shard  # read back from the repository
    assert write_block(tmp_path / ".ipfs", b"shards") == cid


def test_an_unknown_shard_function_is_refused(tmp_path: Path) -> None:
    for shard in ("middle/2", "prefix/0", "prefix/", "prefix/-1", ""):
        with pytest.raises(ValueError, match="shard function"):
            FlatfsWriter(tmp_path / ".ipfs", shard=shard)


def test_repositories_before_version_12_key_cidv1_blocks_by_the_whole_cid(tmp_path: Path) -> None:
    old = FlatfsWriter(tmp_path / "old/.ipfs", version=11)
    new = FlatfsWriter(tmp_path / "new/.ipfs")
    cid = old.add(b"text", version=1)
    assert new.add(b"text", version=1) == cid
    assert {path.stem for path in old.path.glob("blocks/*/AF*.data")} == {cid[1:].upper()}
    old_v0 = {p for p in _blocks(old.path) if "/CIQ" in p}
    old.add(b"text")
    assert len({p for p in _blocks(old.path) if "/CIQ" in p}) == len(old_v0) + 1
    assert not list(new.path.glob("blocks/*/AF*.data"))


def test_a_block_that_is_there_is_left_alone(tmp_path: Path) -> None:
    writer = FlatfsWriter(tmp_path / ".ipfs")
    blocks = encode_file(b"once")[1]
    assert writer.put(blocks) == 1
    (path,) = [p for p in writer.path.glob("blocks/*/*.data") if b"once" in p.read_bytes()]
    os.utime(path, ns=(1, 1))
    assert writer.put(blocks) == 0
    assert path.stat().st_mtime_ns == 1


@given(st.binary(max_size=700), st.integers(min_value=1, max_value=9))
def test_a_tree_holds_its_content_and_every_block_has_its_hash(content: bytes, chunk: int) -> None:
    """Chunks of a few bytes make trees of three levels; the leaves, in order, are the content."""
    cid, blocks = encode_file(content, version=1, chunk=chunk)
    for block in blocks:
        assert block.multihash == b"\x12\x20" + sha256(block.data).digest()
    leaves = [block.data for block in blocks if block.cid[1] == 0x55]
    assert b"".join(leaves) == content
    assert len(leaves) == max(1, -(-len(content) // chunk))
    assert encode_file(content, version=1, chunk=chunk)[0] == cid


@given(st.binary(max_size=300_000) | st.integers(0, 300_000).map(bytes))
def test_the_fast_path_agrees_with_the_whole_encoder(content: bytes) -> None:
    if len(content) <= 262_144:
        cid, block = encode_token(content)
        assert (cid, [block]) == encode_file(content)
