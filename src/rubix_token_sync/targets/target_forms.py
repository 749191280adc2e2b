"""Forms of a target's address that people paste and that mean something else here.

A sentence names the real cause: PostgreSQL's address in the form of another program is not an
error of SQL Server's connection string, and a plain file name is not a URL.  No value of the
address is shown, because any of them could be a secret; only a file's name is.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Final
from urllib.parse import quote

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.targets.mssql.connection_text import URL_SCHEMES

__all__ = ["refuse_other_forms"]

SCHEMES: Final = ("sqlite", "postgresql", "postgres", "mssql", "sqlserver")
_POSTGRESQL: Final = "Write postgresql://USER@HOST:PORT/DATABASE, with the password in a file "
_FILE: Final = "given by --target-file or in ~/.pgpass."
_JDBC: Final = re.compile(r"\s*jdbc:([a-z]+):", re.IGNORECASE)
_SCHEME: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9.\-]*)(\+[A-Za-z0-9]+)?:(/{0,3})")
_PAIR: Final = re.compile(r"(?:^|;)\s*([A-Za-z][A-Za-z _]*?)\s*=")
_WORD: Final = re.compile(r"(?:^|\s)([a-z_]+)\s*=")
_LIBPQ: Final = {"host", "hostaddr", "port", "dbname", "user", "password", "sslmode", "service"}
_PLAIN: Final = "/ :\\~"
_DATABASE_FILE: Final = re.compile(
    r"(?:\.{0,2}|~)/[^=;\n]+|[^=;\n]+\.(?:db|sqlite|sqlite3)", re.IGNORECASE
)


def refuse_other_forms(text: str) -> None:
    """Return for what may be an address of this program.

    Raises:
        SettingsError: ``unknown_target``, with the form to write instead.
    """
    found = _other_form(text.strip())
    if found is not None:
        message, remedy = found
        raise SettingsError(message, code="unknown_target", remedy=remedy)


def _other_form(text: str) -> tuple[str, str] | None:
    jdbc = _JDBC.match(text)
    if jdbc:
        kind = jdbc[1].lower()
        cure = {
            "postgresql": _POSTGRESQL + _FILE,
            "sqlserver": "Write mssql://HOST:PORT/DATABASE, or the ADO.NET string of the portal.",
            "sqlite": "Write sqlite:///FILE.",
        }.get(kind, "Only PostgreSQL, SQL Server and SQLite can be targets.")
        return "The target is an address for JDBC (Java).", cure
    pairs = "://" not in text.partition("=")[0] and "=" in text
    if pairs:
        return _pairs(text)
    scheme = _SCHEME.match(text)
    if scheme and (scheme[3] or scheme[1].lower() in SCHEMES):
        return _scheme(text, scheme)
    if _DATABASE_FILE.fullmatch(text):
        return "The target is the name of a file, not a URL.", (
            f"Did you mean sqlite:///{quote(text, safe=_PLAIN)}?"
        )
    return None


def _pairs(text: str) -> tuple[str, str] | None:
    names = {re.sub(r"[\s_]+", "", name).lower() for name in _PAIR.findall(text)}
    words = _WORD.findall(text)
    if ";" not in text and len(words) > 1 and set(words) <= _LIBPQ:
        return (
            "The target is in PostgreSQL's own form (libpq: keyword=value).",
            _POSTGRESQL + _FILE,
        )
    if "host" in names and not {"server", "datasource"} & names:
        return "The target is a connection string of Npgsql (PostgreSQL, .NET).", (
            _POSTGRESQL + _FILE
        )
    return None


def _scheme(text: str, scheme: re.Match[str]) -> tuple[str, str] | None:
    name, driver, slashes = scheme[1].lower(), scheme[2], scheme[3]
    if name == "sqlite" and not slashes.startswith("///"):
        rest = text[scheme.end() :]
        path = f"/{rest}" if len(slashes) == 1 else rest
        return "A SQLite target has three slashes, or four for an absolute path.", (
            f"Did you mean sqlite:///{path}?" if rest else "Write sqlite:///FILE."
        )
    if f"{name}{driver or ''}".lower() in URL_SCHEMES and len(slashes) >= 2:
        return None
    if name in SCHEMES and driver:
        return (
            f"The target names a driver ({name}{driver}), as SQLAlchemy's URLs do.",
            f"Write {name}:// without it.",
        )
    if name in SCHEMES and len(slashes) < 2:
        return "The target's address has no // behind its scheme.", f"Write {name}://…"
    if name in SCHEMES:
        return None
    near = next(iter(get_close_matches(name, SCHEMES, 1)), None)
    return (
        f"The target's scheme {name!r} is unknown.",
        f"Did you mean {near}://?" if near else "Use sqlite:///FILE, postgresql:// or mssql://.",
    )
