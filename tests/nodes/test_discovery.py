"""Finding nodes below roots."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pickle
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import rubix_token_sync.nodes.discovery as discovery_module
from rubix_token_sync import node_files
from rubix_token_sync.nodes.discovery import Discovery, Node, discover
from rubix_token_sync.nodes.skipped import SENTENCES


def node(path: Path, *, repository: bool = True) -> Path:
    """Make a node; gives its directory."""
    (path / "Rubix").mkdir(parents=True)
    (path / "Rubix" / "rubix.db").write_bytes(b"")
    if repository:
        valid(path)
    return path


def valid(path: Path) -> Path:
    """Make a repository."""
    (path / ".ipfs" / "blocks" / "AA").mkdir(parents=True)
    return path / ".ipfs"


def names(found: Discovery) -> list[str]:
    return [one.name for one in found.nodes]


def reasons(found: Discovery, root: Path) -> dict[str, str]:
    for skipped in found.skipped:
        assert skipped.sentence
        assert skipped.reason_code in SENTENCES
    return {os.path.relpath(one.path, root): one.reason_code for one in found.skipped}


def test_the_fleet(fleet: Path) -> None:
    found = discover([fleet])
    repositories = {
        os.path.relpath(one.db_path, fleet): one.repository
        and os.path.relpath(one.repository, fleet)
        for one in found.nodes
    }
    assert repositories == {
        "SafePass/Rubix/Qnode1/Rubix/rubix.db": "SafePass/Rubix/Qnode1/.ipfs",
        "node032/Rubix/rubix.db": "node032/.ipfs",
        "node033/Rubix/rubix.db": "node033/.ipfs",
        "node034/Rubix/rubix.db": None,
        "node037/Rubix/rubix.db": None,
        "node038/Rubix/rubix.db": None,
        "node039/Rubix/rubix.db": None,
        "node041/Rubix/rubix.db": None,
        "pool/a/node035/Rubix/rubix.db": "pool/.ipfs",
    }
    assert names(found) == [Path(path).parent.parent.name for path in repositories]
    assert reasons(found, fleet) == {
        "loop": "symlink",
        "SafePass/up": "symlink",
        "node040/Rubix": "no_database",
        "node041/.ipfs": "bare_repository",
    }
    assert discover([fleet]) == found
    assert pickle.loads(pickle.dumps(found)) == found


def test_blocks_are_never_walked(fleet: Path) -> None:
    found = discover([fleet])
    outside = [path for path in fleet.rglob("*") if path.is_dir() and ".ipfs" not in path.parts]
    links = [path for path in outside if path.is_symlink()]
    assert found.directories == 1 + len(outside) - len(links)


def test_a_repository_under_another_name_is_not_walked(tmp_path: Path) -> None:
    other = tmp_path / "ipfs-data"
    node(other / "keystore" / "n1")
    (other / "datastore_spec").touch()
    node(tmp_path / "flat" / "n2")
    (tmp_path / "flat" / "SHARDING").touch()
    assert names(discover([tmp_path])) == []


@pytest.mark.parametrize("mark", ["config", "datastore_spec", "blocks"])
def test_what_makes_a_repository(mark: str, tmp_path: Path) -> None:
    home = node(tmp_path / "n1", repository=False)
    repository = home / ".ipfs"
    repository.mkdir()
    assert discover([tmp_path]).nodes[0].repository is None
    (repository / mark).touch()
    expected = None if mark == "blocks" else str(repository)  # blocks must be a directory
    assert discover([tmp_path]).nodes[0].repository == expected
    (repository / mark).unlink()
    (repository / mark).mkdir()
    assert discover([tmp_path]).nodes[0].repository == str(repository)


def test_nearest_valid_repository_wins_and_none_above_the_root(tmp_path: Path) -> None:
    valid(tmp_path)
    home = node(tmp_path / "a" / "b" / "n1", repository=False)
    assert discover([tmp_path]).nodes[0].repository == str(tmp_path / ".ipfs")
    assert discover([tmp_path / "a"]).nodes[0].repository is None
    (tmp_path / "a" / ".ipfs").mkdir()
    assert discover([tmp_path]).nodes[0].repository == str(tmp_path / ".ipfs")
    for nearer in (tmp_path / "a" / "b", home, home / "Rubix"):
        repository = valid(nearer)
        assert discover([tmp_path]).nodes[0].repository == str(repository)


def test_a_repository_is_a_directory_or_a_link_to_one(tmp_path: Path) -> None:
    elsewhere = valid(tmp_path / "elsewhere")
    first = node(tmp_path / "root" / "n1", repository=False)
    (first / ".ipfs").symlink_to(elsewhere)
    second = node(tmp_path / "root" / "n2", repository=False)
    (second / ".ipfs").write_text("")
    third = node(tmp_path / "root" / "n3", repository=False)
    (third / ".ipfs").symlink_to("nowhere")
    fourth = node(tmp_path / "root" / "n4", repository=False)
    (fourth / ".ipfs").symlink_to(".ipfs")
    found = discover([tmp_path / "root"])
    linked = str(first / ".ipfs")
    unread = str(second / ".ipfs")  # named where its content is missing, as one that is damaged
    assert [one.repository for one in found.nodes] == [linked, unread, None, None]
    assert reasons(found, tmp_path / "root") == {
        "n2/.ipfs": "io_error",
        "n3/.ipfs": "broken_link",
        "n4/.ipfs": "broken_link",
    }


def test_roots_that_overlap_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    valid(tmp_path)
    node(tmp_path / "a" / "n1", repository=False)
    node(tmp_path / "a" / "n2")
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    alone = discover([tmp_path])
    monkeypatch.chdir(tmp_path)
    a = tmp_path / "a"
    for roots in ([a, tmp_path], [tmp_path, a], ["a/n1", ".", "a/../a"], [tmp_path, tmp_path]):
        assert discover(roots).nodes == alone.nodes
    both = discover([tmp_path, link])
    assert len(both.nodes) == 2
    link.unlink()


def test_a_root_may_be_a_link(tmp_path: Path) -> None:
    node(tmp_path / "real" / "n1")
    (tmp_path / "root").symlink_to("real")
    found = discover([tmp_path / "root"])
    # one place has one spelling: the real one
    assert [one.db_path for one in found.nodes] == [str(tmp_path / "real/n1/Rubix/rubix.db")]
    assert set(found.roots) == {str(tmp_path / "root"), str(tmp_path / "real")}


def test_a_linked_directory_given_as_a_root_is_not_told_as_skipped(tmp_path: Path) -> None:
    node(tmp_path / "real" / "n1")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to("../real")
    assert names(discover([tmp_path / "root"])) == []
    found = discover([tmp_path / "root", tmp_path / "root" / "link"])
    assert names(found) == ["n1"]
    assert found.skipped == []


def test_roots_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = discover([tmp_path / "missing", tmp_path / "file", tmp_path / "file" / "below"])
    assert reasons(found, tmp_path) == {
        "missing": "no_such_directory",
        "file": "not_a_directory",
        "file/below": "not_a_directory",
    }
    assert discover([]).nodes == []


def test_what_is_no_plain_file_is_told(tmp_path: Path) -> None:
    for name in ("directory", "pipe", "socket", "link", "dangling"):
        (tmp_path / name / "Rubix").mkdir(parents=True)
    (tmp_path / "directory/Rubix/rubix.db").mkdir()
    os.mkfifo(tmp_path / "pipe/Rubix/rubix.db")
    server = socket.socket(socket.AF_UNIX)
    with contextlib.chdir(tmp_path / "socket/Rubix"):  # an address has room for 107 bytes
        server.bind("rubix.db")
    server.close()
    (tmp_path / "link/Rubix/rubix.db").symlink_to("/dev/null")
    (tmp_path / "dangling/Rubix/rubix.db").symlink_to("nowhere")
    found = discover([tmp_path])
    assert found.nodes == []
    assert reasons(found, tmp_path) == {
        "directory/Rubix/rubix.db": "not_a_file",
        "pipe/Rubix/rubix.db": "not_a_file",
        "socket/Rubix/rubix.db": "not_a_file",
        "link/Rubix/rubix.db": "not_a_file",
        "dangling/Rubix/rubix.db": "broken_link",
    }
    assert all(one.hides_nodes for one in found.skipped)


def test_links_to_files_are_nothing_to_tell(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "to-file").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "itself").symlink_to("itself")
    assert reasons(discover([tmp_path]), tmp_path) == {"itself": "symlink"}


def test_nodes_within_nodes(tmp_path: Path) -> None:
    outer = node(tmp_path / "outer")
    node(outer / "Rubix" / "inner", repository=False)
    found = discover([tmp_path])
    assert names(found) == ["inner", "outer"]
    assert {one.repository for one in found.nodes} == {str(outer / ".ipfs")}
    assert found.skipped == []


def test_names(tmp_path: Path) -> None:
    (tmp_path / "x" / "Rubix").mkdir(parents=True)
    (tmp_path / "x" / "Rubix" / "rubix.db").touch()
    assert names(discover([tmp_path / "x" / "Rubix"])) == ["x"]
    for name in ("sp ace", "ünïcode", "new\nline", "'; DROP TABLE x; --", "🙂"):
        node(tmp_path / "names" / name)
    assert sorted(names(discover([tmp_path / "names"]))) == sorted(
        ["sp ace", "ünïcode", "new\nline", "'; DROP TABLE x; --", "🙂"]
    )


def test_names_that_are_not_utf8_are_nodes(tmp_path: Path) -> None:
    node(Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff%/n\xfe")))
    node(tmp_path / r"bad\xff%" / r"n\xfe")  # another directory, and another text
    found = discover([tmp_path])
    assert names(found) == [r"n\xfe", r"n\xfe"]
    plain, escaped = found.nodes
    assert plain.db_path == str(tmp_path / r"bad\xff%" / r"n\xfe" / "Rubix/rubix.db")
    assert escaped.db_path == f"file://{tmp_path}/bad%FF%25/n%FE/Rubix/rubix.db"
    assert escaped.repository == f"file://{tmp_path}/bad%FF%25/n%FE/.ipfs"
    assert node_files.stat(escaped.db_path).st_size == 0
    assert found.skipped == []


def test_paths_too_long_for_the_target_are_told(tmp_path: Path) -> None:
    room = 500 - len(str(tmp_path)) - len("/n1/Rubix/rubix.db")
    deep = tmp_path
    while room > 200:
        deep /= "d" * 99
        room -= 100
    fits = deep / ("e" * (room - 1))
    node(fits / "n1")
    node(deep / ("f" * (room - 1)) / "n10")
    node(deep / ("🙂" * ((room - 1) // 2 + 1)) / "n3")  # two UTF-16 units each
    found = discover([tmp_path])
    assert [len(one.db_path) for one in found.nodes] == [500]
    assert sorted(one.reason_code for one in found.skipped) == ["path_too_long"] * 2, found.skipped


def test_unreadable_directories_are_told(tmp_path: Path) -> None:
    closed = node(tmp_path / "root" / "closed")
    half = node(tmp_path / "root" / "half")
    node(tmp_path / "root" / "open")
    user = os.geteuid()
    if user == 0:
        for path in (*list(tmp_path.parents)[:-2], tmp_path, *tmp_path.rglob("*")):
            path.chmod(path.stat().st_mode | 0o055)
    (half / ".ipfs").chmod(0o600)
    closed.chmod(0)
    if user == 0:
        os.seteuid(65534)
    try:
        found = discover([tmp_path / "root"])
    finally:
        os.seteuid(user)
        closed.chmod(0o700)
    assert names(found) == ["half", "open"], found.skipped
    assert reasons(found, tmp_path / "root") == {
        "closed": "access_denied",
        "half/.ipfs": "access_denied",
    }


def test_an_error_of_the_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node(tmp_path / "bad" / "n1")
    node(tmp_path / "good")
    really = os.scandir

    def scandir(fd: int) -> object:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/bad"):
            raise OSError(errno.EIO, "hidden")
        return really(fd)

    monkeypatch.setattr(discovery_module.os, "scandir", scandir)
    found = discover([tmp_path])
    assert names(found) == ["good"]
    assert reasons(found, tmp_path) == {"bad": "io_error"}
    assert "Input/output error" in found.skipped[0].sentence


def test_a_bug_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(discovery_module.Walk, "_directory", broken)
    with pytest.raises(ZeroDivisionError):
        discover([tmp_path])


def _mount(source: bytes, where: Path, kind: bytes, flags: int, options: bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source, os.fsencode(where), kind, flags, options):
        pytest.skip(f"may not mount here: {errno.errorcode[ctypes.get_errno()]}")


def _unmount(where: Path) -> None:
    assert ctypes.CDLL(None).umount2(os.fsencode(where), 2) == 0  # MNT_DETACH


@pytest.fixture
def dead_mount(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system whose server never answers (a FUSE one, without a server)."""
    where = tmp_path / "root" / "dead"
    where.mkdir(parents=True)
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    try:
        _mount(b"dead", where, b"fuse", 0, options.encode())
        yield where
    finally:
        os.close(device)  # whoever waits gets an error now
    _unmount(where)


