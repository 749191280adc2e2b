"""Who may see and decide what: the one door through which every request comes."""

from __future__ import annotations

import ipaddress
from collections.abc import MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rubix_token_sync.pages.markup import address as address_of
from rubix_token_sync.web.login import hop_page, refused_page
from rubix_token_sync.web.options import ServeOptions
from rubix_token_sync.web.session import Attempts, Logins

__all__ = ["COOKIE", "Access"]

COOKIE: Final = "rubix-token-sync"
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_OPEN: Final = ("/login", "/healthz", "/static/")
_POLICY: Final = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_MOST_PATH: Final = 4_096


class Access:
    """Looks at every request before the application, and at every answer after it.

    What it finds out stands in ``scope["state"]``: ``user``, ``by_cookie``, ``client``, ``secure``.
    """

    def __init__(self, app: ASGIApp, options: ServeOptions) -> None:
        self._app, self._options = app, options
        self.logins = Logins(options.token) if options.token else None
        self.attempts = Attempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._admit(scope)
        app: ASGIApp = self._app if refusal is None else refusal
        await app(scope, receive, send_safely)

    def _admit(self, scope: Scope) -> Response | None:
        """None: go on; else what is answered instead."""
        headers = Headers(scope=scope)
        state = scope.setdefault("state", {})
        peer = (scope.get("client") or ("", 0))[0]
        by_proxy = self._is_proxy(peer)
        state["client"] = _first_hop(headers) or peer if by_proxy else peer
        state["secure"] = by_proxy and headers.get("x-forwarded-proto") == "https"
        state["user"], state["by_cookie"] = None, False
        self._strip_root(scope)
        path = scope["path"]
        if len(path) > _MOST_PATH:
            return refused_page(414, "bad_parameter", "The address is too long.", self._root)
        if not self._called_rightly(headers):
            return refused_page(
                421, "web_wrong_name", "This page is not served under that name.", self._root,
                "Call it 127.0.0.1 or localhost, or name this name by --name.",
            )  # fmt: skip
        refusal = self._identify(scope, headers, state, by_proxy)
        if refusal is not None:
            return refusal
        if scope["method"] not in ("GET", "HEAD") and not self._same_origin(headers, state):
            return refused_page(
                403, "web_other_origin", "This was sent from another page.", self._root,
                "Open the page itself and decide there.",
            )  # fmt: skip
        return None

    @property
    def _root(self) -> str:
        return self._options.root_path

    def _strip_root(self, scope: Scope) -> None:
        """A proxy may leave the path below which it serves this in front, or take it away."""
        root = self._root
        if root and (scope["path"] == root or scope["path"].startswith(f"{root}/")):
            scope["path"] = scope["path"][len(root) :] or "/"
            scope["raw_path"] = scope["path"].encode()

    def _is_proxy(self, peer: str) -> bool:
        try:
            found = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(found in network for network in self._options.trusted_proxies)

    def _called_rightly(self, headers: Headers) -> bool:
        """Where nobody logs in, another name means a page elsewhere that points its name here."""
        if self._options.token or self._options.trusted_proxies:
            return True
        name = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        return name in _LOCAL or name in self._options.names

    def _identify(
        self, scope: Scope, headers: Headers, state: MutableMapping[str, Any], by_proxy: bool
    ) -> Response | None:
        options = self._options
        if not options.token and not options.trusted_proxies:
            state["user"] = "local"
            return None
        if by_proxy and (name := headers.get(options.user_header.lower())):
            state["user"] = name[:100]
            return None
        path = scope["path"]
        if path == "/healthz" or path.startswith("/static/"):
            return None
        if self.logins is None:
            return refused_page(
                403, "web_not_through_proxy", "This page is reached through its proxy only.",
                self._root, "Open it by the proxy's address.",
            )  # fmt: skip
        if path in _OPEN:
            return None
        bearer = headers.get("authorization", "")
        if bearer[:7].lower() == "bearer ":
            return self._by_bearer(bearer[7:].strip(), state)
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        found = self.logins.name_in(cookie) if cookie else None
        if found is not None:
            state["user"], state["by_cookie"] = found, True
            return None
        return self._to_login(scope, headers)

    def _by_bearer(self, token: str, state: MutableMapping[str, Any]) -> Response | None:
        assert self.logins is not None
        wait = self.attempts.wait(state["client"])
        if wait > 0:
            return too_many(wait)
        if self.logins.knows(token):
            self.attempts.right(state["client"])
            state["user"] = "token"
            return None
        self.attempts.wrong(state["client"])
        return _error(401, "web_wrong_token", "This is not the login token.")

    def _to_login(self, scope: Scope, headers: Headers) -> Response:
        query = scope["query_string"].decode("ascii", "replace")
        here = scope["path"] + (f"?{query}" if query else "")
        plain = scope["path"].endswith((".json", ".csv")) or scope["path"] == "/live"
        if plain or scope["method"] not in ("GET", "HEAD"):
            return _error(401, "web_login_needed", "Log in, or send the token as a bearer.")
        if headers.get("sec-fetch-site") == "cross-site":
            # A strict cookie does not come along with a link from elsewhere; it does from here.
            return hop_page(f"{self._root}{here}")
        to_login = self._root + address_of("/login", to=None if here == "/" else here)
        return RedirectResponse(to_login, status_code=303)

    def _same_origin(self, headers: Headers, state: MutableMapping[str, Any]) -> bool:
        if state["user"] == "token":  # no browser sends a bearer by itself
            return True
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site == "same-origin"
        origin = headers.get("origin")
        return origin is not None and urlsplit(origin).netloc == headers.get("host", "")


def _first_hop(headers: Headers) -> str | None:
    """Whom the trusted proxy saw: the last entry, which it wrote itself."""
    told = headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    return told[:64] or None


def too_many(wait: float) -> Response:
    """Too many wrong tokens."""
    return _error(
        429, "web_too_many_tokens", "Too many wrong tokens: wait.",
        {"Retry-After": f"{int(wait) + 1}"},
    )  # fmt: skip


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    document = {
        "ok": False,
        "exit_code": 2,
        "error": {"code": code, "category": "system", "message": message, "remedy": ""},
    }
    return JSONResponse(document, status, headers)


def plain_page(text: str, status: int = 200) -> HTMLResponse:
    """A page."""
    return HTMLResponse(text, status)
