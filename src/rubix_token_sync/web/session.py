"""Logins: signed cookies, and how many wrong tokens are listened to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections import OrderedDict
from typing import Final

__all__ = ["LASTS", "Attempts", "Logins"]

LASTS: Final = 12 * 3600
"""Seconds until a viewer has to log in again."""
_LONGEST: Final = 1_000
_FREE: Final = 5
"""Wrong tokens of one address that cost nothing but the answer."""
_FORGET: Final = 900.0
_MOST_ADDRESSES: Final = 10_000
_ALL_FREE: Final = 100
"""Wrong tokens of all addresses within `_FORGET` seconds, whoever sent them."""


class Logins:
    """Cookies that say who logged in until when; a key made of the token signs them.

    Another token makes every cookie worthless.  A restart does not.
    """

    def __init__(self, token: str) -> None:
        self._token = hashlib.sha256(token.encode()).digest()
        self._key = hmac.digest(token.encode(), b"rubix-token-sync web cookie 1", "sha256")

    def knows(self, token: str) -> bool:
        """This is the token; takes as long for every wrong one."""
        return hmac.compare_digest(hashlib.sha256(token.encode()).digest(), self._token)

    def cookie(self, name: str, *, now: float | None = None) -> str:
        """The cookie of a viewer of this name."""
        until = int((time.time() if now is None else now) + LASTS)
        told = json.dumps([name, until, secrets.token_hex(8)]).encode()
        text = base64.urlsafe_b64encode(told).decode().rstrip("=")
        return f"{text}.{self._signature(text)}"

    def name_in(self, cookie: str, *, now: float | None = None) -> str | None:
        """Who that is; None: it is not one of ours, or too old."""
        text, _, signature = cookie.partition(".")
        if len(cookie) > _LONGEST or not cookie.isascii():
            return None
        if not hmac.compare_digest(signature, self._signature(text)):
            return None
        name, until, _ = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        return str(name) if until > (time.time() if now is None else now) else None

    def _signature(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()


class Attempts:
    """Counts wrong tokens: who sends many waits, longer each time."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._all: list[float] = []

    def wait(self, address: str, *, now: float | None = None) -> float:
        """Seconds until a token of this address is looked at; 0: now."""
        at = time.monotonic() if now is None else now
        self._all = [one for one in self._all if at - one < _FORGET]
        count, last = self._wrong.get(address, (0, at))
        if at - last > _FORGET:
            self._wrong.pop(address, None)
            count = 0
        own = last + 2.0 ** min(count - _FREE, 9) - at if count >= _FREE else 0.0
        crowd = self._all[-1] + 2.0 - at if len(self._all) >= _ALL_FREE else 0.0
        return max(0.0, own, crowd)

    def wrong(self, address: str, *, now: float | None = None) -> None:
        """One more."""
        at = time.monotonic() if now is None else now
        self._all = [*self._all[-2 * _ALL_FREE :], at]
        count, _ = self._wrong.get(address, (0, at))
        self._wrong[address] = count + 1, at
        self._wrong.move_to_end(address)
        while len(self._wrong) > _MOST_ADDRESSES:
            self._wrong.popitem(last=False)

    def right(self, address: str) -> None:
        """The token was right: what came before does not count."""
        self._wrong.pop(address, None)
