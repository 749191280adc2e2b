"""Which TLS version a server speaks: asked by a handshake of our own.

The driver negotiates TLS for itself and does not tell the version; Azure SQL
refuses versions below the one its administrator set.  Sources: MS-TDS 2.2.6.5
(PRELOGIN) and 3.2 (the handshake travels in PRELOGIN packets, except in
TDS 8, "strict", where it comes first).
"""

from __future__ import annotations

import socket
import ssl
import struct
from typing import Final

from rubix_token_sync.targets.mssql.connection_string import DEFAULT_PORT, MssqlTarget

__all__ = ["tls_version"]

_PRELOGIN: Final = 0x12
_ENCRYPTION: Final = 1
_NOT_SUPPORTED: Final = 2
_SECONDS: Final = 10.0


def tls_version(target: MssqlTarget) -> str:
    """Such as ``TLSv1.2``; ``no TLS`` where the server offers none or none was asked for.

    The certificate is not looked at: the driver checks it at every login.

    Raises:
        OSError: the server could not be asked.
    """
    if target.encrypt == "no":
        return "no TLS"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host = target.server.partition("\\")[0]
    with socket.create_connection((host, target.port or DEFAULT_PORT), timeout=_SECONDS) as sock:
        if target.encrypt == "strict":
            context.set_alpn_protocols(["tds/8.0"])
            with context.wrap_socket(sock, server_hostname=host) as secure:
                return secure.version() or "no TLS"
        if _encryption_offered(sock) == _NOT_SUPPORTED:
            return "no TLS"
        return _handshake(sock, context, host)


def _encryption_offered(sock: socket.socket) -> int:
    # Version and encryption (ON), then the terminator; the values follow the headers.
    options = struct.pack(">BHHBHHB", 0, 11, 6, _ENCRYPTION, 17, 1, 0xFF)
    _send(sock, options + b"\0" * 6 + b"\1")
    answer = _receive(sock)
    at = 0
    while at + 5 <= len(answer) and answer[at] != 0xFF:
        token, offset, size = struct.unpack_from(">BHH", answer, at)
        if token == _ENCRYPTION and size:
            return int(answer[offset])
        at += 5
    return _NOT_SUPPORTED


def _handshake(sock: socket.socket, context: ssl.SSLContext, host: str) -> str:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secure = context.wrap_bio(incoming, outgoing, server_hostname=host)
    while True:
        try:
            secure.do_handshake()
            return secure.version() or "no TLS"
        except ssl.SSLWantReadError:
            _send(sock, outgoing.read())
            incoming.write(_receive(sock))


def _send(sock: socket.socket, data: bytes) -> None:
    sock.sendall(struct.pack(">BBHHBB", _PRELOGIN, 1, len(data) + 8, 0, 0, 0) + data)


def _receive(sock: socket.socket) -> bytes:
    parts = []
    while True:
        _kind, status, size = struct.unpack(">BBHxxxx", _exactly(sock, 8))
        parts.append(_exactly(sock, size - 8))
        if status & 1:
            return b"".join(parts)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise ConnectionResetError("The server hung up during the handshake.")
        data += part
    return data
