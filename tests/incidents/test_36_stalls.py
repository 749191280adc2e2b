"""36: a file system that does not answer costs its node only, in every phase."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rubix_token_sync.errors import SettingsError, SourceError
from rubix_token_sync.ipfs.content import Failure, FailureCode
from rubix_token_sync.ipfs.fetch import ContentOptions, open_chain
from rubix_token_sync.ipfs.repository import open_repository, repository_fingerprint
from rubix_token_sync.library.configuration import check_roots
from rubix_token_sync.nodes.discovery import discover
from rubix_token_sync.nodes.keep_out import keep_out
from tests.incidents.conftest import Site


@pytest.fixture
def kill_mount(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Mounts file systems whose server never answers (FUSE ones, without a server)."""
    libc = ctypes.CDLL(None, use_errno=True)
    mounted: list[tuple[int, Path]] = []

    def mount(where: Path) -> None:
        where.mkdir(parents=True, exist_ok=True)
        try:
            device = os.open("/dev/fuse", os.O_RDWR)
        except OSError as error:
            pytest.skip(f"no FUSE here: {error}")
        options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
        if libc.mount(b"dead", os.fsencode(where), b"fuse", 0, options.encode()):
            os.close(device)
            pytest.skip(f"may not mount here: {errno.errorcode[ctypes.get_errno()]}")
        mounted.append((device, where))

    yield mount
    for device, where in mounted:
        os.close(device)  # whoever waits gets an error now
        assert libc.umount2(os.fsencode(where), 2) == 0  # MNT_DETACH


def _node(path: Path) -> Path:
    (path / "Rubix").mkdir(parents=True)
    (path / "Rubix" / "rubix.db").touch()
    (path / ".ipfs" / "blocks").mkdir(parents=True)
    return path


def test_discovery_goes_on(kill_mount: Callable[[Path], None], tmp_path: Path) -> None:
    """A dead repository, its node and all others: found; only the repository is unread."""
    for name in ("a", "b", "c"):
        _node(tmp_path / name)
    kill_mount(tmp_path / "b" / ".ipfs")
    found = discover([tmp_path], stall_s=0.3)
    assert [node.name for node in found.nodes] == ["a", "b", "c"]
    assert all(node.repository for node in found.nodes)
    (item,) = found.skipped
    assert (item.path, item.reason_code, item.hides_nodes) == (
        str(tmp_path / "b" / ".ipfs"), "stalled", True,
    )  # fmt: skip


def test_a_root_that_does_not_answer_is_not_waited_for(
    kill_mount: Callable[[Path], None], tmp_path: Path
) -> None:
    """Before discovery, too: it names the root, and the others are read."""
    _node(tmp_path / "alive/a")
    roots = [str(tmp_path / "alive"), str(tmp_path / "dead")]
    kill_mount(tmp_path / "dead")
    started = time.monotonic()
    check_roots(roots, stall_s=0.3)
    assert time.monotonic() - started < 10
    found = discover(roots, stall_s=0.3)
    assert [node.name for node in found.nodes] == ["a"]
    assert [(i.path, i.reason_code) for i in found.skipped] == [(roots[1], "stalled")]
    for wrong in ("nothing", "alive/a/Rubix/rubix.db"):
        with pytest.raises(SettingsError):
            check_roots([str(tmp_path / wrong)])


def test_a_place_that_does_not_answer_is_named(
    kill_mount: Callable[[Path], None], tmp_path: Path
) -> None:
    kill_mount(tmp_path / "dead")
    with pytest.raises(SettingsError) as caught:
        keep_out(tmp_path / "dead" / "reports", "The report", stall_s=0.3)
    assert caught.value.code == "stalled"
    said = f"The report would go to {tmp_path}/dead/reports. The file system gave no answer"
    assert caught.value.message.startswith(said)


@pytest.mark.parametrize("place", [".ipfs", ".ipfs/blocks"])
def test_a_dead_repository_is_asked_once(
    place: str, kill_mount: Callable[[Path], None], tmp_path: Path
) -> None:
    repository = str(_node(tmp_path / "n") / ".ipfs")
    kill_mount(tmp_path / "n" / place)
    started = time.monotonic()
    for _ in range(2):
        with pytest.raises(SourceError) as caught:
            repository_fingerprint(repository, stall_s=0.3)
        assert caught.value.code == "stalled"
    found = open_repository(repository, stall_s=30)
    assert isinstance(found, Failure)
    assert found.code is FailureCode.READ_ERROR
    chain = open_chain(repository, ContentOptions())
    (failure,) = chain.resolve(["QmNLoNtdmWt9dYeZ6JAbw3tobVGSJcvnuPR1PGaGwu26Xw"]).failure
    chain.close()
    assert failure is not None
    assert failure.code is FailureCode.READ_ERROR
    assert "no answer" in failure.sentence
    assert time.monotonic() - started < 5


@pytest.mark.long
def test_planning_ends_at_a_signal(site: Site, kill_mount: Callable[[Path], None]) -> None:
    """The repository of a node with missing content is looked at while planning."""
    site.sync()
    kill_mount(site.fleet / "node033" / ".ipfs" / "blocks")
    run = site.door.start(*site.arguments("sync"))
    assert not run.ended_within(4)
    run.signal(signal.SIGTERM)
    assert run.ended_within(10)
