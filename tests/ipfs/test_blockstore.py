"""The block store: every layout is read, every block proven, nothing touched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rubix_token_sync.ipfs.blocks import MAX_BLOCKS, MAX_DEPTH
from rubix_token_sync.ipfs.cid import DAG_PB, RAW, Cid, cid_v1, parse
from rubix_token_sync.ipfs.content import CONTENT_LIMIT, Failure, FailureCode
from rubix_token_sync.ipfs.readers.blockstore import _COLD_BATCHES, BlockStoreReader
from rubix_token_sync.ipfs.repository import open_repository
from tests.ipfs.trees import (
    Store,
    cid_of,
    key_of,
    leaf,
    multihash,
    node,
    tree,
    unixfs,
)


def read_one(store: Path | Store, cid: Cid | None) -> bytes | Failure:
    path = store.path if isinstance(store, Store) else store
    assert cid is not None
    reader = BlockStoreReader(open_repository(str(path)))
    (answer,) = reader.read([cid])
    reader.close()
    return answer


def code(store: Path | Store, cid: Cid | None) -> FailureCode:
    answer = read_one(store, cid)
    assert isinstance(answer, Failure), answer
    return answer.code


def snapshot(path: Path) -> dict[str, tuple[int, int, bytes]]:
    """Mode, time and bytes of everything below a directory."""
    found = {}
    for entry in sorted(path.rglob("*")):
        status = entry.lstat()
        data = entry.read_bytes() if entry.is_file() and not entry.is_symlink() else b""
        found[str(entry)] = (status.st_mode, status.st_mtime_ns, data)
    return found


REPOSITORIES = {
    "node032/Rubix/rubix.db": "node032/.ipfs",
    "node033/Rubix/rubix.db": "node033/.ipfs",
    "SafePass/Rubix/Qnode1/Rubix/rubix.db": "SafePass/Rubix/Qnode1/.ipfs",
    "pool/a/node035/Rubix/rubix.db": "pool/.ipfs",
    "node034/Rubix/rubix.db": "nowhere/.ipfs",
    "node041/Rubix/rubix.db": "node041/.ipfs",
}
CODES = {
    "not in this repository": FailureCode.NOT_IN_REPOSITORY,
    "no repository": FailureCode.NO_REPOSITORY,
    "block damaged: hash differs": FailureCode.DAMAGED,
}


def test_the_fixture_as_expected_and_untouched(
    fleet: Path, expected: dict[str, list[dict[str, Any]]]
) -> None:
    before = snapshot(fleet)
    assert set(REPOSITORIES) == set(expected)
    for database, tokens in expected.items():
        reader = BlockStoreReader(open_repository(str(fleet / REPOSITORIES[database])))
        known = [token for token in tokens if parse(token["token_id"] or "")]
        cids = [cid for token in known if (cid := parse(token["token_id"]))]
        answers = reader.read(cids)
        reader.close()
        assert len(answers) == len(known)
        for token, answer in zip(known, answers, strict=True):
            if token["invalid"] == "content over 50 KB":
                assert isinstance(answer, Failure)
                assert answer.code is FailureCode.TOO_LARGE
            elif token["content"] is None:
                assert isinstance(answer, Failure)
                assert answer.code is CODES[token["ipfs_error"]]
            else:
                assert answer == bytes.fromhex(token["content"])
    assert snapshot(fleet) == before


@pytest.mark.parametrize(
    ("sharding", "shard"),
    [
        ("next-to-last/2", lambda key: key[-3:-1]),
        ("next-to-last/1", lambda key: key[-2:-1]),
        ("next-to-last/3", lambda key: key[-4:-1]),
        ("prefix/5", lambda key: key[:5]),
        ("suffix/2", lambda key: key[-2:]),
    ],
)
def test_every_sharding(tmp_path: Path, sharding: str, shard: Any) -> None:
    store = Store(tmp_path, sharding=f"/repo/flatfs/shard/v1/{sharding}", shard=shard)
    cid = store.put(leaf(b"token"))
    assert read_one(store, cid) == b"token"


@pytest.mark.parametrize("version", ["11", "6", None])
def test_old_repositories_key_by_cid(tmp_path: Path, version: str | None) -> None:
    store = Store(tmp_path, version=version)
    for index, codec in enumerate((DAG_PB, RAW)):
        content = b"token %d" % index
        block = leaf(content) if codec == DAG_PB else content
        cid = parse(cid_v1(codec, multihash(block)))
        assert cid is not None
        assert code(store, cid) is FailureCode.NOT_IN_REPOSITORY
        store.put(block, raw=bytes((1, codec)) + multihash(block))
        assert read_one(store, cid) == content
    # The same block may be there under its version 0 key only.
    old = store.put(leaf(b"version 0"))
    assert read_one(store, old) == b"version 0"
    assert read_one(store, parse(cid_v1(DAG_PB, old.multihash))) == b"version 0"


def test_new_repositories_key_by_multihash_only(tmp_path: Path) -> None:
    store = Store(tmp_path)
    block = leaf(b"token")
    store.put(block, raw=b"\x01\x70" + multihash(block))
    cid = parse(cid_v1(DAG_PB, multihash(block)))
    assert code(store, cid) is FailureCode.NOT_IN_REPOSITORY


@pytest.mark.parametrize("size", [0, 1, 67, 1000, 1009, 1010, 1013, 1024, CONTENT_LIMIT])
def test_sizes_up_to_the_limit(tmp_path: Path, size: int) -> None:
    store = Store(tmp_path)
    content = os.urandom(size)
    assert read_one(store, store.put(leaf(content))) == content
    store.put(content, raw=multihash(content))
    assert read_one(store, parse(cid_v1(RAW, multihash(content)))) == content


@pytest.mark.parametrize("size", [CONTENT_LIMIT + 1, CONTENT_LIMIT + 60, 262_144, 1 << 20])
def test_sizes_beyond_the_limit_are_not_read(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    content = bytes(size)
    file = store.put(leaf(content))
    store.put(content, raw=multihash(content))
    raw = parse(cid_v1(RAW, multihash(content)))
    large_tree = store.put_tree(content + b"x" * 300_000, 262_144)
    total = 0
    real_read = os.read

    def counting(fd: int, count: int) -> bytes:
        nonlocal total
        data = real_read(fd, count)
        total += len(data)
        return data

    monkeypatch.setattr(os, "read", counting)
    for cid in (file, raw, large_tree):
        total = 0
        assert code(store, cid) is FailureCode.TOO_LARGE
        assert total <= CONTENT_LIMIT + 1024 + 512


@pytest.mark.parametrize("chunk", [30, 512, 50_000])
def test_trees(tmp_path: Path, chunk: int) -> None:
    store = Store(tmp_path)
    content = os.urandom(CONTENT_LIMIT)
    assert read_one(store, store.put_tree(content, chunk)) == content


def test_trees_of_raw_leaves_and_inline_ones(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"raw leaf", raw=multihash(b"raw leaf"))
    links = [
        (b"\x01\x55" + multihash(b"raw leaf"), "", 8),
        (b"\x01\x55\x00\x0b" + b"inline leaf", "", 11),
    ]
    root = store.put(node(unixfs(2, b"first, ", 26, [8, 11]), links))
    assert read_one(store, root) == b"first, raw leafinline leaf"


def test_the_same_leaf_many_times(tmp_path: Path) -> None:
    store = Store(tmp_path)
    block = leaf(b"ab")
    store.put(block)
    count = 500
    root = node(unixfs(2, None, 2 * count, [2] * count), [(multihash(block), "", 8)] * count)
    assert read_one(store, store.put(root)) == b"ab" * count


def test_a_tree_with_a_missing_or_damaged_block(tmp_path: Path) -> None:
    store = Store(tmp_path)
    content = bytes(range(256)) * 8
    cid = store.put_tree(content, 1024)
    victim = store.file(multihash(leaf(content[:1024])))
    data = victim.read_bytes()
    victim.write_bytes(data[:-1] + b"\0")
    assert code(store, cid) is FailureCode.DAMAGED
    victim.unlink()
    assert code(store, cid) is FailureCode.NOT_IN_REPOSITORY


def test_hostile_trees_are_refused_at_a_bounded_cost(tmp_path: Path) -> None:
    store = Store(tmp_path)
    empty = leaf(b"")
    store.put(empty)
    # Width: 1,000 links to a node of 1,000 links to nothing.
    links = [(multihash(empty), "", 6)] * 1000
    wide = node(unixfs(2, None, 0, [0] * 1000), links)
    store.put(wide)
    wider = node(unixfs(2, None, 0, [0] * 1000), [(multihash(wide), "", 0)] * 1000)
    assert MAX_BLOCKS < 1000 * 1000
    assert code(store, store.put(wider)) is FailureCode.MALFORMED
    # Depth: a chain of single links.
    below, size = leaf(b"x"), 1
    for _ in range(MAX_DEPTH + 1):
        store.put(below)
        below = node(unixfs(2, None, size, [size]), [(multihash(below), "", 1)])
    assert code(store, store.put(below)) is FailureCode.MALFORMED
    # A child that holds more or less than its link says.
    child = leaf(b"ten bytes!")
    store.put(child)
    for lie in (9, 11):
        block = node(unixfs(2, None, lie, [lie]), [(multihash(child), "", 18)])
        assert code(store, store.put(block)) is FailureCode.MALFORMED
    # A link to a directory, and a block of noise.
    directory = node(unixfs(1))
    store.put(directory)
    block = node(unixfs(2, None, 5, [5]), [(multihash(directory), "", 4)])
    assert code(store, store.put(block)) is FailureCode.NOT_A_FILE
    assert code(store, store.put(b"\xff" * 500)) is FailureCode.MALFORMED


def test_directories_are_no_content(tmp_path: Path) -> None:
    store = Store(tmp_path)
    small = node(unixfs(1), [(multihash(b"x"), "name", 1)])
    large = node(unixfs(1), [(multihash(b"x"), f"name {i}", 1) for i in range(2000)])
    assert code(store, store.put(small)) is FailureCode.NOT_A_FILE
    assert code(store, store.put(large)) is FailureCode.NOT_A_FILE
    dag_cbor = parse(cid_v1(0x71, multihash(b"\xa0")))
    store.put(b"\xa0", raw=multihash(b"\xa0"))
    assert code(store, dag_cbor) is FailureCode.NOT_A_FILE


def test_other_hash_functions(tmp_path: Path) -> None:
    store = Store(tmp_path)
    good = b"\x13\x40" + hashlib.sha512(b"content").digest()
    sha1 = b"\x11\x14" + hashlib.sha1(b"content").digest()
    blake3 = b"\x1e\x20" + bytes(32)
    for name in (good, sha1, blake3):
        store.put(b"content", raw=name)
    assert read_one(store, parse(cid_v1(RAW, good))) == b"content"
    store.put(b"Content", raw=good)
    assert code(store, parse(cid_v1(RAW, good))) is FailureCode.DAMAGED
    assert code(store, parse(cid_v1(RAW, sha1))) is FailureCode.UNSUPPORTED_HASH
    assert code(store, parse(cid_v1(RAW, blake3))) is FailureCode.UNSUPPORTED_HASH


def test_identity_ids_need_no_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert read_one(store, parse(cid_v1(RAW, b"\x00\x05hello"))) == b"hello"
    file = parse(cid_v1(DAG_PB, b"\x00" + bytes((len(leaf(b"hi")),)) + leaf(b"hi")))
    assert read_one(store, file) == b"hi"
    assert code(store, parse(cid_v1(DAG_PB, b"\x00\x02hi"))) is FailureCode.MALFORMED


@pytest.mark.parametrize("size", [67, 5000, CONTENT_LIMIT, 200_000])
def test_damage_of_every_kind(tmp_path: Path, size: int) -> None:
    store = Store(tmp_path)
    content = os.urandom(size)
    cid = store.put(leaf(content))
    file = store.file(cid.multihash)
    good = file.read_bytes()
    for bad in (b"", good[:1], good[: size // 2], good[:-1], good + b"\0", good + bytes(70_000)):
        file.write_bytes(bad)
        assert code(store, cid) is FailureCode.DAMAGED, len(bad)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_other_bytes_are_never_content(tmp_path: Path, content: bytes, other: bytes) -> None:
    store_path = tmp_path / ".ipfs"
    store = Store(tmp_path) if not store_path.exists() else None
    block = leaf(content)
    path = store_path / "blocks" / key_of(multihash(block))[-3:-1]
    path.mkdir(exist_ok=True)
    (path / f"{key_of(multihash(block))}.data").write_bytes(other)
    answer = read_one(store or store_path, cid_of(block))
    assert answer == content if other == block else isinstance(answer, Failure)


def test_what_lies_in_a_blocks_place(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cid = store.put(leaf(b"token"))
    file = store.file(cid.multihash)
    elsewhere = tmp_path / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    assert code(store, cid) is FailureCode.READ_ERROR  # links are not followed
    file.unlink()
    os.mkfifo(file)
    assert code(store, cid) is FailureCode.READ_ERROR  # and no pipe is waited for
    file.unlink()
    file.mkdir()
    assert code(store, cid) is FailureCode.READ_ERROR
    shutil.rmtree(file.parent)
    file.parent.write_text("a file where a shard should be")
    assert code(store, cid) is FailureCode.READ_ERROR


def test_blocks_that_are_gone_altogether(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cid = store.put(leaf(b"token"))
    shutil.rmtree(store.blocks)
    assert code(store, cid) is FailureCode.READ_ERROR
    (store.path / "datastore_spec").write_text(json.dumps({"type": "badgerds", "path": "b"}))
    assert code(store, cid) is FailureCode.UNSUPPORTED_FORMAT


def test_a_closed_reader_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cid = store.put(leaf(b"token"))
    reader = BlockStoreReader(open_repository(str(store.path)))
    reader.close()
    reader.close()
    (answer,) = reader.read([cid])
    assert isinstance(answer, Failure)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_user_without_rights_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    readable, hidden = store.put(leaf(b"readable")), store.put(leaf(b"hidden"))
    for path in [store.path, *store.path.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    store.file(hidden.multihash).chmod(0o600)
    # The directories above belong to the test runner alone: reach it from within.
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)

    def ask() -> list[str]:
        os.seteuid(65534)
        try:
            reader = BlockStoreReader(open_repository(".ipfs"))
            answers = reader.read([readable, hidden])
            reader.close()
        finally:
            os.seteuid(0)
        return [str(answer) for answer in answers]

    content, denied = ask()
    assert content == "b'readable'"
    assert denied.startswith("access_denied: ")
    assert "run as its owner (root)" in denied
    store.blocks.chmod(0o700)
    assert all(answer.startswith("access_denied: ") for answer in ask())
    store.path.chmod(0o700)
    assert all(answer.startswith("access_denied: ") for answer in ask())


def _read_long_ago(path: Path) -> int:
    """Make the last access older than a day: the next one is noted, unless it asks not to be."""
    modified = path.stat().st_mtime_ns
    os.utime(path, ns=(modified - 3 * 86_400 * 10**9, modified))
    return path.stat().st_atime_ns


@pytest.mark.parametrize("threads", [1, 4])
def test_the_time_of_the_last_access_stays(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    small = [store.put(leaf(b"token %d" % n)) for n in range(20)]
    large = store.put(leaf(b"x" * 5_000))  # goes the general way
    files = [store.file(cid.multihash) for cid in (*small, large)]
    _read_long_ago(files[0])
    files[0].read_bytes()
    if files[0].stat().st_atime_ns < files[0].stat().st_mtime_ns:
        pytest.skip("this file system keeps no times of access")
    before = [_read_long_ago(file) for file in files]
    reader = BlockStoreReader(open_repository(str(store.path)), threads)
    monkeypatch.setattr(reader, "_cold", threads - 1)
    answers = reader.read([*small, large])
    reader.close()
    assert all(isinstance(answer, bytes) for answer in answers)
    assert [file.stat().st_atime_ns for file in files] == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_blocks_of_others_in_a_directory_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    cids = [store.put(leaf(b"ours")), store.put(leaf(b"theirs"))]
    for path in [store.path, *store.path.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.chown(path, 65534, 65534)
    os.chown(store.file(cids[1].multihash), 0, 0)
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    os.seteuid(65534)
    try:
        reader = BlockStoreReader(open_repository(".ipfs"), 4)
        cold = [reader.read(cids) for _ in range(2)][-1]
        reader.close()
    finally:
        os.seteuid(0)
    assert cold == [b"ours", b"theirs"]


def test_every_block_of_a_tree_is_read_once(tmp_path: Path, monkeypatch: Any) -> None:
    store = Store(tmp_path)
    content = os.urandom(4096)
    blocks = tree(content, 1024)
    cid = store.put_tree(content, 1024)
    opened = 0
    real_open = os.open

    def counting(*args: Any, **kwargs: Any) -> int:
        nonlocal opened
        opened += "dir_fd" in kwargs
        return real_open(*args, **kwargs)

    reader = BlockStoreReader(open_repository(str(store.path)))
    monkeypatch.setattr(os, "open", counting)
    assert reader.read([cid]) == [content]
    assert opened <= len(blocks) + 1  # the root's first look is not kept
    reader.close()


class Disk:
    """Makes each block take a while the first time it is opened, as a disk does."""

    seconds = 0.002

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.in_memory: set[str] = set()
        self._open = os.open
        patch.setattr(os, "open", self.open)

    def open(self, path: Any, *arguments: Any, **how: Any) -> int:
        if str(path).endswith(".data") and path not in self.in_memory:
            time.sleep(self.seconds)
            self.in_memory.add(path)
        return self._open(path, *arguments, **how)

    def read(self, reader: BlockStoreReader, cids: list[Cid]) -> tuple[list[Any], float]:
        """Answers of a disk that has nothing in memory, and the seconds that it took."""
        self.in_memory.clear()
        started = time.perf_counter()
        answers = reader.read(cids)
        return answers, time.perf_counter() - started


def many(store: Store) -> tuple[list[Cid], list[Any]]:
    """Contents, one of them damaged, one absent, one no file; and what reading them gives."""
    cids = [store.put(leaf(b"token %d" % n)) for n in range(100)]
    store.file(cids[3].multihash).write_bytes(b"damaged")
    store.file(cids[4].multihash).unlink()
    store.file(cids[5].multihash).unlink()
    os.mkfifo(store.file(cids[5].multihash))
    inline = parse(cid_v1(RAW, b"\x00\x06inline"))
    assert inline is not None
    cids.append(inline)
    reader = BlockStoreReader(open_repository(str(store.path)))
    answers = reader.read(cids)
    reader.close()
    assert len({type(answer) for answer in answers}) == 2
    return cids, answers


def test_blocks_on_a_disk_are_waited_for_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    cids, expected = many(store)
    reader = BlockStoreReader(open_repository(str(store.path)), threads=8)
    disk = Disk(monkeypatch)
    first, alone = disk.read(reader, cids)
    second, together = disk.read(reader, cids)
    assert first == second == expected
    assert together < alone / 3
    reader.close()


def test_one_worker_waits_for_one_block_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    cids, expected = many(store)
    reader = BlockStoreReader(open_repository(str(store.path)), threads=1)
    disk = Disk(monkeypatch)
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("a thread"))
    assert [disk.read(reader, cids)[0] for _ in range(2)] == [expected, expected]
    reader.close()


def test_few_blocks_are_few_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    cids, expected = many(store)
    reader = BlockStoreReader(open_repository(str(store.path)), threads=1024)
    disk = Disk(monkeypatch)
    disk.read(reader, cids)
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def count(thread: threading.Thread) -> None:
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", count)
    assert disk.read(reader, cids)[0] == expected
    assert len(started) == 13  # 101 blocks, eight a thread
    reader.close()


class Clock:
    """Time that passes when it is told to, whatever the machine does."""

    def __init__(self, patch: pytest.MonkeyPatch, seconds: float) -> None:
        self.now, self.seconds = 0.0, seconds
        patch.setattr("rubix_token_sync.ipfs.readers.blockstore.time.perf_counter", self.look)

    def look(self) -> float:
        self.now += self.seconds
        return self.now


def test_blocks_in_memory_need_no_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    cids = [store.put(leaf(b"token %d" % n)) for n in range(100)]
    reader = BlockStoreReader(open_repository(str(store.path)), threads=8)
    with monkeypatch.context() as patch:
        Disk(patch).read(reader, cids)  # slow: the next batches are touched by threads
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def count(thread: threading.Thread) -> None:
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", count)
    for _ in range(_COLD_BATCHES):
        reader.read(cids)
    assert len(started) == 8 * _COLD_BATCHES
    for _ in range(10):
        reader.read(cids)
    assert len(started) == 8 * _COLD_BATCHES
    reader.close()


def test_a_busy_processor_is_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    cids = [store.put(leaf(b"token %d" % n)) for n in range(100)]
    reader = BlockStoreReader(open_repository(str(store.path)), threads=8)
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("a thread"))
    Clock(monkeypatch, 1.0)  # a second for 100 blocks, in which nothing was waited for
    for _ in range(3):
        reader.read(cids)
    reader.close()


def test_no_more_threads_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    cids, expected = many(store)
    reader = BlockStoreReader(open_repository(str(store.path)), threads=8)
    disk = Disk(monkeypatch)
    disk.read(reader, cids)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert [disk.read(reader, cids)[0] for _ in range(2)] == [expected, expected]
    reader.close()
