"""The files of a repository are hostile input: each gives an answer, none an exception."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.ipfs.content import Failure, FailureCode
from rubix_token_sync.ipfs.fetch import ContentOptions, open_chain
from rubix_token_sync.ipfs.http.client import parse_multiaddr
from rubix_token_sync.ipfs.readers.daemon import configured_authorization
from rubix_token_sync.ipfs.repository import Repository, open_repository, repository_fingerprint
from rubix_token_sync.ipfs.repository_files import MalformedFileError, parse_datastore

CID = "QmNLoNtdmWt9dYeZ6JAbw3tobVGSJcvnuPR1PGaGwu26Xw"
NAMES = ("datastore_spec", "config", "version", "api", "blocks/SHARDING")
KEYS = [
    "mounts", "mountpoint", "type", "path", "child", "shardFunc", "Datastore", "Spec", "API",
    "Authorizations", "AuthSecret", "AllowedPaths",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, -1, 10**30, 1e308, "", "/blocks", "/", "flatfs", "badgerds", "measure", "blocks",
    "a\0b", "\ud800", "x" * 5000, "/repo/flatfs/shard/v1/next-to-last/2", [], {}, "..", "/dev/zero",
]  # fmt: skip

scalars = st.sampled_from(VALUES)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=12,
)


@given(trees)
def test_any_specification_is_understood_or_refused(spec: object) -> None:
    with contextlib.suppress(MalformedFileError):
        store = parse_datastore(spec)
        for text in (store.kind, store.path or "", store.shard_func):
            text.encode()
            assert "\0" not in text


def _repository(directory: Path) -> Path:
    repository = directory / ".ipfs"
    (repository / "blocks").mkdir(parents=True)
    (repository / "version").write_text("16\n")
    (repository / "config").write_text("{}")
    return repository


def _survives(repository: Path) -> None:
    found = open_repository(str(repository))
    assert isinstance(found, Repository | Failure)
    assert len(repository_fingerprint(str(repository))) == 32
    configured_authorization(str(repository)).encode("ascii")
    options = ContentOptions(ways=("blockstore", "daemon"), network=True, timeout_s=0.2, attempts=1)
    chain = open_chain(str(repository), options)
    (failure,) = chain.resolve([CID]).failure
    chain.close()
    assert failure is not None
    assert failure.code is not FailureCode.NO_CID


def _fuzz(repository: Path, chance: random.Random) -> None:
    name = chance.choice(NAMES)
    if chance.random() < 0.5:
        text = json.dumps(_tree(chance, 4)).encode()
        data = bytearray(text)
    else:
        data = bytearray(chance.randbytes(chance.randrange(200)))
    for _ in range(chance.randrange(3)):
        if data:
            data[chance.randrange(len(data))] = chance.randrange(256)
    (repository / name).write_bytes(bytes(data))
    _survives(repository)


def _tree(chance: random.Random, depth: int) -> object:
    kind = chance.randrange(3) if depth else 0
    if kind == 0:
        return chance.choice(VALUES)
    if kind == 1:
        return [_tree(chance, depth - 1) for _ in range(chance.randrange(3))]
    return {chance.choice(KEYS): _tree(chance, depth - 1) for _ in range(chance.randrange(4))}


def test_fuzzed(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance, repository = random.Random(seed), _repository(tmp_path)
    for _ in range(150):
        _fuzz(repository, chance)


@pytest.mark.long
def test_fuzzed_for_long(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance, repository = random.Random(seed), _repository(tmp_path)
    for _ in range(6_000):
        _fuzz(repository, chance)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"Datastore":' * 500 + "1" + "}" * 500,
        '{"mounts": ' + "9" * 10_000 + "}",
        '{"mounts": NaN}',
        '"text"',
        "\ufeff{}",
        "{} " * 400_000,
    ],
)
def test_what_no_parser_should_take(text: str, tmp_path: Path) -> None:
    repository = _repository(tmp_path)
    (repository / "datastore_spec").write_text(text)
    found = open_repository(str(repository))
    assert isinstance(found, Failure)
    assert found.code is FailureCode.READ_ERROR
    assert "datastore" in found.sentence


@pytest.mark.parametrize(
    "text", ["/dns4/a..b/tcp/5001", "/dns4/.a/tcp/5001", "/dns4/" + "a" * 64 + "/tcp/1", "/unix/\0"]
)
def test_hosts_that_no_name_server_takes(text: str) -> None:
    assert parse_multiaddr(text) is None
