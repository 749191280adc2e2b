"""What a repository is, how it keeps blocks, and whether it changed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.ipfs.content import Failure, FailureCode
from rubix_token_sync.ipfs.repository import (
    NO_REPOSITORY,
    Repository,
    Sharding,
    open_repository,
    repository_fingerprint,
)
from tests.ipfs.trees import Store, leaf


def opened(path: Path) -> Repository:
    repository = open_repository(str(path))
    assert isinstance(repository, Repository)
    return repository


def write_spec(path: Path, spec: Any) -> None:
    path.mkdir(exist_ok=True)
    (path / "datastore_spec").write_text(json.dumps(spec))


def test_the_fixtures_repositories(fleet: Path) -> None:
    for name in ("node032", "node033", "pool"):
        repository = opened(fleet / name / ".ipfs")
        assert repository.readable
        assert (repository.format, repository.version) == ("flatfs", 14)
        assert repository.sharding == Sharding("next-to-last", 2)
        assert repository.blocks == str(fleet / name / ".ipfs" / "blocks")
    assert open_repository(str(fleet / "node041" / ".ipfs")) == NO_REPOSITORY
    assert open_repository(str(fleet / "nowhere")) == NO_REPOSITORY
    a_file = open_repository(str(fleet / "expected.json"))
    assert isinstance(a_file, Failure)
    assert a_file.code is FailureCode.READ_ERROR
    assert open_repository(None) == NO_REPOSITORY


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ({"type": "badgerds", "path": "badgerds"}, "badgerds"),
        ({"type": "measure", "child": {"type": "badgerds", "path": "badgerds"}}, "badgerds"),
        ({"type": "pebbleds", "path": "pebbleds"}, "pebbleds"),
        ({"type": "levelds", "path": "datastore"}, "levelds"),
        (
            {
                "type": "mount",
                "mounts": [
                    {"mountpoint": "/", "type": "levelds", "path": "datastore"},
                    {"mountpoint": "/blocks", "type": "s3ds"},
                ],
            },
            "s3ds",
        ),
        ({"type": "mount", "mounts": [{"mountpoint": "/", "type": "pebbleds"}]}, "pebbleds"),
        ({"type": "<script>\n"}, "unknown"),
    ],
)
def test_formats_that_only_the_nodes_software_reads(tmp_path: Path, spec: Any, kind: str) -> None:
    write_spec(tmp_path / ".ipfs", spec)
    repository = opened(tmp_path / ".ipfs")
    assert repository.format == kind
    assert not repository.readable


def test_the_config_speaks_where_there_is_no_specification(tmp_path: Path) -> None:
    path = tmp_path / ".ipfs"
    path.mkdir()
    flatfs = {"type": "flatfs", "path": "elsewhere", "shardFunc": "/repo/flatfs/shard/v1/prefix/3"}
    mounts = [
        {"mountpoint": "/blocks", "type": "measure", "child": flatfs},
        {"mountpoint": "/", "type": "measure", "child": {"type": "levelds"}},
    ]
    config = {"Datastore": {"Spec": {"type": "mount", "mounts": mounts}}}
    (path / "config").write_text(json.dumps(config))
    (path / "elsewhere").mkdir()
    (path / "elsewhere" / "_README").touch()
    repository = opened(path)
    assert repository.blocks == str(path / "elsewhere")
    assert repository.sharding == Sharding("prefix", 3)
    assert repository.version is None


def test_a_layout_beside_the_blocks_beats_the_declared_one(tmp_path: Path) -> None:
    store = Store(tmp_path, sharding="/repo/flatfs/shard/v1/suffix/4")
    assert opened(store.path).sharding == Sharding("suffix", 4)
    (store.blocks / "SHARDING").write_text("/repo/flatfs/shard/v9/other/4\n")
    assert not opened(store.path).readable
    (store.blocks / "SHARDING").write_bytes(b"\xff" * 100_000)
    found = open_repository(str(store.path))
    assert isinstance(found, Failure)
    assert "SHARDING names no layout" in found.sentence


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_blocks_that_are_not_there_are_not_blocks_that_never_were(
    kind: str, tmp_path: Path
) -> None:
    """A disk that is not mounted: content that a cure brings, not content that no node has."""
    store = Store(tmp_path, sharding="/repo/flatfs/shard/v1/suffix/4")
    declared = {"type": "flatfs", "path": "blocks", "shardFunc": "/repo/flatfs/shard/v1/suffix/4"}
    (Path(store.path) / "datastore_spec").write_text(json.dumps(declared))
    assert opened(store.path).readable
    shutil.rmtree(store.blocks)
    if kind != "missing":
        (store.blocks.mkdir if kind == "empty" else store.blocks.touch)()
    found = open_repository(str(store.path))
    assert isinstance(found, Failure)
    assert found.code is FailureCode.READ_ERROR
    assert "blocks" in found.sentence


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"type": "mount", "mounts": []}',
        '{"type": "mount", "mounts": [7]}',
        '{"child": ' * 9 + "1" + "}" * 9,
        "[" * 100_000,
        " " * 2_000_000,
        "\ufffe",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_hostile_specifications(tmp_path: Path, text: str) -> None:
    path = tmp_path / ".ipfs"
    path.mkdir()
    (path / "datastore_spec").write_text(text)
    failure = open_repository(str(path))
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.READ_ERROR


@pytest.mark.parametrize("name", ["datastore_spec", "config", "version", "blocks/SHARDING"])
def test_a_pipe_in_a_files_place_does_not_hang(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    if name == "config":
        (store.path / "datastore_spec").unlink()
    (store.path / name).unlink(missing_ok=True)
    os.mkfifo(store.path / name)
    found = open_repository(str(store.path))
    assert isinstance(found, Failure)
    assert "not a regular file" in found.sentence


@pytest.mark.parametrize(
    ("sharding", "shards"),
    [
        (Sharding("next-to-last", 2), {"ABCDEF": "DE", "AB": "_A", "A": "__"}),
        (Sharding("next-to-last", 3), {"ABCDEF": "CDE", "AB": "__A"}),
        (Sharding("prefix", 2), {"ABCDEF": "AB", "A": "A_"}),
        (Sharding("suffix", 3), {"ABCDEF": "DEF", "A": "__A"}),
    ],
)
def test_shards(sharding: Sharding, shards: dict[str, str]) -> None:
    shard = sharding.shard()
    assert {key: shard(key) for key in shards} == shards


def test_the_fingerprint_changes_with_the_blocks_only(fleet: Path) -> None:
    path = fleet / "node032" / ".ipfs"
    first = repository_fingerprint(str(path))
    assert len(first) == 32
    assert repository_fingerprint(str(path)) == first
    (path / "datastore" / "LOG").write_text("the daemon writes its log")
    (path / "api").write_text("/ip4/127.0.0.1/tcp/5001")
    os.utime(path / "blocks" / ".temp", ns=(1, 1))
    assert repository_fingerprint(str(path)) == first
    shard = next(entry for entry in (path / "blocks").iterdir() if len(entry.name) == 2)
    block = next(shard.iterdir())
    os.utime(shard, ns=(1, 1))
    before = repository_fingerprint(str(path))
    block.rename(shard / "other.data")
    renamed = repository_fingerprint(str(path))
    (path / "blocks" / "ZZ").mkdir()
    assert len({first, before, renamed, repository_fingerprint(str(path))}) == 4


def test_the_fingerprint_of_other_formats_and_of_none(tmp_path: Path) -> None:
    path = tmp_path / ".ipfs"
    seen = {repository_fingerprint(None)}
    assert repository_fingerprint(str(path)) in seen
    write_spec(path, {"type": "badgerds", "path": "badgerds"})
    seen.add(repository_fingerprint(str(path)))
    (path / "badgerds").mkdir()
    (path / "badgerds" / "000001.vlog").write_bytes(b"blocks")
    seen.add(repository_fingerprint(str(path)))
    (path / "badgerds" / "000001.vlog").write_bytes(b"more blocks")
    seen.add(repository_fingerprint(str(path)))
    (path / "api").write_text("/ip4/127.0.0.1/tcp/5001")
    seen.add(repository_fingerprint(str(path)))
    assert len(seen) == 5


def test_a_repository_that_appears_later(tmp_path: Path) -> None:
    before = repository_fingerprint(str(tmp_path / ".ipfs"))
    store = Store(tmp_path)
    empty = repository_fingerprint(str(store.path))
    store.put(leaf(b"token"))
    assert len({before, empty, repository_fingerprint(str(store.path))}) == 3
