"""The bytes of TDS 7.4 that the test server needs (source: MS-TDS).

Values of these types are read and written: integers, bit, float, (n)varchar,
(var)binary (long ones too), datetime2, datetime, uniqueidentifier, decimal.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

COLLATION = bytes.fromhex("09 04 d0 00 34")  # SQL_Latin1_General_CP1_CI_AS
MAX = 0xFFFF

DONE_FINAL, DONE_MORE, DONE_ERROR, DONE_INXACT, DONE_COUNT, DONE_ATTN = 0, 1, 2, 4, 0x10, 0x20


@dataclass(frozen=True)
class Type:
    """A TYPE_INFO: the type's byte and what goes with it."""

    code: int
    size: int = 0
    scale: int = 0
    precision: int = 0


INT4 = Type(0x26, 4)
INT8 = Type(0x26, 8)
BIT = Type(0x68, 1)
FLOAT = Type(0x6D, 8)
DATETIME2 = Type(0x2A, scale=7)
GUID = Type(0x24, 16)


def nvarchar(characters: int | None) -> Type:
    return Type(0xE7, MAX if characters is None else characters * 2)


def varbinary(size: int | None) -> Type:
    return Type(0xA5, MAX if size is None else size)


def binary(size: int) -> Type:
    return Type(0xAD, size)


_FIXED = {0x30: 1, 0x32: 1, 0x34: 2, 0x38: 4, 0x7F: 8, 0x3E: 8, 0x3B: 4, 0x3D: 8, 0x3A: 4}
_CHARACTERS = {0xE7, 0xEF, 0xA7, 0xAF}
_BYTES = {0xA5, 0xAD}
_LONG = {0x23, 0x63, 0x22}


