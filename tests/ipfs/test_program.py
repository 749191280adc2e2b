"""The ipfs program as the last resort: whom it trusts, what it leaves, what it says."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rubix_token_sync.ipfs.content import Failure, FailureCode
from rubix_token_sync.ipfs.fetch import ContentOptions, open_chain
from rubix_token_sync.ipfs.readers.program import ProgramReader, find_program, held_by_a_process
from rubix_token_sync.ipfs.repository import Repository, open_repository
from tests.ipfs.trees import cid_of, leaf

CID = cid_of(leaf(b"token"))
SPEC = {"type": "badgerds", "path": "badgerds"}


@pytest.fixture
def node() -> Iterator[Path]:
    """A node with a repository that only Kubo reads, where other users can get to it."""
    path = Path(tempfile.mkdtemp(prefix="rubix-test-node-"))
    path.chmod(0o755)
    repository = path / ".ipfs"
    (repository / "badgerds").mkdir(parents=True)
    (repository / "badgerds" / "000001.vlog").write_bytes(b"blocks")
    (repository / "datastore_spec").write_text(json.dumps(SPEC))
    (repository / "config").write_text(json.dumps({"Datastore": {"Spec": SPEC}}))
    (repository / "version").write_text("14\n")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where copies are made; empty again after every test."""
    path = Path(tempfile.mkdtemp(prefix="rubix-test-tmp-"))
    path.chmod(0o711)
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    yield path
    assert list(path.iterdir()) == []
    path.rmdir()


def script(node: Path, text: str, mode: int = 0o755) -> Path:
    program = node / "ipfs"
    program.write_text("#!/bin/sh\n" + text)
    program.chmod(mode)
    return program


def reader(node: Path, program: Path | str) -> ProgramReader:
    repository = open_repository(str(node / ".ipfs"))
    assert isinstance(repository, Repository)
    return ProgramReader(repository, str(program), workers=2, timeout_s=5, attempts=1)


def failure(node: Path, program: Path | str) -> str:
    with closing(reader(node, program)) as way:
        first, second = way.read([CID, CID])
        assert first == second
        assert isinstance(first, Failure)
        assert first.code is FailureCode.PROGRAM_FAILED
        return first.sentence


def test_a_program_that_fails_says_why(node: Path, copies: Path) -> None:
    said = failure(node, script(node, "echo some words; echo no such luck >&2; exit 3"))
    assert said == "the ipfs program: it failed with exit code 3: no such luck"
    assert failure(node, script(node, "kill -9 $$")).endswith("exit code -9: it said nothing")


def test_a_program_that_ends_instead_of_serving(node: Path, copies: Path) -> None:
    text = """
    if [ "$1" = init ]; then
        mkdir -p "$IPFS_PATH"; echo 14 > "$IPFS_PATH/version"
        echo '{"Datastore": {}}' > "$IPFS_PATH/config"
    else
        cat "$IPFS_PATH/config" "$IPFS_PATH/badgerds/000001.vlog" "$IPFS_PATH/datastore_spec" |
            tr -d '\\n'
        exit 1
    fi"""
    said = failure(node, script(node, text))
    assert '"Spec": {"type": "badgerds", "path": "badgerds"}' in said
    assert "/api.sock" in said


