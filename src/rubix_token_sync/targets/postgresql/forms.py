"""Addresses of PostgreSQL as other programs write them, turned into libpq's.

JDBC (``jdbc:postgresql://host/database?user=…``), Npgsql (``Host=…;Database=…;Username=…``)
and SQLAlchemy's URL with a driver's name.  libpq's own two forms pass as they are.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, urlencode

from psycopg.conninfo import make_conninfo

from rubix_token_sync.errors import SettingsError

__all__ = ["as_libpq"]

_PAIR: Final = re.compile(
    r"""\s*([^=;]*?)\s*=\s*("(?:[^"]|"")*"|'(?:[^']|'')*'|[^;]*?)\s*(?:;|$)"""
)

_NPGSQL: Final = {
    "host": "host",
    "server": "host",
    "port": "port",
    "database": "dbname",
    "db": "dbname",
    "username": "user",
    "userid": "user",
    "user": "user",
    "uid": "user",
    "password": "password",
    "pwd": "password",
    "sslmode": "sslmode",
    "rootcertificate": "sslrootcert",
    "sslcertificate": "sslcert",
    "sslkey": "sslkey",
    "timeout": "connect_timeout",
    "applicationname": "application_name",
    "searchpath": "search_path",
    "passfile": "passfile",
}
_JDBC: Final = {
    "applicationname": "application_name",
    "connecttimeout": "connect_timeout",
    "logintimeout": "connect_timeout",
    "currentschema": "search_path",
    "ssl": "ssl",
}
_OF_NO_MATTER: Final = frozenset(
    {
        "pooling", "minimumpoolsize", "maximumpoolsize", "connectionlifetime", "commandtimeout",
        "keepalive", "tcpkeepalive", "includeerrordetail", "trustservercertificate", "enlist",
        "persistsecurityinfo", "sockettimeout", "preparethreshold", "rewritebatchedinserts",
        "stringtype", "loadbalancehosts", "encoding", "timezone",
    }
)  # fmt: skip
"""This program pools, bounds and prepares by itself."""


def as_libpq(text: str) -> str:
    """The same address as libpq takes it.

    Raises:
        SettingsError: code ``bad_postgresql_url``: a keyword is unknown.
    """
    if re.match(r"jdbc:", text, re.IGNORECASE):
        return _from_jdbc(text[5:])
    if re.match(r"postgresql\+\w+://", text, re.IGNORECASE):
        return "postgresql://" + text.partition("://")[2]
    if "://" not in text.partition("=")[0] and ";" in text:
        return _from_npgsql(text)
    return text


def _from_jdbc(url: str) -> str:
    front, _, query = url.partition("?")
    found: list[tuple[str, str]] = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        plain = name.lower()
        known = _JDBC.get(plain)
        if plain in _OF_NO_MATTER:
            continue
        if known == "search_path":
            found.append(("options", f"-csearch_path={value}"))
        elif known == "ssl":
            if value.lower() != "false" and "sslmode" not in query:
                found.append(("sslmode", "require"))
        else:
            found.append((known or name, value))
    return f"{front}?{urlencode(found)}" if found else front


def _from_npgsql(text: str) -> str:
    found: dict[str, str] = {}
    for name, quoted in _PAIR.findall(text):
        plain = re.sub(r"[\s_]", "", name).lower()
        if not plain or plain in _OF_NO_MATTER:
            continue
        known = _NPGSQL.get(plain)
        if known is None:
            shown = f"'{name}'" if re.fullmatch(r"[A-Za-z][A-Za-z ]{1,30}", name) else "'…'"
            raise SettingsError(
                f"The keyword {shown} in the PostgreSQL connection string is not known.",
                code="bad_postgresql_url",
                remedy="Remove it, or correct its spelling; a password with a ';' belongs in "
                "double quotes.",
            )
        value = (
            quoted[1:-1].replace(quoted[0] * 2, quoted[0])
            if quoted[:1] in "\"'" and quoted
            else quoted
        )
        if known == "sslmode":
            value = {"verifyfull": "verify-full", "verifyca": "verify-ca"}.get(
                value.lower().replace("-", ""), value.lower()
            )
        if known == "search_path":
            known, value = "options", f"-csearch_path={value}"
        found[known] = value
    return make_conninfo("", **found)
