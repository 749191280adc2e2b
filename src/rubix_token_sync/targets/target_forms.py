"""What to write instead of an address that names no target.

A sentence names the real cause.  No value of the address is shown, because any of them
could be a secret; only a scheme or a file's name is.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import Final
from urllib.parse import quote

from rubix_token_sync.errors import SettingsError

__all__ = ["is_sqlite_for_net", "unknown_target"]

_SCHEME: Final = re.compile(r"\s*((?:jdbc:)?[A-Za-z][A-Za-z0-9+.\-]*):(/{0,3})", re.IGNORECASE)
_PLAIN: Final = "/ :\\~"
_DATABASE_FILE: Final = re.compile(
    r"(?:\.{0,2}|~)/[^=;\n]+|[^=;\n]+\.(?:db|sqlite|sqlite3)", re.IGNORECASE
)
_CONNECTION_FILE: Final = re.compile(r"[^=;\n]+\.txt", re.IGNORECASE)
_AZURE_SERVER: Final = re.compile(
    r"(?:tcp:)?([A-Za-z0-9-]+\.database\.windows\.net)(?:,\d+)?", re.IGNORECASE
)
_CANNOT: Final = {
    "cockroachdb": "CockroachDB",
    "db2": "Db2",
    "duckdb": "DuckDB",
    "mariadb": "MariaDB",
    "mongodb": "MongoDB",
    "mysql": "MySQL",
    "oracle": "Oracle",
    "redis": "Redis",
    "snowflake": "Snowflake",
}
"""Schemes of databases that people have, too."""
_DATA_SOURCE_FILE: Final = re.compile(
    r"(?:data source|filename|datasource)\s*=\s*([^;=]+\.(?:db|sqlite|sqlite3))\s*"
    r"(?:;(?!.*(?:initial catalog|database)\s*=).*)?",
    re.IGNORECASE,
)
_USUAL: Final = (
    "Use sqlite:///FILE, postgresql://USER@HOST/DATABASE or mssql://HOST/DATABASE, "
    "or a file with a connection string by --target-file."
)


def is_sqlite_for_net(text: str) -> bool:
    """Whether ``text`` is the connection string of .NET's SQLite, as ``Data Source=FILE.db``."""
    return _DATA_SOURCE_FILE.fullmatch(text.strip()) is not None


def unknown_target(text: str, schemes: Collection[str]) -> SettingsError:
    """The error for ``text``, which none of the targets takes; ``schemes`` are those known."""
    text = text.strip()
    message, remedy = _explained(text, schemes)
    return SettingsError(message, code="unknown_target", remedy=remedy)


def _explained(text: str, schemes: Collection[str]) -> tuple[str, str]:
    scheme = _SCHEME.match(text)
    named = scheme is not None and scheme[1].lower()
    if scheme and (scheme[2] or named in schemes or str(named).startswith("jdbc:")):
        return _of_scheme(text, scheme, schemes)
    dot_net = _DATA_SOURCE_FILE.fullmatch(text)
    if dot_net is not None:
        cure = f"Did you mean sqlite:///{quote(dot_net[1].strip(), safe=_PLAIN)}?"
        return "The target is a connection string of .NET for a SQLite file.", cure
    if _CONNECTION_FILE.fullmatch(text):
        cure = f"A file with a connection string is named by --target-file: --target-file {text}"
        return "The target is the name of a file, not a URL.", cure
    if _DATABASE_FILE.fullmatch(text):
        cure = f"Did you mean sqlite:///{quote(text.removeprefix('file:'), safe=_PLAIN)}?"
        return "The target is the name of a file, not a URL.", cure
    azure = _AZURE_SERVER.fullmatch(text.strip())
    if azure is not None:
        cure = (
            f"Write mssql://USER@{azure[1]}/DATABASE, or name a connection file by --target-file."
        )
        return "The target is the name of a server, not a URL.", cure
    return "The target is neither a URL nor a connection string that this program knows.", _USUAL


def _of_scheme(text: str, scheme: re.Match[str], schemes: Collection[str]) -> tuple[str, str]:
    name, slashes = scheme[1].lower(), scheme[2]
    if name == "jdbc:sqlserver":
        return (
            "The target is SQL Server's address for JDBC (Java), which is not read.",
            "Write mssql://USER@HOST:PORT/DATABASE, or put an ADO.NET or ODBC connection string "
            "into a file and name it by --target-file.",
        )
    if name == "jdbc:sqlite":
        return "The target is SQLite's address for JDBC (Java).", "Write sqlite:///FILE."
    product = _CANNOT.get(name.removeprefix("jdbc:").partition("+")[0])
    if product is not None:
        return f"{product} cannot be a target.", _USUAL
    if name.startswith("jdbc:"):
        return "The target is an address for JDBC (Java) of an unknown database.", _USUAL
    if name == "sqlite":
        rest = text[scheme.end() :]
        path = f"/{rest}" if len(slashes) == 1 else rest
        cure = f"Did you mean sqlite:///{path}?" if rest else "Write sqlite:///FILE."
        return "A SQLite target has three slashes, or four for an absolute path.", cure
    if name in schemes:
        return "The target's address has no // behind its scheme.", f"Write {name}://…"
    plain, _, driver = name.partition("+")
    if driver and plain in schemes:
        return f"The target names a driver ({name}).", f"Write {plain}:// without it."
    near = next(iter(get_close_matches(name, schemes, 1)), None)
    form = {"sqlite": "sqlite:///FILE"}.get(near or "", f"{near}://USER@HOST/DATABASE")
    return (
        f"The target's scheme {name!r} is unknown.",
        f"Did you mean {form}?" if near else _USUAL,
    )
