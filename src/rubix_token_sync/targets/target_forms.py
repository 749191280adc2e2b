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

__all__ = ["unknown_target"]

_SCHEME: Final = re.compile(r"\s*((?:jdbc:)?[A-Za-z][A-Za-z0-9+.\-]*):(/{0,3})", re.IGNORECASE)
_PLAIN: Final = "/ :\\~"
_DATABASE_FILE: Final = re.compile(
    r"(?:\.{0,2}|~)/[^=;\n]+|[^=;\n]+\.(?:db|sqlite|sqlite3)", re.IGNORECASE
)
_USUAL: Final = (
    "Use sqlite:///FILE, postgresql://USER@HOST/DATABASE or mssql://HOST/DATABASE, "
    "or a file with a connection string by --target-file."
)


def unknown_target(text: str, schemes: Collection[str]) -> SettingsError:
    """The error for ``text``, which none of the targets takes; ``schemes`` are those known."""
    text = text.strip()
    message, remedy = _explained(text, schemes)
    return SettingsError(message, code="unknown_target", remedy=remedy)


def _explained(text: str, schemes: Collection[str]) -> tuple[str, str]:
    scheme = _SCHEME.match(text)
    if scheme and (scheme[2] or scheme[1].lower() in schemes):
        return _of_scheme(text, scheme, schemes)
    if _DATABASE_FILE.fullmatch(text):
        cure = f"Did you mean sqlite:///{quote(text, safe=_PLAIN)}?"
        return "The target is the name of a file, not a URL.", cure
    return "The target is neither a URL nor a connection string that this program knows.", _USUAL


def _of_scheme(text: str, scheme: re.Match[str], schemes: Collection[str]) -> tuple[str, str]:
    name, slashes = scheme[1].lower(), scheme[2]
    if name.startswith("jdbc:"):
        return "The target is an address for JDBC (Java) of a database that cannot be one.", _USUAL
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
    return (
        f"The target's scheme {name!r} is unknown.",
        f"Did you mean {near}://?" if near else _USUAL,
    )