class Reader:
    """Takes values from the front of a message."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def take(self, size: int) -> bytes:
        part = self.data[self.at : self.at + size]
        if len(part) != size:
            raise EOFError(f"{size} bytes wanted, {len(part)} there")
        self.at += size
        return part

    def number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def b_varchar(self) -> str:
        return self.take(2 * self.number(1)).decode("utf-16-le")

    def us_varchar(self) -> str:
        return self.take(2 * self.number(2)).decode("utf-16-le")

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def all_headers(self) -> None:
        self.at += struct.unpack_from("<I", self.data, self.at)[0]

    def type_info(self) -> Type:
        code = self.number(1)
        if code in _FIXED or code == 0x1F:
            return Type(code, _FIXED.get(code, 0))
        if code in _CHARACTERS:
            size = self.number(2)
            self.take(5)
            return Type(code, size)
        if code in _BYTES:
            return Type(code, self.number(2))
        if code in (0x26, 0x68, 0x6D, 0x6F, 0x6E, 0x24):
            return Type(code, self.number(1))
        if code in (0x2A, 0x2B, 0x29):
            return Type(code, scale=self.number(1))
        if code == 0x28:
            return Type(code)
        if code in (0x6A, 0x6C):
            size, precision, scale = self.take(3)
            return Type(code, size, scale, precision)
        if code in _LONG:
            size = self.number(4)
            if code != 0x22:
                self.take(5)
            return Type(code, size)
        raise ValueError(f"type 0x{code:02x} is not spoken here")

    def value(self, kind: Type) -> Any:
        raw = self._raw(kind)
        return None if raw is None else _decoded(kind, raw)

    def _raw(self, kind: Type) -> bytes | None:
        if kind.code == 0x1F:
            return None
        if kind.code in _FIXED:
            return self.take(kind.size)
        if kind.code in _LONG:
            pointer = self.number(1)
            if pointer == 0:
                return None
            self.take(pointer + 8)
            return self.take(self.number(4))
        if kind.code in _CHARACTERS | _BYTES:
            if kind.size == MAX:
                return self._chunks()
            size = self.number(2)
            return None if size == 0xFFFF else self.take(size)
        size = self.number(1)
        return None if size == 0 else self.take(size)

    def _chunks(self) -> bytes | None:
        if self.take(8) == b"\xff" * 8:
            return None
        parts = []
        while size := self.number(4):
            parts.append(self.take(size))
        return b"".join(parts)


def _decoded(kind: Type, raw: bytes) -> Any:
    code = kind.code
    if code in (0xE7, 0xEF, 0x63):
        return raw.decode("utf-16-le", "surrogatepass")
    if code in (0xA7, 0xAF, 0x23):
        return raw.decode("cp1252")
    if code in _BYTES or code == 0x22:
        return raw
    if code in (0x26, 0x30, 0x34, 0x38, 0x7F):
        return int.from_bytes(raw, "little", signed=len(raw) > 1)
    if code in (0x68, 0x32):
        return raw != b"\0"
    if code in (0x6D, 0x3E, 0x3B):
        return struct.unpack("<d" if len(raw) == 8 else "<f", raw)[0]
    if code == 0x24:
        return uuid.UUID(bytes_le=raw)
    if code in (0x6A, 0x6C):
        number = int.from_bytes(raw[1:], "little")
        return Decimal(number if raw[0] else -number).scaleb(-kind.scale)
    if code == 0x28:
        return date(1, 1, 1) + timedelta(days=int.from_bytes(raw, "little"))
    if code in (0x2A, 0x2B):
        end = len(raw) - (2 if code == 0x2B else 0)
        ticks = int.from_bytes(raw[: end - 3], "little") * 10 ** (7 - kind.scale)
        day = date(1, 1, 1) + timedelta(days=int.from_bytes(raw[end - 3 : end], "little"))
        return datetime.combine(day, time()) + timedelta(microseconds=ticks // 10)
    if code in (0x6F, 0x3D):
        days, ticks = struct.unpack("<iI", raw)
        return datetime(1900, 1, 1) + timedelta(days=days, microseconds=ticks * 10_000 // 3)
    raise ValueError(f"type 0x{code:02x} is not spoken here")


def type_info(kind: Type) -> bytes:
    head = bytes([kind.code])
    if kind.code in _CHARACTERS:
        return head + struct.pack("<H", kind.size) + COLLATION
    if kind.code in _BYTES:
        return head + struct.pack("<H", kind.size)
    if kind.code == 0x2A:
        return head + bytes([kind.scale])
    return head + bytes([kind.size])


def value(kind: Type, item: Any) -> bytes:
    if kind.code in _CHARACTERS | _BYTES:
        if kind.size == MAX:
            if item is None:
                return b"\xff" * 8
            raw = _encoded(kind, item)
            chunk = struct.pack("<I", len(raw)) + raw if raw else b""
            return struct.pack("<Q", len(raw)) + chunk + b"\0\0\0\0"
        if item is None:
            return b"\xff\xff"
        raw = _encoded(kind, item)
        return struct.pack("<H", len(raw)) + raw
    if item is None:
        return b"\0"
    raw = _encoded(kind, item)
    return bytes([len(raw)]) + raw


def _encoded(kind: Type, item: Any) -> bytes:
    code = kind.code
    if code in (0xE7, 0xEF):
        return str(item).encode("utf-16-le", "surrogatepass")
    if code in _BYTES:
        return bytes(item)
    if code == 0x26:
        return int(item).to_bytes(kind.size, "little", signed=True)
    if code == 0x68:
        return b"\1" if item else b"\0"
    if code == 0x6D:
        return struct.pack("<d", float(item))
    if code == 0x24:
        return uuid.UUID(str(item)).bytes_le
    if code == 0x2A:
        since = item - datetime.combine(item.date(), time())
        ticks = (since.seconds * 1_000_000 + since.microseconds) * 10
        return ticks.to_bytes(5, "little") + (item.toordinal() - 1).to_bytes(3, "little")
    raise ValueError(f"type 0x{code:02x} is not spoken here")


# --- tokens -----------------------------------------------------------------------


def _us(text: str) -> bytes:
    return struct.pack("<H", len(text.encode("utf-16-le")) // 2) + text.encode("utf-16-le")


def _b(text: str) -> bytes:
    return bytes([len(text.encode("utf-16-le")) // 2]) + text.encode("utf-16-le")


def _token(code: int, body: bytes) -> bytes:
    return bytes([code]) + struct.pack("<H", len(body)) + body


def columns(names: Sequence[str], kinds: Sequence[Type]) -> bytes:
    parts = [b"\x81", struct.pack("<H", len(names))]
    for name, kind in zip(names, kinds, strict=True):
        parts.append(struct.pack("<IH", 0, 0x0009) + type_info(kind) + _b(name))
    return b"".join(parts)


def row(kinds: Sequence[Type], values: Sequence[Any]) -> bytes:
    return b"\xd1" + b"".join(value(k, v) for k, v in zip(kinds, values, strict=True))


def done(
    status: int = DONE_FINAL, count: int = 0, *, code: int = 0xFD, command: int = 0xC1
) -> bytes:
    """``command`` is 0xC1 for SELECT; counts of changed rows need one of the others."""
    return struct.pack("<BHHQ", code, status, command, count)


def message(
    number: int, severity: int, state: int, text: str, *, error: bool, server: str = "tds-test"
) -> bytes:
    body = struct.pack("<iBB", number, state, severity) + _us(text) + _b(server) + _b("")
    return _token(0xAA if error else 0xAB, body + struct.pack("<I", 1))


def environment_text(kind: int, new: str, old: str = "") -> bytes:
    return _token(0xE3, bytes([kind]) + _b(new) + _b(old))


def environment_bytes(kind: int, new: bytes, old: bytes = b"") -> bytes:
    return _token(0xE3, bytes([kind, len(new)]) + new + bytes([len(old)]) + old)


def login_ack() -> bytes:
    body = b"\x01" + bytes.fromhex("74000004") + _b("Microsoft SQL Server") + bytes([16, 0, 4, 0])
    return _token(0xAD, body)


def return_value(ordinal: int, name: str, kind: Type, item: Any) -> bytes:
    head = struct.pack("<BH", 0xAC, ordinal) + _b(name) + b"\x01" + struct.pack("<IH", 0, 0)
    return head + type_info(kind) + value(kind, item)


def return_status(status: int = 0) -> bytes:
    return struct.pack("<Bi", 0x79, status)
