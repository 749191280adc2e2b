"""Connection strings as text: from ADO.NET, ODBC or a URL to keywords and values.

Where the two key=value forms disagree, these rules hold:

* a value in double or single quotes is a quoted one in ADO.NET, and plain text
  in ODBC (a string that names a ``Driver`` is ODBC);
* a value in braces is a quoted one in both, because the portal prints
  ``Password={your_password}`` and people replace what is between the braces.
  A password that really starts and ends with braces is written ``"{…}"``.

No error shows a value of the string: a place in it is named by its number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.targets.mssql import SCHEMES

__all__ = ["read_pairs", "refuse"]


def read_pairs(text: str) -> list[tuple[str, str]]:
    """Keywords and values as the text gives them, in its order.

    Raises:
        SettingsError: code ``connection_string``, where the text cannot be read.
    """
    text = text.strip().lstrip("\ufeff").strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1].strip()  # the whole string in quotes, as environment files have it
    if not text:
        refuse("The connection string is empty.", "Copy it from the Azure portal.")
    if any(ord(c) < 32 and c not in "\t\r\n" for c in text):
        refuse("The connection string holds a control character.", "Type it again.")
    scheme, separator, _ = text.partition("://")
    if separator and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.:\-]*", scheme):
        return list(_url_pairs(text, scheme.lower()))
    return list(_key_value_pairs(re.sub(r"[\r\n]+", " ", text)))


def refuse(message: str, remedy: str) -> NoReturn:
    """Raise SettingsError with code ``connection_string``."""
    raise SettingsError(message, code="connection_string", remedy=remedy)


def _url_pairs(text: str, scheme: str) -> Iterator[tuple[str, str]]:
    if scheme not in SCHEMES:
        refuse(
            "The URL's scheme is not one of SQL Server's.",
            "Write mssql://user:password@server:1433/database.",
        )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        refuse(
            "The URL cannot be read.",
            "Characters like @ : / ? # % [ ] in a user name or password must be "
            "percent-encoded; or use a file with an ADO.NET connection string.",
        )
    if parts.fragment:
        refuse("The URL holds a '#'.", "In a password write it as %23.")
    host = parts.netloc.rpartition("@")[2]
    host = unquote(host.rpartition(":")[0] if port is not None else host)
    yield "Server", f"{host},{port}" if port is not None else host
    database = unquote(parts.path.lstrip("/"))
    if "/" in database:
        refuse(
            "The URL has more than one '/' behind the server.",
            "In a password or database name write it as %2F.",
        )
    yield "Database", database
    if parts.username is not None:
        yield "User ID", unquote(parts.username)
    if parts.password is not None:
        yield "Password", unquote(parts.password)
    yield from parse_qsl(parts.query, keep_blank_values=True)


def _key_value_pairs(text: str) -> Iterator[tuple[str, str]]:
    """Keyword and value, still as text, of an ADO.NET or ODBC string."""
    odbc = re.search(r"(?:^|;)\s*driver\s*=", text, re.IGNORECASE) is not None
    at = 0
    while True:
        while at < len(text) and text[at] in " \t;":
            at += 1
        if at == len(text):
            return
        equals = text.find("=", at)
        semicolon = text.find(";", at)
        if equals < 0 or 0 <= semicolon < equals:
            refuse(
                f"The connection string cannot be read: part {_part(text, at)} has no '='.",
                "If the password holds a ';', put it in double quotes (ADO.NET) "
                "or in braces (ODBC).",
            )
        key = text[at:equals].strip()
        if not key:
            refuse(
                f"The connection string cannot be read: part {_part(text, at)} has no keyword.",
                "Write keyword=value;keyword=value;…",
            )
        value, at = _value(text, equals + 1, odbc)
        yield key, value


def _value(text: str, at: int, odbc: bool) -> tuple[str, int]:
    while at < len(text) and text[at] in " \t":
        at += 1
    quote = text[at : at + 1]
    if quote == "{" or (quote in ('"', "'") and quote and not odbc):
        closing = "}" if quote == "{" else quote
        quoted = _quoted(text, at + 1, closing)
        if quoted is not None:
            return quoted
        if odbc or quote != "{":
            refuse(
                f"The connection string cannot be read: the value of part {_part(text, at)} "
                f"starts with {quote} and does not end with {closing}.",
                f"Inside such a value write {closing} twice.",
            )
    end = text.find(";", at)
    end = len(text) if end < 0 else end
    return text[at:end].rstrip(), end


def _quoted(text: str, at: int, closing: str) -> tuple[str, int] | None:
    """The value up to its closing quote, and where the next part starts; None: no such end."""
    value: list[str] = []
    while True:
        end = text.find(closing, at)
        if end < 0:
            return None
        value.append(text[at:end])
        if text[end + 1 : end + 2] == closing:
            value.append(closing)
            at = end + 2
            continue
        rest = end + 1
        while rest < len(text) and text[rest] in " \t":
            rest += 1
        if rest < len(text) and text[rest] != ";":
            return None
        return "".join(value), rest


def _part(text: str, at: int) -> int:
    """Which part of the string ``at`` lies in: names a place without showing it."""
    return text.count(";", 0, at) + 1