def test_a_dead_mount_below_a_root_is_not_touched(dead_mount: Path) -> None:
    root = dead_mount.parent
    node(root / "n1")
    (root / "link").symlink_to("dead/below")
    (root / "again").symlink_to("dead/other")
    started = time.monotonic()
    found = discover([root], stall_s=5)
    # By way of a link it is asked once, and once only.
    assert 5 <= time.monotonic() - started < 10
    assert names(found) == ["n1"]
    assert reasons(found, root) == {
        "dead": "other_file_system", "link": "stalled", "again": "stalled",
    }  # fmt: skip


def test_a_root_that_stalls_is_given_up(dead_mount: Path) -> None:
    root = dead_mount.parent
    node(root / "n1")
    found = discover([dead_mount, root], stall_s=0.2)
    assert names(found) == ["n1"]
    assert reasons(found, root) == {"dead": "stalled"}
    assert "0.2 s" in found.skipped[0].sentence


def test_other_file_systems_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "root" / "other disk"
    other.mkdir(parents=True)
    _mount(b"tmpfs", other, b"tmpfs", 0, b"size=1m")
    try:
        node(other / "n2")
        node(tmp_path / "root" / "n1")
        found = discover([tmp_path / "root"])
        assert names(found) == ["n1"]
        assert reasons(found, tmp_path / "root") == {"other disk": "other_file_system"}
        both = discover([tmp_path / "root", other])
        assert names(both) == ["n1", "n2"]
        assert both.skipped == []
    finally:
        _unmount(other)


