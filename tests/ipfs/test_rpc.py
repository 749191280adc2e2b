"""The daemon's API, against servers that do to us what a daemon or an impostor may do."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

from rubix_token_sync.ipfs.content import CONTENT_LIMIT, Failure, FailureCode
from rubix_token_sync.ipfs.fetch import ContentChain, ContentOptions, Resolved, open_chain
from rubix_token_sync.ipfs.http.client import Address, parse_multiaddr
from rubix_token_sync.ipfs.readers.daemon import (
    DaemonReader,
    authorization_header,
    configured_authorization,
)
from tests.ipfs.servers import (
    Behaviour,
    Request,
    Server,
    dripping,
    dripping_body,
    endless,
    hanging,
    holding,
    raw,
    refused_port,
    saying,
)
from tests.ipfs.trees import Store, cid_of, leaf, multihash, node, tree, unixfs

Serve = Callable[[Behaviour], Server]

BLOCK = leaf(b"token")
CID = cid_of(BLOCK)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "node" / ".ipfs"
    path.mkdir(parents=True)
    return path


def ask(
    repository: Path,
    ids: list[str],
    *,
    workers: int = 4,
    attempts: int = 1,
    timeout_s: float = 5.0,
    network: bool = False,
    secret: str | None = None,
) -> Resolved:
    reader = DaemonReader(
        str(repository),
        workers=workers,
        timeout_s=timeout_s,
        attempts=attempts,
        network=network,
        authorization=None if secret is None else SecretStr(secret),
    )
    with closing(ContentChain([reader])) as chain:
        return chain.resolve(ids)


def failure(done: Resolved) -> Failure:
    (only,) = done.failure
    assert done.data == [None]
    assert only is not None
    return only


def test_a_daemon_is_found_and_asked_offline(serve: Serve, repository: Path) -> None:
    content = os.urandom(CONTENT_LIMIT)
    blocks = tree(content, 8192)
    server = serve(holding([BLOCK, *blocks]))
    (repository / "api").write_text(server.multiaddr + "\n")
    absent = cid_of(b"absent").text
    done = ask(repository, [CID.text, cid_of(blocks[-1]).text, absent])
    assert done.data == [b"token", content, None]
    assert done.via == ["daemon", "daemon", ""]
    assert done.failure[2] is not None
    assert done.failure[2].code is FailureCode.NOT_IN_REPOSITORY
    assert set(server.methods) == {"POST"}
    assert all("offline=true" in path for path in server.requests)
    assert f"/api/v0/block/get?arg={CID.text}&offline=true" in server.requests


def test_a_daemon_gives_the_blocks_of_a_tree(serve: Serve, repository: Path) -> None:
    zeros = tree(bytes(700_000), 262_144)
    files = [(multihash(zeros[-1]), "large", 0), (CID.multihash, "small", 0)]
    directory = node(unixfs(1), files)
    server = serve(holding([BLOCK, *zeros, directory]))
    (repository / "api").write_text(server.multiaddr + "\n")
    reader = DaemonReader(str(repository), workers=4, timeout_s=5.0, attempts=1)
    with closing(ContentChain([reader])) as chain:
        found = chain.tree(cid_of(directory).text)
        assert (found.kind, found.size, found.files) == ("directory", 700_005, 2)
        assert len(server.requests) == found.blocks == 5  # two chunks of zeros are one block
        large = failure(chain.resolve([cid_of(zeros[-1]).text]))
    assert large.code is FailureCode.TOO_LARGE_TO_STORE
    (repository / "api").unlink()
    reader = DaemonReader(str(repository), workers=4, timeout_s=5.0, attempts=1)
    with closing(ContentChain([reader])) as chain:
        lost = chain.tree(cid_of(directory).text).failure
    assert lost is not None
    assert lost.code is FailureCode.DAEMON_NOT_RUNNING


def test_with_the_network_the_daemon_gets_a_time_limit(serve: Serve, repository: Path) -> None:
    server = serve(holding([BLOCK]))
    (repository / "api").write_text(server.multiaddr)
    assert ask(repository, [CID.text], network=True, timeout_s=2.5).data == [b"token"]
    assert server.requests == [f"/api/v0/block/get?arg={CID.text}&timeout=2.5s"]


def test_over_a_unix_socket(repository: Path) -> None:
    directory = tempfile.mkdtemp(prefix="rubix-")  # paths of sockets must be short
    socket_path = f"{directory}/api.sock"
    server = Server(holding([BLOCK]), unix=socket_path)
    try:
        (repository / "api").write_text(f"/unix{socket_path}")
        assert ask(repository, [CID.text, CID.text]).data == [b"token", b"token"]
    finally:
        server.stop()
        shutil.rmtree(directory)
    assert failure(ask(repository, [CID.text])).code is FailureCode.DAEMON_NOT_RUNNING


def test_no_daemon(repository: Path, tmp_path: Path) -> None:
    assert failure(ask(repository, [CID.text])).code is FailureCode.DAEMON_NOT_RUNNING
    nowhere = tmp_path / "nowhere"
    assert failure(ask(nowhere, [CID.text])).code is FailureCode.NO_REPOSITORY


def test_a_stale_address_costs_no_time(repository: Path) -> None:
    (repository / "api").write_text(f"/ip4/127.0.0.1/tcp/{refused_port()}")
    ids = [cid_of(leaf(b"%d" % index)).text for index in range(1000)]
    started = time.monotonic()
    done = ask(repository, ids, attempts=5)
    assert time.monotonic() - started < 1
    assert {found.code for found in done.failure if found} == {FailureCode.DAEMON_NOT_RUNNING}


def test_a_daemon_may_come_and_move_during_a_run(serve: Serve, repository: Path) -> None:
    reader = DaemonReader(str(repository), workers=1, timeout_s=5, attempts=1)
    with closing(reader):
        (answer,) = reader.read([CID])
        assert isinstance(answer, Failure)
        for server in (serve(holding([BLOCK])), serve(holding([BLOCK]))):
            (repository / "api").write_text(server.multiaddr)
            assert reader.read([CID]) == [b"token"]
            assert len(server.requests) == 1


ANSWERS: dict[str, tuple[Behaviour, FailureCode, int]] = {
    "wrong bytes": (saying(200, b"something else"), FailureCode.DAMAGED, 1),
    "nothing": (saying(200), FailureCode.DAMAGED, 1),
    "endless": (endless, FailureCode.TOO_LARGE, 1),
    "unauthorized": (saying(401), FailureCode.DAEMON_REFUSED, 1),
    "forbidden": (saying(403, b"403 - Forbidden"), FailureCode.DAEMON_REFUSED, 1),
    "another service": (saying(404), FailureCode.DAEMON_REFUSED, 1),
    "a gateway": (saying(405), FailureCode.DAEMON_REFUSED, 1),
    "a redirect": (saying(302, Location="http://127.0.0.1:1/"), FailureCode.DAEMON_REFUSED, 1),
    "an error": (saying(500, b'{"Message":"disk I/O error"}'), FailureCode.DAEMON_REFUSED, 2),
    "an error page": (saying(502, b"<html>"), FailureCode.DAEMON_REFUSED, 2),
    "nested JSON": (saying(500, b"[" * 100_000), FailureCode.DAEMON_REFUSED, 2),
    "no HTTP": (raw(b"+OK redis\r\n"), FailureCode.DAEMON_REFUSED, 2),
    "cut": (
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + BLOCK),
        FailureCode.DAEMON_REFUSED,
        2,
    ),
    "not found (old)": (
        saying(500, b'{"Message":"merkledag: not found"}'),
        FailureCode.NOT_IN_REPOSITORY,
        1,
    ),
    "not found (older)": (
        saying(500, b'{"Message":"blockstore: block not found"}'),
        FailureCode.NOT_IN_REPOSITORY,
        1,
    ),
    "not in time": (
        saying(500, b'{"Message":"context deadline exceeded"}'),
        FailureCode.TIMED_OUT,
        2,
    ),
}


@pytest.mark.parametrize(("behaviour", "code", "requests"), ANSWERS.values(), ids=ANSWERS.keys())
def test_what_answers_mean(
    serve: Serve, repository: Path, behaviour: Behaviour, code: FailureCode, requests: int
) -> None:
    server = serve(behaviour)
    (repository / "api").write_text(server.multiaddr)
    found = failure(ask(repository, [CID.text], attempts=2))
    assert found.code is code
    assert len(server.requests) == requests
    assert ("(tried 2 times)" in found.sentence) is (requests == 2)
    assert CID.text not in found.sentence


def test_an_error_that_passes(serve: Serve, repository: Path) -> None:
    answers = iter([500, 200])

    def second_time(request: Request) -> None:
        status = next(answers)
        request.answer(status, BLOCK if status == 200 else b"")

    (repository / "api").write_text(serve(second_time).multiaddr)
    assert ask(repository, [CID.text], attempts=2).data == [b"token"]


@pytest.mark.parametrize("slow", [hanging, dripping, dripping_body])
def test_a_daemon_that_hangs_costs_seconds(serve: Serve, repository: Path, slow: Behaviour) -> None:
    server = serve(slow)
    (repository / "api").write_text(server.multiaddr)
    ids = [cid_of(leaf(b"%d" % index)).text for index in range(1000)]
    started = time.monotonic()
    done = ask(repository, ids, attempts=3, timeout_s=0.3, workers=8)
    assert time.monotonic() - started < 4
    assert {found.code for found in done.failure if found} == {FailureCode.TIMED_OUT}
    assert len(server.requests) < 20


def test_absent_content_does_not_count_against_a_daemon(serve: Serve, repository: Path) -> None:
    blocks = [leaf(b"%d" % index) for index in range(100)]
    (repository / "api").write_text(serve(holding(blocks[50:])).multiaddr)
    done = ask(repository, [cid_of(block).text for block in blocks], workers=2)
    assert [data is None for data in done.data] == [True] * 50 + [False] * 50


def test_requests_share_connections_and_are_bounded(serve: Serve, repository: Path) -> None:
    blocks = [leaf(b"%d" % index) for index in range(300)]
    server = serve(holding(blocks))
    (repository / "api").write_text(server.multiaddr)
    done = ask(repository, [cid_of(block).text for block in blocks], workers=3)
    assert all(data is not None for data in done.data)
    assert server.busiest <= 3
    assert server.connections <= 3


def test_a_connection_that_was_closed_while_idle_is_no_failure(
    serve: Serve, repository: Path
) -> None:
    def once(request: Request) -> None:
        request.answer(200, BLOCK)
        request.close_connection = True  # without having said so

    (repository / "api").write_text(serve(once).multiaddr)
    assert ask(repository, [CID.text] * 20, workers=1).data == [b"token"] * 20


AUTHORIZATIONS = [
    ("bearer:tok:en", "Bearer tok:en"),
    ("basic:bob:pass:word", "Basic Ym9iOnBhc3M6d29yZA=="),
    ("basic:Ym9iOnB3", "Basic Ym9iOnB3"),
    ("Bearer token", "Bearer token"),
    ("bearer:a\r\nX: y", ""),
    ("", ""),
]


@pytest.mark.parametrize(("secret", "header"), AUTHORIZATIONS)
def test_authorizations_in_kubos_notation(secret: str, header: str) -> None:
    assert authorization_header(secret) == header


def guarded(request: Request) -> None:
    if request.headers.get("Authorization") == "Bearer hunter2":
        request.answer(200, BLOCK)
    else:
        request.answer(403)


def test_a_daemon_that_demands_an_authorization(serve: Serve, repository: Path) -> None:
    (repository / "api").write_text(serve(guarded).multiaddr)
    refused = failure(ask(repository, [CID.text], secret="bearer:wrong-secret"))
    assert refused.code is FailureCode.DAEMON_REFUSED
    assert "authorization" in refused.sentence
    assert "wrong-secret" not in str(refused)


def test_an_authorization_of_the_settings(serve: Serve, repository: Path) -> None:
    (repository / "api").write_text(serve(guarded).multiaddr)
    assert ask(repository, [CID.text], secret="bearer:hunter2").data == [b"token"]


def test_an_authorization_of_the_nodes_own_config(serve: Serve, repository: Path) -> None:
    authorizations = {
        "other": {"AuthSecret": "bearer:other", "AllowedPaths": ["/api/v0/pin"]},
        "us": {"AuthSecret": "bearer:hunter2", "AllowedPaths": ["/api/v0/block"]},
    }
    config = repository / "config"
    config.write_text(json.dumps({"API": {"Authorizations": authorizations}}))
    (repository / "api").write_text(serve(guarded).multiaddr)
    assert ask(repository, [CID.text]).data == [b"token"]
    # A link would lead to another node's secret.
    config.rename(repository.parent / "elsewhere")
    config.symlink_to(repository.parent / "elsewhere")
    assert configured_authorization(str(repository)) == ""


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"API": null}', '{"API": {"Authorizations": {"x": 1}}}'],
)
def test_hostile_configs_give_no_authorization(repository: Path, text: str) -> None:
    (repository / "config").write_text(text)
    assert configured_authorization(str(repository)) == ""


def test_only_this_machine_is_spoken_to(repository: Path) -> None:
    for address in (
        "/ip4/192.0.2.1/tcp/5001",
        "/dns4/example.org/tcp/80",
        "/ip6/2001:db8::1/tcp/1",
    ):
        (repository / "api").write_text(address)
        started = time.monotonic()
        found = failure(ask(repository, [CID.text], timeout_s=30))
        assert time.monotonic() - started < 1
        assert found.code is FailureCode.DAEMON_REFUSED
        assert "not on this machine" in found.sentence


@pytest.mark.parametrize("text", ["", "http://127.0.0.1", "/ip4/127.0.0.1/udp/5001", "\0" * 5000])
def test_addresses_of_unknown_kinds(repository: Path, text: str) -> None:
    (repository / "api").write_text(text)
    assert failure(ask(repository, [CID.text])).code is FailureCode.DAEMON_REFUSED


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/ip4/127.0.0.1/tcp/5001", Address("http", "127.0.0.1", 5001)),
        ("/ip4/0.0.0.0/tcp/5001\n", Address("http", "127.0.0.1", 5001)),
        ("/ip6/::1/tcp/5001", Address("http", "::1", 5001)),
        ("/ip6/::/tcp/5001", Address("http", "::1", 5001)),
        ("/dns4/localhost/tcp/5001/http", Address("http", "localhost", 5001)),
        ("/dns/ipfs.example.org/tcp/443/https", Address("https", "ipfs.example.org", 443)),
        ("/dns6/x/tcp/443/tls/http", Address("https", "x", 443)),
        ("/unix/run/ipfs.sock", Address("unix", "/run/ipfs.sock")),
        ("/ip4/::1/tcp/5001", None),
        ("/ip4/127.0.0.1/tcp/0", None),
        ("/ip4/127.0.0.1/tcp/65536", None),
        ("/ip4/127.0.0.1/tcp/5001/ws", None),
        ("/ip4/999.0.0.1/tcp/5001", None),
        ("/dns4/a b/tcp/80", None),
        ("/unix/", None),
        ("/unix/a\0b", None),
    ],
)
def test_multiaddrs(text: str, address: Address | None) -> None:
    assert parse_multiaddr(text) == address


def test_what_is_on_this_machine() -> None:
    assert Address("unix", "/run/ipfs.sock").local
    assert Address("http", "127.8.9.1", 1).local
    assert Address("http", "::1", 1).local
    assert Address("http", "localhost", 1).local
    assert not Address("http", "192.0.2.1", 1).local
    assert not Address("http", "localhost.example.org", 1).local


def test_hostile_ids_reach_no_daemon(serve: Serve, repository: Path) -> None:
    server = serve(holding([BLOCK]))
    (repository / "api").write_text(server.multiaddr)
    hostile = ["--help", "../..", "-o/x", "a\r\nb", f"{CID.text}&timeout=9h", "x" * 1_000_000]
    assert ask(repository, hostile).data == [None] * len(hostile)
    assert server.requests == []


def test_a_damaged_block_is_healed_by_the_daemon(serve: Serve, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"damaged", raw=CID.multihash)
    (store.path / "api").write_text(serve(holding([BLOCK])).multiaddr)
    with closing(open_chain(str(store.path), ContentOptions())) as chain:
        done = chain.resolve([CID.text])
    assert (done.data, done.via, done.healed) == ([b"token"], ["daemon"], 1)


@pytest.mark.long
def test_absent_content_and_a_dead_daemon_cost_little(tmp_path: Path) -> None:
    """1 % absent, the daemon dead: within 1.5 times the time with none absent."""
    store = Store(tmp_path)
    count = 100_000
    ids = [store.put(leaf(b"%067d" % index)).text for index in range(count)]
    (store.path / "api").write_text(f"/ip4/127.0.0.1/tcp/{refused_port()}")
    mixed = list(ids)
    for index in range(0, count, 100):
        mixed[index] = cid_of(b"%d" % index).text

    def seconds(wanted: list[str]) -> float:
        started = time.perf_counter()
        with closing(open_chain(str(store.path), ContentOptions())) as chain:
            for at in range(0, count, 2000):
                done = chain.resolve(wanted[at : at + 2000])
                assert sum(data is None for data in done.data) == (wanted is mixed) * 20
        return time.perf_counter() - started

    seconds(ids)  # warms the system's caches
    # By turns, the best of each: what else the machine does is not ours.
    turns = [(seconds(ids), seconds(mixed)) for _ in range(5)]
    assert min(with_absent for _, with_absent in turns) < 1.5 * min(whole for whole, _ in turns)
