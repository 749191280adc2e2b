"""Gateways: honest ones serve, lying ones never get a byte through."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.ipfs.content import CONTENT_LIMIT, FailureCode
from rubix_token_sync.ipfs.fetch import ContentChain, ContentOptions, Resolved, open_chain
from rubix_token_sync.ipfs.http import client
from rubix_token_sync.ipfs.readers.gateway import GatewayReader
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
from tests.ipfs.trees import Store, cid_of, leaf, tree

Serve = Callable[[Behaviour], Server]

CONTENT = b"0014c362f0949fb7eb7aa51448bbb28495c29eb13c65581d45e4eadaf0195614337"
BLOCK = leaf(CONTENT)
CID = cid_of(BLOCK)


def ask(
    urls: list[str],
    ids: list[str],
    *,
    workers: int = 4,
    attempts: int = 1,
    timeout_s: float = 5.0,
) -> Resolved:
    reader = GatewayReader(urls, workers=workers, timeout_s=timeout_s, attempts=attempts)
    with closing(ContentChain([reader])) as chain:
        return chain.resolve(ids)


def code(done: Resolved) -> FailureCode:
    (failure,) = done.failure
    assert done.data == [None]
    assert failure is not None
    return failure.code


def test_an_honest_gateway(serve: Serve) -> None:
    content = os.urandom(CONTENT_LIMIT)
    blocks = tree(content, 8192)
    server = serve(holding([BLOCK, *blocks]))
    done = ask([server.url], [CID.text, cid_of(blocks[-1]).text])
    assert done.data == [CONTENT, content]
    assert done.via == ["gateway", "gateway"]
    assert f"/ipfs/{CID.text}?format=raw" in server.requests
    assert set(server.methods) == {"GET"}
    assert all(got["Accept"] == "application/vnd.ipld.raw" for got in server.headers)
    assert not any("Authorization" in got for got in server.headers)


def test_connections_are_kept_and_bounded(serve: Serve) -> None:
    blocks = [leaf(b"token %d" % index) for index in range(200)]
    server = serve(holding(blocks))
    done = ask([server.url], [cid_of(block).text for block in blocks], workers=4)
    assert all(data is not None for data in done.data)
    assert server.busiest <= 4
    assert server.connections <= 4


LIES: dict[str, Behaviour] = {
    "wrong bytes": saying(200, leaf(b"something else")),
    "one bit": saying(200, BLOCK[:-1] + bytes((BLOCK[-1] ^ 1,))),
    "content instead of the block": saying(200, CONTENT),
    "nothing": saying(200),
    "HTML": saying(200, b"<html><body>Please log in</body></html>", Content_Type="text/html"),
    "too short": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n" + BLOCK[:30]),
    "too short, chunked": raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4b\r\n" + BLOCK[:30]
    ),
    "too long": saying(200, BLOCK + b"x"),
    "cut at the limit": saying(200, bytes(client.MAX_BODY + 10)),
    "endless": endless,
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "closed at once": raw(b""),
    "a chunk of a size that no memory has": raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx"
    ),
    "a negative length": raw(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + BLOCK[:30]),
    "a thousand headers": raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n"),
    "a status of no sense": raw(b"HTTP/1.1 999999 OK\r\n\r\n"),
    "an error page": saying(500, b"<html>"),
    "a teapot": saying(418),
    "forbidden": saying(403),
    "partial": saying(206, BLOCK[:30]),
    "busy": saying(429, Retry_After="3600"),
    "down": saying(503, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_no_lie_gets_a_byte_through(serve: Serve, lie: Behaviour) -> None:
    liar = serve(lie)
    assert code(ask([liar.url], [CID.text])) is FailureCode.GATEWAY_FAILED
    assert len(liar.requests) == 1


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_behind_a_liar_an_honest_one_is_asked(serve: Serve, lie: Behaviour) -> None:
    liar, honest = serve(lie), serve(holding([BLOCK]))
    done = ask([liar.url, honest.url], [CID.text])
    assert done.data == [CONTENT]
    assert done.via == ["gateway"]


@pytest.mark.parametrize("slow", [hanging, dripping, dripping_body])
def test_slowness_is_bounded_in_all_not_by_the_byte(serve: Serve, slow: Behaviour) -> None:
    server = serve(slow)
    started = time.monotonic()
    done = ask([server.url], [CID.text], timeout_s=0.4)
    assert code(done) is FailureCode.TIMED_OUT
    assert time.monotonic() - started < 3


def test_redirects_are_not_followed(serve: Serve) -> None:
    elsewhere = serve(holding([BLOCK]))
    for status in (301, 302, 303, 307, 308):
        target = f"{elsewhere.url}/ipfs/{CID.text}?format=raw"
        server = serve(saying(status, Location=target))
        assert code(ask([server.url], [CID.text])) is FailureCode.GATEWAY_FAILED
    assert elsewhere.requests == []


def test_a_liar_is_left_alone(serve: Serve) -> None:
    blocks = [leaf(b"token %d" % index) for index in range(50)]
    liar, honest = serve(saying(200, b"lie")), serve(holding(blocks))
    done = ask([liar.url, honest.url], [cid_of(block).text for block in blocks], workers=1)
    assert all(data is not None for data in done.data)
    assert len(liar.requests) == 1
    assert len(honest.requests) == 50


def test_the_healthiest_is_asked_first(serve: Serve) -> None:
    blocks = [leaf(b"token %d" % index) for index in range(60)]
    empty, full = serve(saying(500)), serve(holding(blocks))
    dead = f"http://127.0.0.1:{refused_port()}"
    ids = [cid_of(block).text for block in blocks]
    done = ask([dead, empty.url, full.url], ids, workers=1)
    assert all(data is not None for data in done.data)
    assert len(empty.requests) < 5
    assert len(full.requests) == 60


def test_what_may_pass_is_tried_again_and_nothing_else(serve: Serve) -> None:
    answers = iter([500, 502, 200])

    def third_time(request: Request) -> None:
        status = next(answers)
        request.answer(status, BLOCK if status == 200 else b"")

    server = serve(third_time)
    assert ask([server.url], [CID.text], attempts=3).data == [CONTENT]
    assert len(server.requests) == 3
    for status, attempts in ((500, 3), (404, 1), (403, 1), (418, 1), (302, 1)):
        server = serve(saying(status))
        assert ask([server.url], [CID.text], attempts=3).data == [None]
        assert len(server.requests) == attempts, status


def test_a_failure_says_how_often_it_was_tried(serve: Serve) -> None:
    done = ask([serve(saying(500)).url], [CID.text], attempts=2)
    (failure,) = done.failure
    assert str(failure) == (
        "gateway_failed: the gateway 127.0.0.1 answered with an error (HTTP 500) (tried 2 times)"
    )


def test_a_short_retry_after_is_heeded(serve: Serve) -> None:
    moments: list[float] = []

    def second_time(request: Request) -> None:
        moments.append(time.monotonic())
        if len(moments) == 1:
            request.answer(429, Retry_After="1")
        else:
            request.answer(200, BLOCK)

    done = ask([serve(second_time).url], [CID.text], attempts=2)
    assert done.data == [CONTENT]
    assert 1.0 <= moments[1] - moments[0] < 3.0


def test_a_long_retry_after_costs_nothing(serve: Serve) -> None:
    server = serve(saying(429, Retry_After="3600"))
    blocks = [leaf(b"token %d" % index) for index in range(100)]
    started = time.monotonic()
    done = ask([server.url], [cid_of(block).text for block in blocks], workers=1, attempts=5)
    assert time.monotonic() - started < 2
    assert {failure.code for failure in done.failure if failure} == {FailureCode.GATEWAY_FAILED}
    assert len(server.requests) == 1


def test_a_dead_gateway_costs_seconds_for_all_nodes_together(serve: Serve) -> None:
    server = serve(hanging)
    ids = [cid_of(leaf(b"token %d" % index)).text for index in range(200)]
    started = time.monotonic()
    for _ in range(3):  # one chain a database
        done = ask([server.url], ids, workers=8, timeout_s=0.3, attempts=3)
        assert {failure.code for failure in done.failure if failure} == {FailureCode.TIMED_OUT}
    assert time.monotonic() - started < 5
    assert len(server.requests) <= 16


def test_absent_everywhere_is_told_as_that(serve: Serve) -> None:
    servers = [serve(saying(404)), serve(saying(410))]
    done = ask([server.url for server in servers], [CID.text], attempts=3)
    assert code(done) is FailureCode.NOT_IN_REPOSITORY
    assert [len(server.requests) for server in servers] == [1, 1]


def test_its_own_time_out_is_not_its_fault(serve: Serve) -> None:
    server = serve(saying(504))
    ids = [cid_of(leaf(b"token %d" % index)).text for index in range(20)]
    done = ask([server.url], ids, workers=2)
    assert {failure.code for failure in done.failure if failure} == {FailureCode.TIMED_OUT}
    assert len(server.requests) == 20


def test_large_content_is_told_as_that_when_proven(serve: Serve) -> None:
    block = leaf(bytes(CONTENT_LIMIT + 1))
    zeros = tree(bytes(700_000), 262_144)
    server = serve(holding([block, *zeros]))
    for asked in (block, zeros[-1]):
        assert code(ask([server.url], [cid_of(asked).text])) is FailureCode.TOO_LARGE_TO_STORE
    assert len(server.requests) == 2 + 2 + 2  # each root twice, two different blocks below one


def test_large_content_that_is_not_whole_is_not_there(serve: Serve) -> None:
    *_, last, root = tree(bytes(700_000), 262_144)
    server = serve(holding([last, root]))
    assert code(ask([server.url], [cid_of(root).text])) is FailureCode.NOT_IN_REPOSITORY


def test_hostile_ids_reach_no_gateway(serve: Serve) -> None:
    server = serve(holding([BLOCK]))
    hostile = ["--help", "../..", f"{CID.text}/../../api", "a\r\nHost: x", "x" * 1_000_000, "%2e"]
    assert ask([server.url], hostile).data == [None] * len(hostile)
    assert server.requests == []


def test_gateways_are_asked_with_the_network_only(serve: Serve, tmp_path: Path) -> None:
    server = serve(holding([BLOCK]))
    store = Store(tmp_path)
    for network in (False, True):
        options = ContentOptions(gateways=(server.url,), network=network, attempts=1)
        with closing(open_chain(str(store.path), options)) as chain:
            done = chain.resolve([CID.text])
        assert (done.data == [CONTENT]) is network
    assert len(server.requests) == 1


def test_a_damaged_block_is_healed_and_said_so(serve: Serve, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(b"damaged", raw=CID.multihash)
    options = ContentOptions(gateways=(serve(holding([BLOCK])).url,), network=True)
    with closing(open_chain(str(store.path), options)) as chain:
        done = chain.resolve([CID.text])
    assert done.data == [CONTENT]
    assert done.via == ["gateway"]
    assert done.healed == 1
    assert "damaged" in done.notes[0]


def test_paths_and_passwords_in_addresses(serve: Serve) -> None:
    server = serve(holding([BLOCK]))
    url = f"http://me:s%3Acret@127.0.0.1:{server.port}/node/"
    assert ask([url], [CID.text]).data == [CONTENT]
    assert server.requests == [f"/node/ipfs/{CID.text}?format=raw"]
    assert server.headers[0]["Authorization"] == "Basic bWU6czpjcmV0"
    gone = ask([f"http://me:secret@127.0.0.1:{refused_port()}"], [CID.text])
    assert "secret" not in str(gone.failure[0])
    assert "secret" not in repr(ContentOptions(gateways=(url,)))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host",
        "file:///etc/passwd",
        "https://",
        "https://ho st",
        "https://host/ipfs/?x=secret",
        "https://host/#secret",
        "https://host:99999",
        "https://host/../../secret",
        "https://host/a%0d%0ab",
        "http://host/\r\nX: secret",
    ],
)
def test_what_is_no_gateway(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        GatewayReader([url], workers=1, timeout_s=1, attempts=1)
    assert "secret" not in str(caught.value)


def test_tls_is_checked(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = Server(holding([BLOCK]), tls=context)
    try:
        url = f"https://localhost:{server.port}"
        assert code(ask([url], [CID.text])) is FailureCode.GATEWAY_FAILED
        assert server.requests == []
        trusting = ssl.create_default_context(cafile=str(certificate))
        trusting.sslsocket_class = client._tls().sslsocket_class
        monkeypatch.setattr(client, "_tls", lambda: trusting)
        assert ask([url], [CID.text]).data == [CONTENT]
    finally:
        server.stop()


def _certificate(directory: Path) -> Path:
    """A certificate for localhost that nobody has signed but itself."""
    x509 = pytest.importorskip("cryptography.x509")
    import datetime

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = directory / "localhost.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file


@given(st.text())
def test_no_text_makes_reading_addresses_raise(text: str) -> None:
    address = client.parse_url(text)
    assert address is None or address.scheme in ("http", "https")
    found = client.parse_multiaddr(text)
    assert found is None or found.host
