"""Trees of blocks: proven whole, counted as UnixFS says, bounded whatever was put there."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rubix_token_sync.ipfs.cid import DAG_PB, RAW, Cid, cid_v1, parse, to_bytes
from rubix_token_sync.ipfs.content import CONTENT_LIMIT, MAX_BLOCK, Failure, FailureCode
from rubix_token_sync.ipfs.fetch import ContentChain, ContentOptions, open_chain
from rubix_token_sync.ipfs.trees import Tree, TreeLimits, walk
from rubix_token_sync.ipfs.unixfs import DirectoryNode, FileNode, SymlinkNode, decode_node
from tests.ipfs.trees import Store, cid_of, field, leaf, multihash, node, tree, unixfs

ABSENT = Failure(FailureCode.NOT_IN_REPOSITORY, "it is not here")
ARTIFACT = "QmQvntSTXTt88QpZs5ts8bzCvwqyyHt3dJGGsmoAMcv1FU"
BINARY_CODE = "QmTirwyocw3fmnZRt942k4VuNrritQLk69eFCsQRxEAcXX"
RAW_CODE = "Qmc3uRE8p8LRWrJb3UofphMnoeC7DgkDGWCf8pbQM1pg9s"

Links = Sequence[tuple[bytes, str, int]]


class Memory:
    """Blocks by their multihash; remembers what it was asked."""

    def __init__(self, *blocks: bytes) -> None:
        self.blocks = {multihash(block): block for block in blocks}
        self.asked: Counter[bytes] = Counter()

    def put(self, block: bytes) -> bytes:
        self.blocks[multihash(block)] = block
        return multihash(block)

    def __call__(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
        self.asked.update(to_bytes(cid) for cid in cids)
        return [self.blocks.get(cid.multihash, ABSENT) for cid in cids]

    def walk(self, root: bytes, limits: TreeLimits | None = None) -> Tree:
        cid = cid_of(self.blocks[root])
        found = walk(cid, self, limits or TreeLimits())
        assert set(self.asked.values()) <= {1}  # no block is read twice
        return found


def directory(links: Links) -> bytes:
    return node(unixfs(1), links)


def shard(links: Links, fanout: int = 256) -> bytes:
    return node(unixfs(5, b"\xff") + field(5, 0x22) + field(6, fanout), links)


def file_of(memory: Memory, children: Sequence[tuple[bytes, int]]) -> bytes:
    """Put a file whose parts (multihash, size) are there already."""
    sizes = [size for _, size in children]
    links = [(child, "", 0) for child, _ in children]
    return memory.put(node(unixfs(2, None, sum(sizes), sizes), links))


def refused(found: Tree) -> Failure:
    """The failure of a tree of which nothing is claimed."""
    assert found.failure is not None
    assert (found.size, found.files, found.content) == (None, None, None)
    assert found.facts["failure"] == str(found.failure)
    assert found.outcome is found.failure
    return found.failure


def code(found: Tree) -> FailureCode:
    return refused(found).code


# --- what is right -----------------------------------------------------------


def test_a_file_within_the_limit_is_kept() -> None:
    content = bytes(range(256)) * 20
    memory = Memory(*tree(content, 100, 7))
    found = memory.walk(multihash(tree(content, 100, 7)[-1]))
    assert found == Tree("file", len(content), 1, len(memory.blocks), None, content)
    assert found.outcome == content
    empty = Memory(leaf(b""))
    assert empty.walk(multihash(leaf(b""))) == Tree("file", 0, 1, 1, None, b"")


@pytest.mark.parametrize(("size", "kept"), [(CONTENT_LIMIT, True), (CONTENT_LIMIT + 1, False)])
def test_a_larger_file_is_proven_and_not_kept(size: int, kept: bool) -> None:
    blocks = tree(hashlib.shake_128(b"x").digest(size), 262)
    found = Memory(*blocks).walk(multihash(blocks[-1]))
    assert (found.kind, found.size, found.failure) == ("file", size, None)
    assert found.blocks == len(set(blocks))
    assert (found.content is not None) is kept
    outcome = found.outcome
    if not kept:
        assert isinstance(outcome, Failure)
        assert str(outcome).startswith(f"too_large_to_store: all {size} bytes")
        assert outcome.final


def test_raw_leaves_and_cids_of_version_1() -> None:
    memory = Memory()
    parts = [hashlib.shake_128(bytes((i,))).digest(1000) for i in range(3)]
    links = []
    for part in parts:
        memory.put(part)
        links.append((b"\x01\x55" + multihash(part), "", 1000))
    block = node(unixfs(2, None, 3000, [1000] * 3), links)
    memory.put(block)
    root = parse(cid_v1(DAG_PB, multihash(block)))
    assert root is not None
    assert walk(root, memory) == Tree("file", 3000, 1, 4, None, b"".join(parts))
    single = parse(cid_v1(RAW, multihash(parts[0])))
    assert single is not None
    assert walk(single, memory).content == parts[0]


def test_a_block_that_the_cid_carries_is_not_asked_for() -> None:
    memory = Memory()
    inline = b"\x01\x55\x00\x05hello"
    block = directory([(inline, "a", 5), (inline, "b", 5)])
    found = memory.walk(memory.put(block))
    assert (found.kind, found.size, found.files, found.blocks) == ("directory", 10, 2, 2)
    assert list(memory.asked) == [multihash(block)]


def test_directories_of_directories() -> None:
    memory = Memory()
    small, empty = memory.put(leaf(b"small")), memory.put(directory([]))
    blocks = tree(bytes(range(250)) * 4, 100, 3)
    large = [memory.put(block) for block in blocks][-1]
    link = memory.put(node(unixfs(4, b"../../etc/passwd")))
    inner = memory.put(directory([(small, "a", 5), (large, "b", 9), (empty, "c", 0)]))
    root = memory.put(
        directory([(inner, "x", 0), (inner, "y", 0), (small, "z", 5), (link, "l", 0)])
    )
    found = memory.walk(root)
    # Files that occur twice count twice; their blocks once.
    assert (found.kind, found.failure) == ("directory", None)
    assert found.size == 2 * (5 + 1000) + 5 + len("../../etc/passwd")
    assert found.files == 2 * 2 + 1 + 1
    assert found.blocks == len(memory.blocks)
    assert isinstance(found.outcome, Failure)
    assert found.outcome.code is FailureCode.NOT_A_FILE
    assert Memory(directory([])).walk(empty) == Tree("directory", 0, 0, 1)


@pytest.mark.parametrize(("fanout", "width"), [(8, 1), (16, 1), (256, 2), (1024, 3)])
def test_sharded_directories(fanout: int, width: int) -> None:
    memory = Memory()
    files = [memory.put(leaf(b"%d" % number)) for number in range(10)]
    below = memory.put(shard([(f, "0" * width + f"f{i}", 0) for i, f in enumerate(files)], fanout))
    root = memory.put(
        shard([(below, "1" * width, 0), (files[0], "2" * width + "again", 0)], fanout)
    )
    found = memory.walk(memory.put(directory([(root, "sharded", 0), (files[1], "b", 0)])))
    assert (found.kind, found.size, found.files, found.failure) == ("directory", 12, 12, None)
    assert Memory(*memory.blocks.values()).walk(root).kind == "directory"


def test_the_real_nodes_trees(real_nodes: Path) -> None:
    """An artifact of two files and a contract's code of two chunks, as real nodes hold them."""
    for name in ("alice", "bob"):
        with closing(open_chain(str(real_nodes / name / ".ipfs"), ContentOptions())) as chain:
            artifact, code_tree = chain.tree(ARTIFACT), chain.tree(BINARY_CODE)
            assert (artifact.kind, artifact.files, artifact.failure) == ("directory", 2, None)
            assert (code_tree.kind, code_tree.size, code_tree.blocks) == ("file", 400_008, 3)
            assert code_tree.content is None
            assert code_tree.facts == {"kind": "file", "blocks": 3, "size": 400_008, "files": 1}
            assert chain.tree(RAW_CODE).content == b"fn main(){}\n"
            assert chain.tree(ARTIFACT) is artifact  # many tokens may name it
            # Asked for as a token of its own, the code is proven, not stored.
            (failure,) = chain.resolve([BINARY_CODE]).failure
            assert failure is not None
            assert failure.code is FailureCode.TOO_LARGE_TO_STORE


