"""One stream of events for every tab that is open: the target is asked once for all of them."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

import rubix_token_sync as rts
from rubix_token_sync.documents import to_json
from rubix_token_sync.web.desk import Desk

__all__ = ["Stream"]

_LOG = logging.getLogger(__name__)
_EVERY: Final = 2.0
_PATIENCE: Final = 10.0
"""Seconds after which a target that has not answered counts as one that does not answer."""
_SIGN_OF_LIFE: Final = 15.0
_MOST_LISTENERS: Final = 200


class Stream:
    """Tells every listener what is new, as long as there are listeners."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._listeners = 0
        self._wanted = anyio.Event()
        self._next = anyio.Event()
        self._last = ""
        self._said = ""
        """What listeners hear: the last answer, or that there is none."""
        self._found: dict[str, Any] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Asks the target while somebody listens."""
        self._limiter = anyio.CapacityLimiter(1)  # the one that hangs is not asked by another
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._ask)
            yield
            tasks.cancel_scope.cancel()

    async def _ask(self) -> None:
        while True:
            if not self._listeners:
                self._said = ""  # whoever comes next hears how it is then
                self._wanted = anyio.Event()
                await self._wanted.wait()
            try:
                found = await self._pulse()
            except rts.SyncError as error:
                said = rts.shown(rts.redact(error.message))
                self._say("lost", json.dumps({"message": said, "code": error.code}))
            else:
                await self._heard(found)
            await anyio.sleep(_EVERY)

    async def _pulse(self) -> dict[str, Any]:
        """
        Raises:
            SyncError: the target cannot be asked, or does not answer.
        """
        with anyio.move_on_after(_PATIENCE):
            return await anyio.to_thread.run_sync(
                self._desk.pulse, abandon_on_cancel=True, limiter=self._limiter
            )
        raise rts.SettingsError(
            f"The target has not answered for {_PATIENCE:.0f} s.",
            code="web_busy",
            remedy="`rubix-token-sync check` says how it is.",
        )

    async def _heard(self, found: dict[str, Any]) -> None:
        text = json.dumps(to_json(found))
        if text != self._last:  # the first time, too: a page may have been loaded before it
            more = any(found[n] != self._found.get(n) for n in ("fleet", "findings"))
            if more:
                await anyio.to_thread.run_sync(self._desk.renew)
            self._desk.forget(only_runs=not more)
            self._last, self._found = text, found
        self._say("pulse", text)

    def _say(self, event: str, data: str) -> None:
        """Tell every listener, unless that is what they heard last."""
        said = f"event: {event}\ndata: {data}\n\n"
        if said != self._said:
            self._said = said
            self._next.set()
            self._next = anyio.Event()

    async def events(self, request: Request) -> Response:
        """A stream for one tab."""
        del request
        if self._listeners >= _MOST_LISTENERS:
            return PlainTextResponse("Too many tabs are open: poll.\n", 503)
        return StreamingResponse(
            self._lines(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    async def _lines(self) -> AsyncIterator[str]:
        self._listeners += 1
        self._wanted.set()
        try:
            yield "retry: 10000\n\n"
            sent = ""
            while True:
                if self._said and self._said != sent:
                    sent = self._said
                    yield sent
                told = self._next
                with anyio.move_on_after(_SIGN_OF_LIFE) as waited:
                    await told.wait()
                if waited.cancelled_caught:
                    yield ": still here\n\n"
        finally:
            self._listeners -= 1
