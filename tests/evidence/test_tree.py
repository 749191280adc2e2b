"""Tree and paths against a second implementation, written from the RFC alone."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rubix_token_sync.evidence import standalone
from rubix_token_sync.evidence.tree import (
    BLOCK,
    EMPTY_ROOT,
    BlockTree,
    inclusion_path,
    leaf_hash,
    root_from_path,
    root_of,
)
from tests.evidence import rfc6962

LEAVES = st.lists(st.binary(max_size=4), min_size=1, max_size=40)


@settings(max_examples=50)
@given(LEAVES, st.data())
def test_roots_and_paths_agree(leaves: list[bytes], data: st.DataObject) -> None:
    hashes = [leaf_hash(leaf) for leaf in leaves]
    root = rfc6962.mth(leaves)
    assert root_of(hashes) == standalone.root_of(hashes) == root
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = inclusion_path(hashes, index)
    assert path == rfc6962.path(index, leaves)
    for compute in (root_from_path, standalone.root_from_path):
        assert compute(index, len(leaves), hashes[index], path) == root
    assert rfc6962.root(index, len(leaves), leaves[index], path) == root


@settings(max_examples=50)
@given(LEAVES, st.data())
def test_no_other_place_length_or_leaf_gives_the_root(
    leaves: list[bytes], data: st.DataObject
) -> None:
    hashes = [leaf_hash(leaf) for leaf in leaves]
    root, size = root_of(hashes), len(leaves)
    index = data.draw(st.integers(0, size - 1))
    path = inclusion_path(hashes, index)
    for compute in (root_from_path, standalone.root_from_path):
        assert compute(index, size, leaf_hash(b"another leaf"), path) != root
        assert compute(index, size, hashes[index], [*path, root]) != root
        if path:
            assert compute(index, size, hashes[index], path[:-1]) != root
        other = data.draw(st.integers(0, size - 1))
        if hashes[other] != hashes[index]:
            assert compute(other, size, hashes[index], path) != root
    assert root_from_path(size, size, hashes[index], path) is None


@settings(max_examples=25)
@given(
    st.integers(0, 3 * BLOCK + 1),
    st.lists(st.integers(1, 2 * BLOCK), min_size=1, max_size=6),
)
def test_the_tree_is_the_same_however_the_leaves_come(size: int, steps: list[int]) -> None:
    leaves = [number.to_bytes(2, "big") for number in range(size)]
    tree, at = BlockTree(), 0
    for step in [*steps, size]:
        tree.extend(leaves[at : at + step])
        at = min(size, at + step)
    assert (tree.size, tree.root()) == (size, rfc6962.mth(leaves))
    assert len(tree.all_blocks()) == -(-size // BLOCK)


@pytest.mark.skipif(shutil.which("perl") is None, reason="no perl here")
def test_another_language_agrees_on_random_trees() -> None:
    """Perl with the RFC's definitions; trees of several blocks, and some that fill them."""
    chance = random.Random(23)
    sizes = [
        1,
        2,
        BLOCK - 1,
        BLOCK,
        BLOCK + 1,
        2 * BLOCK,
        *(chance.randint(1, 900) for _ in range(40)),
    ]
    trees = [[chance.randbytes(chance.randint(0, 40)) for _ in range(size)] for size in sizes]
    places = [chance.randrange(len(leaves)) for leaves in trees]
    lines = [
        " ".join([str(index), *(f"x{leaf.hex()}" for leaf in leaves)])
        for index, leaves in zip(places, trees, strict=True)
    ]
    program = ["perl", str(Path(rfc6962.__file__).with_suffix(".pl"))]
    text = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(program, input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for index, leaves, line in zip(places, trees, done.stdout.splitlines(), strict=True):
        root, *path = map(bytes.fromhex, line.split())
        tree = BlockTree()
        tree.extend(leaves)
        assert tree.root() == root
        within = [leaf_hash(leaf) for leaf in leaves]
        own = within[index // BLOCK * BLOCK :][:BLOCK]
        # As `prove` puts it together: inside the block, then above the blocks.
        above = inclusion_path(tree.all_blocks(), index // BLOCK)
        assert [*inclusion_path(own, index % BLOCK), *above] == path
        for compute in (root_from_path, standalone.root_from_path):
            assert compute(index, len(leaves), within[index], path) == root


def test_the_rfc_names_the_empty_tree() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert BlockTree().root() == EMPTY_ROOT


def test_known_roots() -> None:
    """Of the reference tests of Certificate Transparency."""
    data = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657",
            "606162636465666768696a6b6c6d6e6f"]  # fmt: skip
    tree = BlockTree()
    tree.extend([bytes.fromhex(one) for one in data])
    assert tree.root().hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def test_a_leaf_that_is_not_there_has_no_path() -> None:
    with pytest.raises(IndexError):
        inclusion_path([leaf_hash(b"")], 1)