def test_blocks_that_only_other_code_can_read_are_named_so(real_nodes: Path) -> None:
    options = ContentOptions(ways=("blockstore",))
    with closing(open_chain(str(real_nodes / "erin" / ".ipfs"), options)) as chain:
        found = chain.tree(ARTIFACT)
    assert code(found) is FailureCode.UNSUPPORTED_FORMAT
    assert found.kind is None
    with closing(open_chain(None, options)) as chain:
        assert code(chain.tree(ARTIFACT)) is FailureCode.NO_REPOSITORY
        for hostile in ("../../etc/passwd", "", None, "x" * 1_000_000):
            assert code(chain.tree(hostile)) is FailureCode.NO_CID


# --- what is missing or wrong ------------------------------------------------


def test_each_missing_or_damaged_block_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    content = hashlib.shake_128(b"y").digest(1000)
    blocks = tree(content, 100, 4)
    root = [store.put(block) for block in blocks][-1]
    top = store.put(directory([(multihash(blocks[-1]), "file", 1000)]))

    def proven() -> Tree:
        with closing(open_chain(str(store.path), ContentOptions(ways=("blockstore",)))) as chain:
            assert (chain.tree(root.text).content == content) is (
                chain.tree(top.text).failure is None
            )
            return chain.tree(top.text)

    assert proven().size == 1000
    for block in blocks:
        path = store.file(multihash(block))
        path.unlink()
        failure = refused(proven())
        assert failure.code is FailureCode.NOT_IN_REPOSITORY
        assert failure.sentence.startswith("a block below the root: ")
        path.write_bytes(block[:-1])
        assert code(proven()) is FailureCode.DAMAGED
        path.write_bytes(block)
    assert proven().failure is None