def test_it_gets_nothing_of_our_environment(
    node: Path, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUBIX_SYNC_TARGET", "hunter2")
    said = failure(node, script(node, "env | tr '\\n' ' '; exit 1"))
    assert "IPFS_PATH" in said
    assert "hunter2" not in said


def test_nothing_of_an_id_reaches_it(node: Path, copies: Path) -> None:
    said = failure(node, script(node, 'echo "$# $@"; exit 1'))
    assert said.endswith(": 2 init --empty-repo")


@pytest.mark.parametrize("own", ["11", "15x", ""])
def test_a_program_for_other_repositories(node: Path, copies: Path, own: str) -> None:
    text = f"""mkdir -p "$IPFS_PATH"; echo {own} > "$IPFS_PATH/version" """
    said = failure(node, script(node, text))
    assert "version" in said


def test_whom_it_trusts(node: Path, copies: Path) -> None:
    program = script(node, "exit 0", 0o775)
    assert "not trusted" in failure(node, program)
    program.chmod(0o757)
    assert "not trusted" in failure(node, program)
    program.chmod(0o644)
    assert "not an executable" in failure(node, program)
    assert "not an executable" in failure(node, node)
    assert "No such file" in failure(node, node / "nothing")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_runs_a_nodes_program_as_the_nodes_owner(node: Path, copies: Path) -> None:
    program = script(node, "id -u; exit 1")
    assert failure(node, program).endswith(": 0")
    os.chown(program, 65534, 65534)  # somebody else's program in root's repository
    assert "not trusted" in failure(node, program)
    for path in [node / ".ipfs", *(node / ".ipfs").rglob("*")]:
        os.chown(path, 65534, 65534)
    assert failure(node, program).endswith(": 65534")
    groups = script(node, "id -G; exit 1")
    assert failure(node, groups).endswith(": 65534")


def test_a_datastore_elsewhere_or_unknown_is_not_copied(node: Path, copies: Path) -> None:
    program = script(node, 'mkdir -p "$IPFS_PATH"; echo 14 > "$IPFS_PATH/version"')
    for spec in ({"type": "badgerds", "path": "/etc"}, {"type": "badgerds", "path": "../x"}):
        (node / "x").mkdir(exist_ok=True)
        (node / ".ipfs" / "datastore_spec").write_text(json.dumps(spec))
        assert "outside" in failure(node, program)
    s3 = {"type": "s3ds", "secretKey": "hunter2"}
    (node / ".ipfs" / "config").write_text(json.dumps({"Datastore": {"Spec": s3}}))
    assert failure(node, program).endswith("of a kind that cannot be copied")


def test_a_pipe_in_the_configs_place_does_not_hang(node: Path, copies: Path) -> None:
    (node / ".ipfs" / "config").unlink()
    os.mkfifo(node / ".ipfs" / "config")
    assert "could not be put to work" in failure(node, script(node, "exit 1"))


def test_only_one_copy_of_a_repository_at_once(node: Path, copies: Path) -> None:
    holder = os.open(node / ".ipfs", os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    assert "another run" in failure(node, script(node, "exit 1"))
    os.close(holder)
    assert "exit code 1" in failure(node, script(node, "exit 1"))


_HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_repository_that_a_daemon_holds_is_left_alone(node: Path, copies: Path) -> None:
    lock = node / ".ipfs" / "repo.lock"
    assert not held_by_a_process(str(node / ".ipfs"))
    lock.write_text("")
    assert not held_by_a_process(str(node / ".ipfs"))  # that it exists means nothing
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert held_by_a_process(str(node / ".ipfs"))
        assert "holds the repository" in failure(node, script(node, "exit 1"))


def test_where_a_program_is_looked_for(node: Path) -> None:
    repository = str(node / ".ipfs")
    assert find_program(repository) is None
    program = script(node, "exit 0", 0o644)
    assert find_program(repository) is None
    program.chmod(0o755)
    assert find_program(repository) == str(program)


def test_the_chain_asks_it_for_other_formats_only(node: Path, copies: Path) -> None:
    script(node, "echo asked; exit 1")

    def code(options: ContentOptions) -> FailureCode:
        with closing(open_chain(str(node / ".ipfs"), options)) as chain:
            (found,) = chain.resolve([CID.text]).failure
        assert found is not None
        return found.code

    assert code(ContentOptions()) is FailureCode.PROGRAM_FAILED
    assert code(ContentOptions(ways=("blockstore",))) is FailureCode.UNSUPPORTED_FORMAT
    assert code(ContentOptions(ways=("blockstore", "daemon"))) is FailureCode.DAEMON_NOT_RUNNING
    flatfs = {"type": "flatfs", "path": "blocks", "shardFunc": "/repo/flatfs/shard/v1/prefix/2"}
    (node / ".ipfs" / "datastore_spec").write_text(json.dumps(flatfs))
    (node / ".ipfs" / "blocks").mkdir()
    (node / ".ipfs" / "blocks" / "SHARDING").write_text(flatfs["shardFunc"])
    assert code(ContentOptions()) is FailureCode.NOT_IN_REPOSITORY


def test_the_copy_is_for_our_eyes_only(node: Path, copies: Path) -> None:
    text = 'stat -c "%a %u" "$HOME"; exit 1'
    assert failure(node, script(node, text)).endswith(f": 700 {os.geteuid()}")
    assert stat.S_IMODE(node.stat().st_mode) == 0o755


def test_without_tokens_nothing_is_copied(node: Path, copies: Path) -> None:
    with closing(reader(node, "/nowhere/ipfs")) as way:
        assert way.read([]) == []
        assert list(copies.iterdir()) == []
