"""A small TDS server that Microsoft's own driver and its bulk copy talk to.

One thread a connection; login, TLS, batches, parameterised calls, transactions
and bulk loads are answered from an `Engine`.  It is a tool for faults (see
`.faults`), not a database; its source is MS-TDS.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from . import wire
from .faults import Count, Drop, Fault, HalfPacket, Refuse, RefuseInside, Stall

BATCH, RPC, REPLY, ATTENTION, BULK, TRANSACTION, LOGIN, PRELOGIN = (
    0x01, 0x03, 0x04, 0x06, 0x07, 0x0E, 0x10, 0x12,
)  # fmt: skip
_PROCEDURES = {
    10: "sp_executesql", 11: "sp_prepare", 12: "sp_execute", 13: "sp_prepexec", 15: "sp_unprepare",
}  # fmt: skip


@dataclass
class RunResult:
    """One statement's result: a row set (``names`` given) or a count (-1: none)."""

    count: int = -1
    names: Sequence[str] = ()
    kinds: Sequence[wire.Type] = ()
    rows: Sequence[Sequence[Any]] = ()


@dataclass
class EngineError(Exception):
    """What the engine refuses, as the server would say it."""

    number: int
    text: str
    severity: int = 16


class Session(Protocol):
    """One connection's state in the engine."""

    def execute(self, sql: str, parameters: dict[str, Any]) -> list[RunResult]:
        """Run a batch; raises EngineError."""

    def begin(self) -> None: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...

    def bulk(self, statement: str, names: Sequence[str], rows: list[tuple[Any, ...]]) -> int:
        """Store the rows of a bulk load, return their count."""

    def in_transaction(self) -> bool: ...
    def close(self) -> None: ...


class Engine(Protocol):
    def session(self) -> Session: ...


class _Gone(Exception):
    """The client hung up, or a fault wants us to."""


@dataclass
class TdsServer:
    """Listens on 127.0.0.1; use as a context manager.

    ``log`` holds every statement in order; ``turns`` how each message of a client
    begins, none of which is sent before the one before it is answered, and ``packets`` in
    how many packets it came; ``logins`` every
    (user, password, database, encrypted); ``open`` is the number of connections now,
    ``most_open`` the largest number so far.
    """

    engine: Engine
    certificate: str
    key: str
    encryption: bool = True
    packet_bytes: int | None = None
    user: str = "rubix"
    password: str = "p;w}d'\"=ü"
    faults: list[Fault] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    turns: list[str] = field(default_factory=list)
    packets: list[int] = field(default_factory=list)
    logins: list[tuple[str, str, str, bool]] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    port: int = 0

    def __enter__(self) -> TdsServer:
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Inside TDS 7.4 the handshake travels in packets, which ends with TLS 1.2.
        self._tls.maximum_version = ssl.TLSVersion.TLSv1_2
        self._tls.load_cert_chain(self.certificate, self.key)
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=10)
        self._listener.close()
        if self.errors:
            raise self.errors[0]

    def due(self, at: str, text: str = "") -> Any:
        """The action of the first fault that is due here."""
        with self._lock:
            for fault in self.faults:
                if fault.due(at, text):
                    return fault.action
        return None

    def _accept(self) -> None:
        while not self._stopping.is_set():
            if not select.select([self._listener], [], [], 0.05)[0]:
                continue
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        try:
            with client:
                _Conversation(self, client, self._stopping, self._tls).run()
        except (_Gone, OSError):
            pass  # the client hung up: how conversations end
        except BaseException as error:  # noqa: BLE001 - raised when the server is stopped
            self.errors.append(error)
        finally:
            with self._lock:
                self.open -= 1