def test_any_way_may_have_a_block() -> None:
    """Blocks come from whichever way has them; a damaged one is replaced by another way's."""
    blocks = tree(hashlib.shake_128(b"z").digest(400), 100)
    damaged = Failure(FailureCode.DAMAGED, "damaged")

    class Way:
        name = "way"

        def __init__(self, answers: dict[bytes, bytes | Failure]) -> None:
            self.answers = answers

        def read(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
            raise AssertionError("blocks are asked for")

        def blocks(self, cids: Sequence[Cid]) -> list[bytes | Failure]:
            return [self.answers.get(cid.multihash, ABSENT) for cid in cids]

        def close(self) -> None:
            pass

    first: dict[bytes, bytes | Failure] = {multihash(block): block for block in blocks[::2]}
    first[multihash(blocks[1])] = damaged
    second: dict[bytes, bytes | Failure] = {multihash(block): block for block in blocks[1::2]}
    text = cid_of(blocks[-1]).text
    assert ContentChain([Way(first), Way(second)]).tree(text).size == 400
    assert code(ContentChain([Way(first)]).tree(text)) is FailureCode.DAMAGED
    assert code(ContentChain([Way(second)]).tree(text)) is FailureCode.NOT_IN_REPOSITORY


MALFORMED = {
    "a file that claims more than its part": lambda m: file_of(m, [(m.put(leaf(b"abc")), 4)]),
    "a file that claims less than its part": lambda m: file_of(m, [(m.put(leaf(b"abc")), 2)]),
    "a directory as a part of a file": lambda m: file_of(m, [(m.put(directory([])), 0)]),
    "a link as a part of a file": lambda m: file_of(m, [(m.put(node(unixfs(4, b"a"))), 1)]),
    "a large part in a small file": lambda m: file_of(m, [(m.put(leaf(bytes(60_000))), 5)]),
    "one of two links that disagree": lambda m: file_of(
        m, [(m.put(leaf(b"abc")), 3), (m.put(leaf(b"abc")), 4)]
    ),
    "a file as a shard": lambda m: m.put(shard([(m.put(leaf(b"a")), "0A", 0)])),
    "a directory as a shard": lambda m: m.put(shard([(m.put(directory([])), "0A", 0)])),
    "a link of a shard without a slot": lambda m: m.put(shard([(m.put(leaf(b"a")), "0", 0)])),
    "a shard without slots": lambda m: m.put(shard([], 0)),
    "a shard with too many slots": lambda m: m.put(shard([], 1 << 40)),
    "an entry that is not a CID": lambda m: m.put(directory([(b"\x00" * 40, "a", 0)])),
    "an entry that is not UnixFS": lambda m: m.put(directory([(m.put(b"\x0a\x00"), "a", 0)])),
    "garbage": lambda m: m.put(directory([(m.put(b"\xff" * 30), "a", 0)])),
}  # fmt: skip


@pytest.mark.parametrize("make", MALFORMED.values(), ids=MALFORMED)
def test_what_contradicts_itself_is_malformed(make) -> None:  # type: ignore[no-untyped-def]
    memory = Memory()
    assert code(memory.walk(make(memory))) is FailureCode.MALFORMED


def test_what_is_neither_file_nor_directory() -> None:
    memory = Memory()
    symlink = memory.put(node(unixfs(4, b"/etc/passwd")))
    assert code(memory.walk(symlink)) is FailureCode.NOT_A_FILE
    metadata = Memory()
    assert code(metadata.walk(metadata.put(node(unixfs(3, b"x"))))) is FailureCode.NOT_A_FILE
    cbor = b"\x01\x71" + multihash(b"\xa0")
    for block in (directory([(cbor, "a", 1)]), node(unixfs(2, None, 1, [1]), [(cbor, "", 1)])):
        other = Memory()
        assert code(other.walk(other.put(block))) is FailureCode.NOT_A_FILE
        assert len(other.asked) == 1  # no block of such a codec can be part of a tree
    weak = b"\x01\x55\x11\x14" + bytes(20)  # sha1
    sha1 = Memory()
    found = sha1.walk(sha1.put(directory([(weak, "a", 1)])))
    assert code(found) is FailureCode.UNSUPPORTED_HASH
    assert found.kind == "directory"


# --- what is meant to harm ---------------------------------------------------


def test_a_bomb_of_shared_directories_costs_its_blocks() -> None:
    """60 levels of 100 links to one block: 10**120 files on 61 blocks."""
    memory = Memory()
    below = memory.put(leaf(b"x"))
    for level in range(60):
        below = memory.put(directory([(below, f"{level} {i}", 0) for i in range(100)]))
        if level == 5:
            found = memory.walk(below)
            assert (found.size, found.files, found.blocks) == (100**6, 100**6, 7)
            memory.asked.clear()
    found = memory.walk(below)
    assert code(found) is FailureCode.TOO_LARGE
    assert sum(memory.asked.values()) == found.blocks == 61


def test_a_bomb_of_shared_parts_is_counted_once() -> None:
    """A terabyte of zeros on a few blocks is proven like any file of that many blocks."""
    memory = Memory()
    size = 262_144
    below = memory.put(leaf(bytes(size)))
    while size < 1 << 40:
        below = file_of(memory, [(below, size)] * 128)
        size *= 128
    found = memory.walk(below)
    assert (found.size, found.files, found.failure) == (size, 1, None)
    assert found.blocks == len(memory.blocks) < 10
    empty = memory.put(leaf(b""))
    for _ in range(60):  # nothing at all, 100 ** 60 times
        empty = file_of(memory, [(empty, 0)] * 100)
    memory.asked.clear()
    assert memory.walk(empty).content == b""
    beyond = 1 << 62
    halves = Memory()
    root = file_of(halves, [(file_of(halves, [(multihash(leaf(b"")), beyond)]), beyond)] * 3)
    halves.put(leaf(b""))
    assert code(halves.walk(root)) in (FailureCode.TOO_LARGE, FailureCode.MALFORMED)


def test_a_deep_chain_ends_at_the_limit() -> None:
    limits = TreeLimits(depth=10)
    for depth, good in ((10, True), (11, False), (5_000, False)):
        for make in (
            lambda memory, below: file_of(memory, [(below, 1)]),
            lambda memory, below: memory.put(directory([(below, "a", 1)])),
        ):
            memory = Memory()
            below = memory.put(leaf(b"x"))
            for _ in range(depth):
                below = make(memory, below)
            found = memory.walk(below, limits)
            assert (found.failure is None) is good
            if not good:
                assert code(found) is FailureCode.MALFORMED
                assert found.blocks == 11


def test_a_long_way_through_shallow_blocks_is_no_recursion() -> None:
    """All blocks are near the root, but the longest path visits every one of them."""
    memory = Memory()
    below = memory.put(leaf(b"x"))
    chain = [below]
    for _ in range(10_000):
        below = memory.put(directory([(below, "a", 1)]))
        chain.append(below)
    tops = [
        memory.put(directory([(name, str(i), 1) for i, name in enumerate(chain[at : at + 200])]))
        for at in range(0, len(chain), 200)
    ]
    found = memory.walk(memory.put(directory([(top, str(i), 1) for i, top in enumerate(tops)])))
    assert (found.files, found.failure) == (10_001, None)


HOSTILE_NAMES = [
    "../../../etc/passwd",
    "/etc/shadow",
    "a\0b",
    "",
    ".",
    "..",
    "n" * 10_240,
    "\u202e",
]


def test_hostile_names_never_leave() -> None:
    for make in (directory, shard):
        memory = Memory()
        x = memory.put(leaf(b"x"))
        slot = "" if make is directory else "0F"
        names = [name for name in HOSTILE_NAMES if name or make is directory]
        found = memory.walk(memory.put(make([(x, slot + name, 1) for name in names * 2])))
        assert (found.failure, found.files) == (None, 2 * len(names))
        shown = repr(found)
        assert not [name for name in HOSTILE_NAMES if len(name) > 2 and name in shown]
        absent = Memory()
        lost = absent.walk(absent.put(make([(x, slot + name, 1) for name in names])))
        assert "etc" not in str(refused(lost))


def test_each_limit_holds() -> None:
    memory = Memory()
    files = [memory.put(leaf(b"%4d" % number * 250)) for number in range(50)]
    root = memory.put(directory([(name, "f", 0) for name in files]))
    total = sum(map(len, memory.blocks.values()))
    for limits, good in (
        (TreeLimits(bytes=total), True),
        (TreeLimits(bytes=total - 1), False),
        (TreeLimits(blocks=51), True),
        (TreeLimits(blocks=50), False),
        (TreeLimits(links=50), True),
        (TreeLimits(links=49), False),
    ):
        memory.asked.clear()
        found = memory.walk(root, limits)
        assert (found.failure is None) is good
        if not good:
            assert code(found) is FailureCode.TOO_LARGE
    memory.asked.clear()
    memory.walk(root, TreeLimits(blocks=50))
    assert len(memory.asked) == 1  # more blocks than allowed are not even asked for


def test_time_is_limited() -> None:
    memory = Memory()
    files = [memory.put(leaf(b"%d" % number)) for number in range(100)]
    root = cid_of(memory.blocks[memory.put(directory([(name, "f", 0) for name in files]))])
    ticks: Iterator[int] = count()
    found = walk(root, memory, TreeLimits(seconds=3), clock=lambda: float(next(ticks)))
    assert code(found) is FailureCode.TIMED_OUT
    assert not refused(found).final  # another day the disk may be faster
    assert 0 < found.blocks < 101


def test_a_block_larger_than_any_that_kubo_exchanges(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fits, large = bytes(MAX_BLOCK), bytes(MAX_BLOCK + 1)
    store.put(fits)
    store.put(large)
    with closing(open_chain(str(store.path), ContentOptions(ways=("blockstore",)))) as chain:
        for block, expected in ((fits, "too_large_to_store"), (large, "too_large")):
            (failure,) = chain.resolve([cid_v1(RAW, multihash(block))]).failure
            assert failure is not None
            assert failure.code == expected


# --- anything ----------------------------------------------------------------

_KINDS = ["file"] * 6 + ["directory"] * 4 + ["shard"] * 2 + ["symlink", "bytes"]
_blocks = st.lists(
    st.tuples(
        st.sampled_from(_KINDS),
        st.binary(max_size=8),
        # Which of the blocks before it, and whether its size is a lie (one in 40).
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 39)), max_size=4),
    ),
    min_size=2,
    max_size=25,
)


