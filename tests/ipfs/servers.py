"""HTTP servers for tests: each does to a request what its behaviour says."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.ipfs.trees import cid_of


class Request(BaseHTTPRequestHandler):
    """One request, as a behaviour sees it."""

    protocol_version = "HTTP/1.1"
    server: Any

    def setup(self) -> None:
        if self.request.family != socket.AF_UNIX:
            # Header and body are written apart; together they must not wait for each other.
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().setup()
        with self.server.owner.lock:
            self.server.owner.connections += 1
        self.connection.settimeout(30)

    def _handle(self) -> None:
        owner: Server = self.server.owner
        with owner.lock:
            owner.requests.append(self.path)
            owner.methods.append(self.command)
            owner.headers.append(dict(self.headers.items()))
            owner.busy += 1
            owner.busiest = max(owner.busiest, owner.busy)
        try:
            owner.behaviour(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with owner.lock:
                owner.busy -= 1

    do_GET = _handle
    do_POST = _handle

    @property
    def cid(self) -> str:
        """The id that is asked for, of a gateway or a daemon."""
        url = urlsplit(self.path)
        if "arg" in (query := parse_qs(url.query)):
            return query["arg"][0]
        return url.path.rsplit("/", 1)[-1]

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Tests look at what was asked; nobody reads a log."""


Behaviour = Callable[[Request], None]


class _Listening(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


class _ListeningUnix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self) -> tuple[socket.socket, Any]:
        request, _ = super().get_request()
        return request, ("unix", 0)


@dataclass
class Server:
    """A server in a thread; remembers what it was asked."""

    behaviour: Behaviour
    unix: str | None = None
    tls: ssl.SSLContext | None = None
    requests: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: int = 0
    busy: int = 0
    busiest: int = 0

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.released = threading.Event()  # ends behaviours that hang
        self._server: Any
        if self.unix is not None:
            self._server = _ListeningUnix(self.unix, Request)
        else:
            self._server = _Listening(("127.0.0.1", 0), Request)
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def port(self) -> int:
        port: int = self._server.server_address[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def multiaddr(self) -> str:
        return f"/ip4/127.0.0.1/tcp/{self.port}"

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def holding(blocks: Iterable[bytes]) -> Behaviour:
    """A gateway or a daemon that has these blocks, and says so as Kubo does."""
    held = {cid_of(block).text: block for block in blocks}

    def behave(request: Request) -> None:
        block = held.get(request.cid)
        if block is not None:
            request.answer(200, block, Content_Type="application/vnd.ipld.raw")
        elif request.command == "POST":
            message = '{"Message":"block was not found locally (offline): ipld: could not find x"}'
            request.answer(500, message.encode(), Content_Type="application/json")
        else:
            request.answer(404, b"not found")

    return behave


def saying(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """The same answer to everything."""
    return lambda request: request.answer(status, body, **headers)


def hanging(request: Request) -> None:
    """Never answers."""
    request.server.owner.released.wait(30)
    request.close_connection = True


def dripping(request: Request) -> None:
    """A header that never ends, a byte now and then."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    owner: Server = request.server.owner
    while not owner.released.wait(0.05):
        request.wfile.write(b"x")
        request.wfile.flush()
    request.close_connection = True


def dripping_body(request: Request) -> None:
    """A body that comes a byte at a time."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    owner: Server = request.server.owner
    while not owner.released.wait(0.05):
        request.wfile.write(b"x")
        request.wfile.flush()
    request.close_connection = True


def endless(request: Request) -> None:
    """A chunked body without an end."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    owner: Server = request.server.owner
    while not owner.released.is_set():
        request.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")
    request.close_connection = True


def raw(answer: bytes) -> Behaviour:
    """These bytes, then the connection is closed."""

    def behave(request: Request) -> None:
        request.wfile.write(answer)
        request.wfile.flush()
        request.close_connection = True

    return behave


def refused_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def servers() -> Iterator[Callable[[Behaviour], Server]]:
    """Starts servers on this machine; they end with the context."""
    started: list[Server] = []

    def start(behaviour: Behaviour) -> Server:
        started.append(Server(behaviour))
        return started[-1]

    yield start
    for server in started:
        server.stop()
