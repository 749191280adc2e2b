"""Targets by the scheme of their address: `parse_target` names one, `open_target` opens it.

A target is a folder here.  Its ``__init__`` says which schemes are its own (``SCHEMES``) and
how surely a text without a scheme means it (``recognises``); its ``address`` module, what in an
address is secret (``secrets``) and whether there is a database yet (``exists``); its ``target``
module opens it (``open_backend``).  So a new target touches its own folder and nothing else.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from rubix_token_sync import targets
from rubix_token_sync.records.schema import RECORDS, RecordTable
from rubix_token_sync.targets.base import TargetOptions
from rubix_token_sync.targets.target_forms import is_sqlite_for_net, unknown_target

if TYPE_CHECKING:
    from rubix_token_sync.targets.sql.target import SqlTarget

__all__ = ["TargetAddress", "open_target", "parse_target"]

_URL: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.\-]*(?::[A-Za-z]+)?)://")


@cache
def _folders() -> dict[str, ModuleType]:
    """The folder's name → its package, of every target: a folder with an ``address`` module.

    Looked for without importing any: the migrations would load Alembic for every command.
    """
    return {
        found.name: importlib.import_module(f"{targets.__name__}.{found.name}")
        for place in targets.__path__
        for found in pkgutil.iter_modules([place])
        if "address" in {m.name for m in pkgutil.iter_modules([os.path.join(place, found.name)])}
    }


@dataclass(frozen=True)
class TargetAddress:
    """A target as the user named it; picklable, its address kept secret."""

    kind: str
    """The name of its folder."""
    address: SecretStr

    def secrets(self) -> list[str]:
        """Passwords in the address, in every form it holds them, for the log's redaction."""
        address = self.address.get_secret_value()
        found: list[str] = []
        if _URL.match(address):
            try:
                password = urlsplit(address.strip()).password
            except ValueError:  # a bracket too many: no part of it can be told from another
                password = address
            found += [password, unquote(password)] if password else []
        found += self.part("address").secrets(address)
        return found

    @property
    def modules(self) -> list[str]:
        """Those that open it and write to it, for a process that wants them before it forks."""
        return [f"{targets.__name__}.{self.kind}.{name}" for name in ("target", "writer")]

    def exists(self) -> bool:
        """False for an embedded target that has not been made yet."""
        found: bool = self.part("address").exists(self.address.get_secret_value())
        return found

    @property
    def file(self) -> str | None:
        """The path of an embedded target; None: a server."""
        named = getattr(self.part("address"), "path_of", None)
        return None if named is None else str(named(self.address.get_secret_value()))

    def part(self, name: str) -> ModuleType:
        """A module of its folder."""
        return importlib.import_module(f"{targets.__name__}.{self.kind}.{name}")


def parse_target(text: str) -> TargetAddress:
    """A URL (``sqlite:///FILE``, ``postgresql://…``, ``mssql://…``) or a connection string.

    Raises:
        SettingsError: code ``unknown_target``: nothing this program knows.
    """
    url = _URL.match(text)  # a password in a connection string may hold :// too
    scheme = url[1].lower() if url else ""
    sure = {
        kind: 3 * (scheme in folder.SCHEMES) if scheme else folder.recognises(text)
        for kind, folder in _folders().items()
    }
    best = max(sure, key=lambda kind: sure[kind])
    if sure[best] and not is_sqlite_for_net(text):
        return TargetAddress(best, SecretStr(text))
    schemes = [scheme for folder in _folders().values() for scheme in folder.SCHEMES]
    raise unknown_target(text, schemes)


def open_target(
    target: TargetAddress, options: TargetOptions, *, records: RecordTable = RECORDS
) -> SqlTarget:
    """Open a target; connects at the first use.

    ``records`` are the columns that its table of records has.

    Raises:
        SettingsError: the address is malformed, or a file inside a node's directory.
    """
    from rubix_token_sync.targets.sql.target import SqlTarget

    address = target.address.get_secret_value()
    backend = target.part("target").open_backend(address, options, records)
    return SqlTarget(backend, options, records)
