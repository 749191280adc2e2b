"""Private copies of chain directories while a node writes them, and what killed runs leave."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from rubix_token_sync.errors import SourceUnsettled
from rubix_token_sync.installation import LEVELDB
from rubix_token_sync.node_files import bounded
from rubix_token_sync.nodes import chain_copy
from rubix_token_sync.nodes.chain_copy import ChainCopy
from rubix_token_sync.nodes.chains import read_chains
from rubix_token_sync.nodes.private_copy import copy_bytes, sweep
from rubix_token_sync.scratch import Scratch

from .chain_nodes import make_node, rows_of
from .databases import tree

plyvel = pytest.importorskip(LEVELDB)

WRITER = Path(__file__).with_name("chain_writer.py")


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A directory, and the process that writes it."""
    directory = tmp_path / "storage"
    with subprocess.Popen(
        [sys.executable, str(WRITER), str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        _written(process)
        yield directory, process
        process.stdin.close()


def _written(process: subprocess.Popen[str]) -> int:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def _copied(directory: Path, scratch: Path) -> set[int]:
    """The numbers in a copy that is made now."""
    place = Scratch(str(scratch))
    copy = ChainCopy(os.fsencode(directory), place, file_bytes=2**26, copy_bytes=None)
    try:
        for _ in range(500):
            try:
                copy.refresh()
                break
            except SourceUnsettled:
                continue  # until the burst is over
        with plyvel.DB(copy.path, paranoid_checks=True) as database:
            return {
                int(value[: len(value) // 40])
                for _, value in database.iterator(verify_checksums=True)
            }
    finally:
        copy.remove()


def _check(directory: Path, process: subprocess.Popen[str], scratch: Path, copies: int) -> None:
    seen = 0
    for _ in range(copies):
        before = _written(process)
        found = bounded(partial(_copied, directory, scratch))
        assert len(found) >= before
        # Whatever was written before something that is there, is there.
        assert found == set(range(len(found)))
        assert len(found) >= seen
        seen = len(found)
    assert list(scratch.iterdir()) == []


def test_a_copy_is_what_was_written_up_to_a_moment(
    writing: tuple[Path, subprocess.Popen[str]], scratch: Path
) -> None:
    _check(*writing, scratch, copies=5)


@pytest.mark.long
def test_many_copies_of_a_growing_directory(
    writing: tuple[Path, subprocess.Popen[str]], scratch: Path
) -> None:
    _check(*writing, scratch, copies=15)


def test_the_newest_log_is_copied_first_and_the_manifest_last(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a log that the node goes on writing, no more may be there than of the ones before."""
    directory = tmp_path / "storage"
    directory.mkdir()
    names = ["000005.ldb", "000009.log", "000010.log", "000011.log", "MANIFEST-000007"]
    for name in [*names, "LOG", "LOCK", "CURRENT.bak", "000012.tmp"]:
        (directory / name).write_bytes(name.encode())
    (directory / "CURRENT").write_bytes(b"MANIFEST-000007\n")
    order: list[str] = []

    def copied(source: int, size: int, target: str, progress: Callable[[], None]) -> None:
        order.append(Path(target).name)
        copy_bytes(source, size, target, progress)

    monkeypatch.setattr(chain_copy, "copy_bytes", copied)
    bounded(partial(_everything, directory, scratch, [*names, "CURRENT"]))
    assert order == ["000011.log", "000010.log", "000009.log", "000005.ldb", "MANIFEST-000007"]


def _everything(directory: Path, scratch: Path, names: list[str]) -> None:
    place = Scratch(str(scratch))
    copy = ChainCopy(os.fsencode(directory), place, file_bytes=100, copy_bytes=1_000)
    copy.refresh()
    found = {path.name: path.read_bytes() for path in Path(copy.path).iterdir()}
    assert found == {name: (directory / name).read_bytes() for name in names}
    copy.remove()


def test_a_copy_keeps_the_tables_it_has(tmp_path: Path, scratch: Path) -> None:
    directory = tmp_path / "storage"
    with plyvel.DB(str(directory), create_if_missing=True) as database:
        for number in range(100):
            database.put(b"%d" % number, b"x")
        database.compact_range()
    bounded(partial(_kept, directory, scratch))


def _kept(directory: Path, scratch: Path) -> None:
    place = Scratch(str(scratch))
    copy = ChainCopy(os.fsencode(directory), place, file_bytes=2**26, copy_bytes=None)
    copy.refresh()
    tables = {path.name: path.stat() for path in Path(copy.path).glob("*.ldb")}
    assert tables
    copy.refresh()
    again = {path.name: path.stat() for path in Path(copy.path).glob("*.ldb")}
    assert {name: s.st_ino for name, s in again.items()} == {n: s.st_ino for n, s in tables.items()}
    copy.forget()
    copy.refresh()
    assert {path.name for path in Path(copy.path).glob("*.ldb")} == set(tables)
    modes = {path.stat().st_mode & 0o777 for path in Path(copy.path).glob("*.ldb")}
    assert modes == {0o600}
    copy.remove()
    copy.remove()
    assert list(scratch.iterdir()) == []


PROGRAM = """
import sys
from rubix_token_sync.nodes.chains import read_chains
chains = read_chains(sys.argv[1], "test", sys.argv[2], lambda did: None)
rows = sum(batch.num_rows for batch in chains)
print(rows, {storage: error.code for storage, error in chains.failures.items()})
"""


def _run(database: Path, scratch: Path, fault: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(database), str(scratch)],
        env={**os.environ, "RUBIX_SYNC_FAULT": fault},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path, scratch: Path) -> None:
    database = make_node(tmp_path)
    before = tree(tmp_path / "node1")
    assert _run(database, scratch, "source.copy:1:kill").returncode == -9
    assert len(list(scratch.iterdir())) == 1
    assert len(rows_of(database, scratch)) == 6
    assert tree(tmp_path / "node1") == before


def test_a_failing_disk_is_an_error_of_that_directory(tmp_path: Path, scratch: Path) -> None:
    database = make_node(tmp_path)
    done = _run(database, scratch, "source.copy:2:error")
    assert done.stdout == "0 {'FTchainstorage': 'io_error'}\n", done.stderr
    assert list(scratch.iterdir()) == []


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
"""


def test_the_disk_fills_up_while_copying(tmp_path: Path, scratch: Path) -> None:
    """A limit of file size stands in for a full disk."""
    database = make_node(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FULL + PROGRAM, str(database), str(scratch)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "0 {'FTchainstorage': 'no_scratch_space'}\n", done.stderr
    assert list(scratch.iterdir()) == []


def test_a_file_system_that_hangs(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = make_node(tmp_path)
    waiting = True

    def hanging(*_: object) -> None:
        while waiting:
            time.sleep(0.01)
        raise OSError(5, "too late")

    monkeypatch.setattr(chain_copy, "copy_bytes", hanging)
    chains = read_chains(str(database), "test", str(scratch), lambda _: None, stall_s=0.2)
    assert list(chains) == []
    assert {error.code for error in chains.failures.values()} == {"stalled"}
    waiting = False
    end = time.monotonic() + 20
    while list(scratch.iterdir()) and time.monotonic() < end:
        time.sleep(0.01)
    assert list(scratch.iterdir()) == []
    assert sweep(str(scratch)) == 0