def test_a_loop_of_bind_mounts_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    node(root / "n1")
    inside = root / "deep" / "again"
    inside.mkdir(parents=True)
    _mount(os.fsencode(root), inside, b"", 4096, b"")  # MS_BIND
    try:
        assert names(discover([root])) == ["n1"]
        # Without the kernel's list the directory itself is recognised.
        monkeypatch.setattr(discovery_module, "mount_points", frozenset)
        assert names(discover([root])) == ["n1"]
    finally:
        _unmount(inside)


def test_mount_points_with_odd_names() -> None:
    lines = [
        rb"36 35 98:0 /mnt1 /mnt\040with\134odd rw,noatime master:1 - ext3 /dev/root rw",
        b"broken",
    ]
    assert discovery_module.mount_points(lines) == {b"/mnt with\\odd"}


@pytest.mark.long
def test_many_files_are_passed_by_quickly(tmp_path: Path) -> None:
    """200 nodes among 100,000 entries; a million takes ten times as long."""
    for number in range(200):
        home = node(tmp_path / f"disk{number % 8}" / f"node{number:03}", repository=False)
        valid(home)
        for block in range(200):
            (home / ".ipfs" / "blocks" / "AA" / f"{block}.data").touch()
        for file in range(250):
            (home / f"file{file}").touch()
    started = time.process_time()  # what others do on this machine is not its business
    found = discover([tmp_path])
    seconds = time.process_time() - started
    assert len(found.nodes) == 200
    assert all(isinstance(one, Node) and one.repository for one in found.nodes)
    assert found.directories == 1 + 8 + 2 * 200
    assert seconds < 3
    shutil.rmtree(tmp_path)


def test_a_directory_rubix_on_a_disk_of_its_own_is_read(tmp_path: Path) -> None:
    """As a repository is: the node keeps its name and its repository."""
    rubix = tmp_path / "node" / "Rubix"
    rubix.mkdir(parents=True)
    (tmp_path / "node" / ".ipfs" / "blocks").mkdir(parents=True)
    _mount(b"tmpfs", rubix, b"tmpfs", 0, b"size=1m")
    try:
        (rubix / "TestNet").mkdir()
        (rubix / "rubix.db").touch()
        found = discover([tmp_path])
        assert names(found) == ["node"]
        assert found.nodes[0].repository == str(tmp_path / "node" / ".ipfs")
        assert found.skipped == []
    finally:
        _unmount(rubix)
