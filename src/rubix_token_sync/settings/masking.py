"""Connection targets and URLs, shown without what can be secret in them."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_SECRET_NAME: Final = re.compile(r"(?i)pass|pwd|token|secret|credential|api.?key")
_HOST: Final = r"(?:[\w.%-]+|\[[\w.:%]+\])(?::\d{1,5})?"
_HOSTS: Final = re.compile(rf"(?:{_HOST}(?:,{_HOST})*)?")
_SECRET_PAIR: Final = re.compile(r"(?i)\b(?:password|pwd)\s*=")


def holds_secret(text: str) -> bool:
    """A URL or connection string has a password, a token or the like in it."""
    try:
        url = urlsplit(text)
        names = [name for name, _ in parse_qsl(url.query, keep_blank_values=True)]
    except ValueError:
        return True  # cannot be told apart, so it is treated as one
    if url.scheme and (url.netloc or url.scheme == "sqlite"):
        token_alone = url.scheme in ("http", "https") and url.username is not None
        return (
            url.password is not None
            or token_alone
            or _cut_short(url)
            or any(_SECRET_NAME.search(name) for name in names)
        )
    return bool(_SECRET_PAIR.search(text))


def _cut_short(url: SplitResult) -> bool:
    """The password of a database's URL has a ``/``, ``?`` or ``#`` that was not quoted."""
    rest = f"{url.path}{url.query}{url.fragment}"
    web = url.scheme in ("http", "https", "sqlite")
    return not web and "@" not in url.netloc and ":" in url.netloc and "@" in rest


def secrets_in(text: str) -> set[str]:
    """The secrets of a URL, as written and decoded; of anything else, all of the text.

    Connection strings are taken apart where they are read; this is for what is
    known of them before.
    """
    if not holds_secret(text):
        return set()
    try:
        url = urlsplit(text)
        query = parse_qsl(url.query)
    except ValueError:
        return {text}
    if not url.netloc or _cut_short(url):
        return {text}
    parts = {url.password, url.username if url.scheme in ("http", "https") else None}
    written = {part for part in parts if part}
    named = {value for name, value in query if value and _SECRET_NAME.search(name)}
    return written | {unquote(part) for part in written} | named


def secrets_of_service(text: str) -> set[str]:
    """What can be secret in the URL of a service: any part of it that is not a well-known name.

    Services put their keys everywhere: as user, host, path or query.
    """
    scheme, _, rest = text.partition("://")
    try:
        host = urlsplit(text).hostname or ""
    except ValueError:
        host = ""
    public = {scheme, host if "." in host or host == "localhost" else ""}
    parts = {part for part in re.split(r"[/:@?&=,]+", rest or text) if len(part) >= 6} - public
    return {text, *parts, *(unquote(part) for part in parts)}


def masked(text: str) -> str:
    """A URL without what can be secret; anything else is hidden.

    Of http(s) URLs the user's name and the path are hidden as well: services put
    their keys there.  A database's URL may name several hosts, or none (a socket).
    """
    try:
        url = urlsplit(text)
    except ValueError:
        return "***"
    if url.scheme == "sqlite" and not url.netloc:
        return f"sqlite://{url.path}"
    user, at, hosts = url.netloc.rpartition("@")
    web = url.scheme in ("http", "https")
    if not url.scheme or not _HOSTS.fullmatch(hosts) or not (hosts or at) or _cut_short(url):
        return "***"
    name, colon, _ = user.partition(":")
    if web and at:
        name, colon = "***", ""
    shown = f"{name}{':***' if colon else ''}{at}"
    path = "/***" if web and url.path.strip("/") else url.path
    return f"{url.scheme}://{shown}{hosts}{path}{'?***' if url.query else ''}"
