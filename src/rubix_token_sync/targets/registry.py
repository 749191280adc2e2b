"""Targets: where the records go.

`parse_target` turns what the user gave into a `TargetAddress`; `open_target` opens it.
A new kind of target is one new module here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from rubix_token_sync.errors import SettingsError
from rubix_token_sync.nodes.keep_out import keep_out
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.mssql.connection_string import is_mssql, parse_connection_string

if TYPE_CHECKING:
    from rubix_token_sync.targets.sql.publishing import SqlStore

__all__ = ["TargetAddress", "open_target", "parse_target"]

_URL: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.\-]*)://")


@dataclass(frozen=True)
class TargetAddress:
    """A target as the user named it; picklable, its address kept secret."""

    kind: str
    address: SecretStr

    def secrets(self) -> list[str]:
        """Passwords in the address, in every form it holds them, for the log's redaction."""
        address = self.address.get_secret_value()
        found = []
        if _URL.match(address):
            password = urlsplit(address).password
            found += [password, unquote(password)] if password else []
        if self.kind == "mssql":
            parsed = parse_connection_string(address).password
            found += [parsed.get_secret_value()] if parsed is not None else []
        return found

    @property
    def module(self) -> str:
        """The module that opens it, for processes that want it loaded beforehand."""
        return f"rubix_token_sync.targets.{self.kind}.target"

    def exists(self) -> bool:
        """False for an embedded store that has not been made yet."""
        return self.kind != "sqlite" or os.path.exists(
            _sqlite_path(self.address.get_secret_value())
        )


def parse_target(text: str) -> TargetAddress:
    """A URL (``sqlite:///FILE``, ``postgresql://…``, ``mssql://…``) or an ADO.NET/ODBC string.

    Raises:
        SettingsError: nothing this program knows.
    """
    url = _URL.match(text)  # a password in a connection string may hold :// too
    scheme = url[1].lower() if url else ""
    if scheme == "sqlite":
        return TargetAddress("sqlite", SecretStr(text))
    if scheme in ("postgresql", "postgres"):
        return TargetAddress("postgresql", SecretStr(text))
    if is_mssql(text) or (not scheme and "=" in text):
        return TargetAddress("mssql", SecretStr(text))
    raise SettingsError(
        "The target is neither a URL nor a connection string that this program knows.",
        code="unknown_target",
        remedy="Use sqlite:///FILE, postgresql://USER@HOST/DATABASE or mssql://HOST/DATABASE, "
        "or a file with a connection string by --target-file.",
    )


def open_target(
    target: TargetAddress, options: TargetOptions, *, at_once: bool = False
) -> SqlStore:
    """Open a target; connects at the first use.

    ``at_once`` says that this will follow: a login that takes its time begins now, while the
    rest of the program loads.  What goes wrong with it is raised at the first use.

    Raises:
        SettingsError: the address is malformed, or a file inside a node's directory.
    """
    address = target.address.get_secret_value()
    if target.kind == "sqlite":
        from rubix_token_sync.targets.sqlite.target import SqliteStore

        path = _sqlite_path(address)
        if not options.read_only:
            keep_out(path, "The target")
        return SqliteStore(path, options)
    if target.kind == "postgresql":
        from rubix_token_sync.targets.postgresql.target import PostgresStore

        return PostgresStore(target.address, options)
    login = None
    if at_once:
        from rubix_token_sync.targets.mssql.login import Login

        login = Login(parse_connection_string(address), options.call_seconds)
    from rubix_token_sync.targets.mssql.target import MssqlStore

    return MssqlStore(target.address, options, login)


def _sqlite_path(url: str) -> str:
    parts = urlsplit(url)
    path = unquote(parts.path)
    told = parts.netloc or parts.query or parts.fragment
    if told or "\0" in path or not path.startswith("/") or path == "/":
        raise SettingsError(
            "A SQLite target is sqlite:///FILE (relative) or sqlite:////PATH/FILE (absolute).",
            code="bad_sqlite_url",
            remedy="Write ? as %3F and # as %23 in it.",
        )
    return path[1:]