class _Conversation:
    def __init__(
        self,
        server: TdsServer,
        client: socket.socket,
        stopping: threading.Event,
        tls: ssl.SSLContext,
    ) -> None:
        self.server = server
        self.client = client
        self.stopping = stopping
        self.tls = tls
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.secure: ssl.SSLObject | None = None
        self.plain = b""
        self.packet_bytes = 4096
        self.prepared: dict[int, str] = {}
        self.bulk_statement = ""
        self.session: Session | None = None

    # ------------------------------------------------------------ bytes and packets

    def _socket_bytes(self) -> bytes:
        while not self.stopping.is_set():
            if select.select([self.client], [], [], 0.05)[0]:
                data = self.client.recv(65536)
                if not data:
                    raise _Gone
                return data
        raise _Gone

    def _read(self, size: int) -> bytes:
        while len(self.plain) < size:
            if self.secure is None:
                self.plain += self._socket_bytes()
                continue
            try:
                data = self.secure.read(65536)
                if not data:
                    raise _Gone
                self.plain += data
            except ssl.SSLWantReadError:
                self.incoming.write(self._socket_bytes())
            except ssl.SSLError:
                raise _Gone from None
        part, self.plain = self.plain[:size], self.plain[size:]
        return part

    def _write(self, data: bytes) -> None:
        if self.secure is not None:
            for at in range(0, len(data), 16384):
                self.secure.write(data[at : at + 16384])
            data = self.outgoing.read()
        self.client.sendall(data)

    def _message(self) -> tuple[int, bytes]:
        parts = []
        while True:
            kind, status, size = struct.unpack(">BBHxxxx", self._read(8))
            parts.append(self._read(size - 8))
            if status & 1:
                self.server.turns.append(_beginning(kind, parts[0]))
                self.server.packets.append(len(parts))
                return kind, b"".join(parts)

    def _packets(self, payload: bytes, kind: int = REPLY) -> bytes:
        room = self.packet_bytes - 8
        parts = [payload[at : at + room] for at in range(0, len(payload), room)] or [b""]
        return b"".join(
            struct.pack(">BBHHBB", kind, number == len(parts), len(part) + 8, 0, number % 256, 0)
            + part
            for number, part in enumerate(parts, 1)
        )

    def _send(self, payload: bytes, kind: int = REPLY) -> None:
        self._write(self._packets(payload, kind))

    # ------------------------------------------------------------ the conversation

    def run(self) -> None:
        self._act(self.server.due("connect"))
        self._prelogin()
        if not self._login():
            return
        self.session = self.server.engine.session()
        try:
            while True:
                self._answer(*self._message())
        finally:
            self.session.close()

    def _act(self, action: Any) -> None:
        """Faults that happen before anything is done."""
        if isinstance(action, Stall):
            while True:
                self._socket_bytes()
        if isinstance(action, Drop) and not action.after:
            raise _Gone

    def _prelogin(self) -> None:
        _kind, data = self._message()
        wanted = _prelogin_option(data, 1)
        wanted_byte = wanted[0] if wanted else 0
        encrypt = self.server.encryption
        answer = 1 if encrypt else 2
        options = [(0, bytes([16, 0, 4, 0, 0, 0])), (1, bytes([answer])), (2, b"\0"), (4, b"\0")]
        at = 5 * len(options) + 1
        head, body = b"", b""
        for token, value in options:
            head += struct.pack(">BHH", token, at + len(body), len(value))
            body += value
        self._send(head + b"\xff" + body)
        if encrypt and wanted_byte != 2:
            self._handshake()

    def _handshake(self) -> None:
        secure = self.tls.wrap_bio(self.incoming, self.outgoing, server_side=True)
        while True:
            try:
                secure.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLError:
                raise _Gone from None  # the client does not trust our certificate
            if self.outgoing.pending:
                self._send(self.outgoing.read(), PRELOGIN)
            if done:
                self.secure = secure
                return
            self.incoming.write(self._message()[1])

    def _login(self) -> bool:
        _kind, data = self._message()
        user, password, database = (_login_text(data, at) for at in (40, 44, 68))
        wanted = struct.unpack_from("<I", data, 8)[0]
        encrypted = self.secure is not None
        self.server.logins.append((user, password, database, encrypted))
        action = self.server.due("login")
        self._act(action)
        if action is None and (user, password) != (self.server.user, self.server.password):
            action = Refuse(18456, f"Login failed for user '{user}'.", 14)
        if isinstance(action, Refuse):
            self._send(_error(action) + wire.done(wire.DONE_ERROR))
            raise _Gone
        agreed = min(wanted or 4096, self.server.packet_bytes or 32767)
        reply = (
            wire.environment_text(1, database, "master")
            + wire.environment_bytes(7, wire.COLLATION)
            + wire.environment_text(2, "us_english")
            + wire.login_ack()
            + wire.environment_text(4, str(agreed), str(wanted))
            + wire.done()
        )
        if isinstance(action, HalfPacket):
            self._half(reply)
        self._send(reply)
        self.packet_bytes = agreed
        return True

    def _half(self, reply: bytes) -> None:
        data = self._packets(reply)
        self._write(data[: len(data) // 2])
        raise _Gone

    def _answer(self, kind: int, data: bytes) -> None:
        reader = wire.Reader(data)
        if kind == BATCH:
            reader.all_headers()
            self._batch(data[reader.at :].decode("utf-16-le", "surrogatepass"))
        elif kind == RPC:
            reader.all_headers()
            self._calls(reader)
        elif kind == TRANSACTION:
            reader.all_headers()
            self._transaction(reader.number(2))
        elif kind == BULK:
            self._bulk(reader)
        elif kind == ATTENTION:
            self._send(wire.done(wire.DONE_ATTN))
        else:
            raise ValueError(f"message of kind {kind}")

    # ------------------------------------------------------------ statements

    def _run(self, sql: str, parameters: dict[str, Any], *, in_call: bool) -> tuple[bytes, bool]:
        """Tokens of a statement's results, and whether it went well."""
        assert self.session is not None
        self.server.log.append(sql)
        commits = re.search(r"\bCOMMIT\b", sql, re.IGNORECASE) is not None
        action = self.server.due("commit", sql) if commits else None
        action = action or self.server.due("sql", sql)
        self._act(action)
        code = 0xFF if in_call else 0xFD
        before = self.session.in_transaction()
        try:
            if isinstance(action, Refuse):
                self._fail(action)
            outcomes = self.session.execute(sql, parameters)
        except EngineError as error:
            tokens = wire.message(error.number, error.severity, 1, error.text, error=True)
            return tokens + wire.done(wire.DONE_ERROR, code=code), False
        if isinstance(action, Drop):
            raise _Gone
        parts = [self._environment(before)]
        for number, outcome in enumerate(outcomes or [RunResult()], 1):
            last = number == len(outcomes or [1]) and not in_call
            more = 0 if last else wire.DONE_MORE
            count = action.rows if isinstance(action, Count) else outcome.count
            if outcome.names:
                parts.append(wire.columns(outcome.names, outcome.kinds))
                parts += [wire.row(outcome.kinds, row) for row in outcome.rows]
                count = len(outcome.rows)
            if isinstance(action, RefuseInside) and last:
                parts.append(wire.done(wire.DONE_MORE | wire.DONE_COUNT, count, code=code))
                parts.append(_error(action) + wire.done(wire.DONE_ERROR, code=code))
            else:
                command = 0xC1 if outcome.names else 0xC3
                status = more | (wire.DONE_COUNT if outcome.names or outcome.count >= 0 else 0)
                parts.append(wire.done(status, max(count, 0), code=code, command=command))
        if isinstance(action, HalfPacket):
            self._half(b"".join(parts))
        return b"".join(parts), True

    def _fail(self, refuse: Refuse) -> None:
        assert self.session is not None
        # XACT_ABORT, or an error so severe that it ends the transaction.
        if self.session.in_transaction():
            self.session.rollback()
        if refuse.close:
            self._send(_error(refuse) + wire.done(wire.DONE_ERROR))
            raise _Gone
        raise EngineError(refuse.number, refuse.text, refuse.severity)

    def _environment(self, before: bool) -> bytes:
        assert self.session is not None
        now = self.session.in_transaction()
        if now and not before:
            return wire.environment_bytes(8, b"\1" + b"\0" * 7)
        if before and not now:
            return wire.environment_bytes(9, b"", b"\1" + b"\0" * 7)
        return b""

    def _batch(self, sql: str) -> None:
        if re.match(r"\s*INSERT\s+BULK\b", sql, re.IGNORECASE):
            self.server.log.append(sql)
            action = self.server.due("sql", sql)
            self._act(action)
            if isinstance(action, Refuse):
                self._send(_error(action) + wire.done(wire.DONE_ERROR))
                if action.close:
                    raise _Gone
                return
            self.bulk_statement = sql
            self._send(wire.done())
            return
        self._send(self._run(sql, {}, in_call=False)[0])

    def _calls(self, reader: wire.Reader) -> None:
        calls = list(_calls(reader))
        parts = []
        for number, (procedure, arguments) in enumerate(calls, 1):
            more = wire.DONE_MORE if number < len(calls) else 0
            parts.append(self._call(procedure, arguments, more))
        self._send(b"".join(parts))

    def _call(self, procedure: str, arguments: list[_Argument], more: int) -> bytes:
        values = [a.value for a in arguments]
        handle: int | None = None
        tokens, good = b"", True
        if procedure == "sp_executesql":
            tokens, good = self._run(values[0], _named(values[1], arguments[2:]), in_call=True)
        elif procedure in ("sp_prepexec", "sp_prepare"):
            handle = len(self.prepared) + 1
            self.prepared[handle] = values[2]
            self.declared = values[1]
            if procedure == "sp_prepexec":
                tokens, good = self._run(values[2], _named(values[1], arguments[3:]), in_call=True)
        elif procedure == "sp_execute":
            tokens, good = self._run(
                self.prepared[values[0]], _numbered(arguments[1:]), in_call=True
            )
        elif procedure != "sp_unprepare":
            tokens, good = self._run(f"EXEC {procedure} {values!r}", {}, in_call=True)
        tail = wire.return_status(0 if good else 1)
        if handle is not None and good:
            tail += wire.return_value(0, "", wire.INT4, handle)
        return tokens + tail + wire.done(more | (0 if good else wire.DONE_ERROR), code=0xFE)

    # ------------------------------------------------------------ transactions, bulk loads

    def _transaction(self, request: int) -> None:
        assert self.session is not None
        name = {5: "BEGIN TRANSACTION", 7: "COMMIT TRANSACTION", 8: "ROLLBACK TRANSACTION"}[request]
        self._send(self._run(name, {}, in_call=False)[0])

    def _bulk(self, reader: wire.Reader) -> None:
        assert self.session is not None
        names, kinds = _bulk_columns(reader)
        rows = []
        while (token := reader.number(1)) == 0xD1:
            rows.append(tuple(reader.value(kind) for kind in kinds))
        if token != 0xFD:
            raise ValueError(f"token 0x{token:02x} in a bulk load")
        action = self.server.due("bulk", self.bulk_statement)
        self._act(action)
        if isinstance(action, Refuse):
            self._send(_error(action) + wire.done(wire.DONE_ERROR))
            if action.close:
                raise _Gone
            return
        try:
            count = self.session.bulk(self.bulk_statement, names, rows)
        except EngineError as error:
            tokens = wire.message(error.number, error.severity, 1, error.text, error=True)
            self._send(tokens + wire.done(wire.DONE_ERROR))
            return
        if isinstance(action, Drop):
            raise _Gone
        if isinstance(action, Count):
            count = action.rows
        reply = wire.done(wire.DONE_COUNT, count)
        if isinstance(action, HalfPacket):
            self._half(reply)
        self._send(reply)


# --- reading messages ---------------------------------------------------------------


@dataclass(frozen=True)
class _Argument:
    name: str
    value: Any


def _calls(reader: wire.Reader) -> Iterator[tuple[str, list[_Argument]]]:
    while reader.left:
        size = reader.number(2)
        if size == 0xFFFF:
            procedure = _PROCEDURES[reader.number(2)]
        else:
            procedure = reader.take(2 * size).decode("utf-16-le")
        reader.take(2)  # option flags
        arguments = []
        while reader.left and reader.data[reader.at] not in (0xFF, 0xFE):
            name = reader.b_varchar()
            reader.take(1)  # status flags
            kind = reader.type_info()
            arguments.append(_Argument(name, reader.value(kind)))
        if reader.left:
            reader.take(1)  # the next call of the same message
        yield procedure, arguments


def _named(declared: str | None, arguments: list[_Argument]) -> dict[str, Any]:
    names = re.findall(r"@(\w+)\s+\w+", declared or "")
    if len(names) < len(arguments):
        return _numbered(arguments)
    return {name: a.value for name, a in zip(names, arguments, strict=False)}


def _numbered(arguments: list[_Argument]) -> dict[str, Any]:
    return {f"P{number}": a.value for number, a in enumerate(arguments, 1)}


def _bulk_columns(reader: wire.Reader) -> tuple[list[str], list[wire.Type]]:
    if reader.number(1) != 0x81:
        raise ValueError("a bulk load without column metadata")
    names, kinds = [], []
    for _ in range(reader.number(2)):
        reader.take(6)  # user type, flags
        kinds.append(reader.type_info())
        if kinds[-1].code in (0x23, 0x63, 0x22):
            for _part in range(reader.number(1)):
                reader.us_varchar()
        names.append(reader.b_varchar())
    return names, kinds


_MESSAGES = {
    BATCH: "batch", RPC: "call", ATTENTION: "attention", BULK: "rows of a bulk copy",
    TRANSACTION: "transaction", LOGIN: "login", PRELOGIN: "before the login",
}  # fmt: skip
_TRANSACTIONS = {5: "BEGIN", 7: "COMMIT", 8: "ROLLBACK"}


def _beginning(kind: int, data: bytes) -> str:
    """What a message is, for people: its kind and the first words in it."""
    text = _MESSAGES[kind]
    if kind == TRANSACTION:
        reader = wire.Reader(data)
        reader.all_headers()
        text = _TRANSACTIONS[reader.number(2)]
    elif kind in (BATCH, RPC):
        words = re.search(rb"(?:[ -~]\0){9,}", data[22:])
        text = f"{text}: {words[0][:300:2].decode() if words else ''}"
    return text


def _prelogin_option(data: bytes, wanted: int) -> bytes:
    at = 0
    while data[at] != 0xFF:
        token, offset, size = struct.unpack_from(">BHH", data, at)
        if token == wanted:
            return data[offset : offset + size]
        at += 5
    return b""


def _login_text(data: bytes, at: int) -> str:
    offset, length = struct.unpack_from("<HH", data, at)
    raw = data[offset : offset + 2 * length]
    if at == 44:  # the password is nibble-swapped and XORed
        raw = bytes(((b ^ 0xA5) << 4 & 0xF0) | ((b ^ 0xA5) >> 4) for b in raw)
    return raw.decode("utf-16-le")


def _error(action: Refuse | RefuseInside) -> bytes:
    state = getattr(action, "state", 1)
    return wire.message(action.number, action.severity, state, action.text, error=True)


@contextlib.contextmanager
def running(server: TdsServer) -> Iterator[TdsServer]:
    with server:
        yield server
