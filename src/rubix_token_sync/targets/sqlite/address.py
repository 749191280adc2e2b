"""Addresses of SQLite files: ``sqlite:///FILE``, as SQLAlchemy has them."""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

from rubix_token_sync.errors import SettingsError

__all__ = ["exists", "path_of", "secrets"]


def path_of(url: str) -> str:
    """The file's path.

    Raises:
        SettingsError: code ``bad_sqlite_url``.
    """
    # A bracket begins an IPv6 address for urlsplit, and it drops line feeds and tabs without a
    # word; here they are part of a file's name.
    url = url.strip()
    for character in "[]\n\r\t":
        url = url.replace(character, f"%{ord(character):02X}")
    parts = urlsplit(url)
    path = unquote(parts.path)
    more = parts.netloc or parts.query or parts.fragment
    if more or "\0" in path or not path.startswith("/") or path == "/":
        raise SettingsError(
            "A SQLite target is sqlite:///FILE (relative) or sqlite:////PATH/FILE (absolute).",
            code="bad_sqlite_url",
            remedy=f"Did you mean sqlite:///{parts.netloc}{path}?"
            if parts.netloc
            else "Write ? as %3F and # as %23 in it.",
        )
    return path[1:]


def secrets(address: str) -> list[str]:  # noqa: ARG001 - part of every target's entry
    """A path holds none."""
    return []


def exists(address: str) -> bool:
    """False for a file that has not been made yet; else opening it says what there is."""
    path = path_of(address)
    try:
        os.stat(path)
    except FileNotFoundError:
        return not os.path.isdir(os.path.dirname(os.path.abspath(path)))
    except OSError:
        return True
    return True