def _build(memory: Memory, plan: Sequence[tuple[str, bytes, Sequence[tuple[int, int]]]]) -> bytes:
    """Put blocks that name some of the five before them; the last one's multihash.

    Most are what they claim to be: parts of files are files, sizes are right.
    """
    made: list[tuple[bytes, int, str]] = []  # multihash, size, kind
    for kind, data, links in plan:
        recent = made[-5:]
        named = [(recent[at % len(recent)], not lie) for at, lie in links if recent]
        if kind == "file":
            named = [(child, lie) for child, lie in named if lie or child[2] == "file"]
            sizes = [size + lie for (_, size, _), lie in named]
            total = len(data) + sum(sizes)
            block = node(
                unixfs(2, data, total, sizes), [(name, "", 0) for (name, _, _), _ in named]
            )
        elif kind == "directory":
            block = directory([(name, "x", 0) for (name, _, _), _ in named])
        elif kind == "shard":
            below = [(name, "0A" if child == "shard" else "0Ax") for (name, _, child), _ in named]
            block = shard([(name, slot, 0) for name, slot in below])
        else:
            block = node(unixfs(4, data)) if kind == "symlink" else data
        size = total if kind == "file" else len(data)
        made.append((memory.put(block), size, kind))
    return made[-1][0]


@settings(max_examples=200)
@given(plan=_blocks, gone=st.sets(st.integers(0, 29), max_size=2))
def test_any_blocks_are_proven_or_refused(
    plan: list[tuple[str, bytes, list[tuple[int, int]]]], gone: set[int]
) -> None:
    memory = Memory()
    root = _build(memory, plan)
    everything = dict(memory.blocks)
    for at, name in enumerate(everything):
        if at in gone and name != root:
            del memory.blocks[name]
    found = memory.walk(root, TreeLimits(depth=20, blocks=40, links=200))
    if found.failure is None:
        assert found.kind is not None
        assert found.size == _size(everything, root)
        if found.kind == "file":
            assert found.content is not None
            assert len(found.content) == found.size
        assert set(memory.asked) <= set(memory.blocks)
    else:
        refused(found)


def _size(blocks: dict[bytes, bytes], name: bytes) -> int:
    """Bytes below a block that has been proven, found the slow way."""
    found = decode_node(DAG_PB, blocks[name])
    if isinstance(found, FileNode):
        return len(found.data) + sum(_size(blocks, link.cid.multihash) for link in found.links)
    if isinstance(found, SymlinkNode):
        return found.size
    assert isinstance(found, DirectoryNode)
    return sum(_size(blocks, cid.multihash) for cid in (*found.entries, *found.shards))
