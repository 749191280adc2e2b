"""The application: each view as page, JSON and CSV; decisions; the login."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

import rubix_token_sync as rts
from rubix_token_sync.documents import csv_text, to_json
from rubix_token_sync.pages.markup import tag
from rubix_token_sync.pages.parts import with_code
from rubix_token_sync.web.access import COOKIE, Access, too_many
from rubix_token_sync.web.desk import Desk
from rubix_token_sync.web.frame import Answer, Frame, Links, static_file
from rubix_token_sync.web.live import Stream
from rubix_token_sync.web.login import inside, login_page
from rubix_token_sync.web.options import ServeOptions
from rubix_token_sync.web.query import Query, refused
from rubix_token_sync.web.session import LASTS
from rubix_token_sync.web.views import VIEWS, View
from rubix_token_sync.web.views import tokens as tokens_view

__all__ = ["make_app"]

_LOG = logging.getLogger(__name__)
_THREADS: Final = 8
_MOST_BODY: Final = 16_384
_MOST_CSV: Final = 2
"""Lists written whole at the same time."""
_STATUS: Final = {
    "no_such_token": 404, "no_such_node": 404, "no_such_source": 404, "no_such_session": 404,
    "no_such_finding": 404, "no_such_run": 404, "unknown_rule": 404,
    "finding_resolved": 409, "web_read_only": 403, "web_busy": 503,
}  # fmt: skip
_WARMED: Final = ("/fleet", "/nodes", "/errors")
_DECISIONS: Final = ("acknowledge", "suppress", "reopen")


def make_app(
    configuration: rts.Configuration, reader: rts.TargetReader, options: ServeOptions
) -> Access:
    """The page over an open target; closing that is the caller's."""
    site = _Site(Desk(configuration, reader, options), options)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        threading.Thread(target=site.warm, daemon=True).start()
        async with site.stream.running():
            yield

    app = Starlette(routes=site.routes(), lifespan=lifespan, exception_handlers=site.handlers())
    access = Access(app, options)
    site.access = access
    return access


class _Site:
    """The answers to requests."""

    access: Access

    def __init__(self, desk: Desk, options: ServeOptions) -> None:
        self.desk, self._options = desk, options
        self._links = Links(options.root_path)
        self.stream = Stream(desk)
        self._csv = threading.BoundedSemaphore(_MOST_CSV)

    def routes(self) -> list[Route]:
        """Every address there is."""
        found = [Route("/", partial_endpoint(self._page, VIEWS[0]))]
        for view in VIEWS:
            found += [
                Route(view.path, partial_endpoint(self._page, view)),
                Route(f"{view.path}.json", partial_endpoint(self._json, view)),
                Route(f"{view.path}.csv", partial_endpoint(self._as_csv, view)),
            ]
        return [
            *found,
            Route("/find", self._find),
            Route("/live", self.stream.events),
            Route("/live.json", self._pulse),
            Route("/static/{name}", self._static),
            Route("/healthz", self._health),
            Route("/login", self._ask_login),
            Route("/login", self._log_in, methods=["POST"]),
            Route("/logout", self._log_out, methods=["POST"]),
            Route("/finding/{what}", self._decide, methods=["POST"]),
        ]

    def handlers(self) -> dict[Any, Callable[..., Any]]:
        """What is answered where something is wrong."""
        return {
            HTTPException: self._http_error,
            Exception: self._failed,
            rts.SyncError: self._failed,
        }

    # ------------------------------------------------------------------ views

    def warm(self) -> None:
        """Ask what viewers ask first, before there are any."""
        nothing = Query([])
        try:
            for view in VIEWS:
                if view.path in _WARMED:
                    self.desk.ask((view.path, nothing.pairs), partial(view.ask, self.desk, nothing))
        except rts.SyncError as error:
            _LOG.debug("Not asked ahead: %s", error)

    def _answer(self, view: View, request: Request) -> tuple[Answer, Query]:
        query = Query(request.query_params.multi_items())
        query.only(view.parameters)
        self.desk.require_known(query)
        if not view.kept:
            return view.ask(self.desk, query), query
        key = (view.path, query.pairs)
        return self.desk.ask(key, lambda: view.ask(self.desk, query)), query

    def _page(self, view: View, request: Request) -> Response:
        answer, query = self._answer(view, request)
        here = "/" if view.path == "/fleet" else view.path
        unread = self.desk.unread(query) if view.says_unread else None
        return HTMLResponse(self._frame(request, here, query).page(answer, unread))

    def _json(self, view: View, request: Request) -> Response:
        answer, _ = self._answer(view, request)
        text = rts.json_text(to_json(answer.document)) + "\n"
        return Response(text, media_type="application/json")

    def _as_csv(self, view: View, request: Request) -> Response:
        name = f"{view.path.strip('/')}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        if view.path == "/tokens":
            return self._whole_csv(view, request, headers)
        answer, _ = self._answer(view, request)
        if answer.rows is None:
            raise HTTPException(404)
        text = csv_text(*answer.rows)
        return Response(text, media_type="text/csv", headers=headers)

    def _whole_csv(self, view: View, request: Request, headers: dict[str, str]) -> Response:
        """Every record that matches, however many: from page to page."""
        query = Query(request.query_params.multi_items())
        query.only(view.parameters)
        self.desk.require_known(query)
        parts = tokens_view.csv_of(self.desk, query)
        first = [next(parts), next(parts)]  # what is wrong with the address shows before the answer
        if not self._csv.acquire(blocking=False):
            raise rts.SettingsError(
                "Other lists are being written at this moment.",
                code="web_busy",
                remedy="Try again in a minute, or use `rubix-token-sync export`.",
            )

        def lines() -> Iterator[str]:
            try:
                yield from first
                yield from parts
            finally:
                self._csv.release()

        return StreamingResponse(lines(), media_type="text/csv", headers=headers)

    def _find(self, request: Request) -> Response:
        query = Query(request.query_params.multi_items())
        query.only(["q"])
        text = (query.text("q") or "").strip()
        found = "/tokens" if not text else tokens_view.find(self.desk, text)
        return RedirectResponse(self._links(found), status_code=303)

    def _pulse(self, request: Request) -> Response:
        del request
        return JSONResponse(to_json(self.desk.pulse()))

    def _frame(self, request: Request, here: str, query: Query) -> Frame:
        state = request.scope["state"]
        return Frame(
            self._links, self.desk.reader.place, here, query, state["user"], state["by_cookie"]
        )

    # ------------------------------------------------------------------ files and health

    def _static(self, request: Request) -> Response:
        found = static_file(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        data, kind, version = found
        lasting = request.query_params.get("v") == version
        age = "public, max-age=31536000, immutable" if lasting else "no-cache"
        return Response(data, media_type=kind, headers={"Cache-Control": age})

    def _health(self, request: Request) -> Response:
        """For a proxy or a supervisor: the process answers, and so does the target."""
        del request
        self.desk.require_target()
        return PlainTextResponse("ok\n")

    # ------------------------------------------------------------------ login

    def _ask_login(self, request: Request) -> Response:
        if self.access.logins is None:
            return RedirectResponse(self._links("/"), status_code=303)
        return login_page(self._links.root, inside(request.query_params.get("to")))

    async def _log_in(self, request: Request) -> Response:
        form = await _form(request)
        to, name, token = inside(form.get("to")), form.get("name", ""), form.get("token", "")
        logins, client = self.access.logins, request.scope["state"]["client"]
        if logins is None:
            return RedirectResponse(self._links("/"), status_code=303)
        wait = self.access.attempts.wait(client)
        if wait > 0:
            return too_many(wait)
        if not logins.knows(token):
            self.access.attempts.wrong(client)
            rts.log_event(
                _LOG, logging.WARNING, "web_wrong_token",
                f"A wrong login token came from {client}.",
            )  # fmt: skip
            return login_page(self._links.root, to, said="This is not the token.", status=401)
        self.access.attempts.right(client)
        answer = RedirectResponse(self._links.root + to, status_code=303)
        answer.set_cookie(
            COOKIE,
            logins.cookie(rts.shown(name.strip())[:100] or "viewer"),
            max_age=LASTS,
            path=self._links.root or "/",
            secure=request.scope["state"]["secure"] or request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    def _log_out(self, request: Request) -> Response:
        del request
        answer = RedirectResponse(self._links("/login"), status_code=303)
        answer.delete_cookie(COOKIE, path=self._links.root or "/", httponly=True, samesite="strict")
        return answer

    # ------------------------------------------------------------------ decisions

    async def _decide(self, request: Request) -> Response:
        what = request.path_params["what"]
        if what not in _DECISIONS:
            raise HTTPException(404)
        form = await _form(request)
        user = str(request.scope["state"]["user"])
        name = await anyio.to_thread.run_sync(self._decided, what, form, user)
        return RedirectResponse(self._links("/finding", name=name), status_code=303)

    def _decided(self, what: str, form: dict[str, str], user: str) -> str:
        """The name of the finding, once the target has the decision."""
        if self._options.read_only:
            raise rts.SettingsError(
                "Nothing can be decided here: the page is served with --read-only.",
                code="web_read_only",
                remedy="Decide on the command line: `rubix-token-sync findings`.",
            )
        name, note = form.get("name", ""), form.get("note", "").strip() or None
        configuration = self.desk.configuration
        by = None if user == "local" else f"{user} (page)"
        if what == "acknowledge":
            found = rts.acknowledge_finding(name, by=by, note=note, configuration=configuration)
        elif what == "reopen":
            found = rts.reopen_finding(name, by=by, note=note, configuration=configuration)
        else:
            found = rts.suppress_finding(
                name,
                reason=form.get("reason", ""),
                lasting=_lasting(form.get("for", "")),
                by=by,
                configuration=configuration,
            )
        rts.log_event(
            _LOG, logging.INFO, "web_decided", f"{found.fingerprint}: {what} by {by or user}.",
            finding=found.fingerprint, decision=what,
        )  # fmt: skip
        self.desk.forget(decided=True)
        threading.Thread(target=self.desk.renew, daemon=True).start()
        return found.fingerprint

    # ------------------------------------------------------------------ what is wrong

    def _http_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = {404: "This page does not exist.", 405: "This cannot be done with this address."}
        sentence = said.get(error.status_code, str(error.detail))
        return self._wrong(request, error.status_code, "no_such_page", "system", sentence, "")

    def _failed(self, request: Request, error: Exception) -> Response:
        failure = rts.explain_failure(error)
        if isinstance(error, rts.TargetError):
            status = 503
        elif isinstance(error, rts.SyncError):
            status = _STATUS.get(failure.code, 400)
        else:
            status = 500
            _LOG.error("A page failed: %s", failure.message, exc_info=error)
        return self._wrong(
            request, status, failure.code, failure.category, failure.message, failure.remedy
        )

    def _wrong(
        self, request: Request, status: int, code: str, category: str, sentence: str, remedy: str
    ) -> Response:
        sentence, remedy = rts.redact(sentence), rts.redact(remedy)
        if request.url.path.endswith((".json", ".csv")):
            document = {
                "ok": False,
                "exit_code": 2 if status < 500 else 3,
                "error": {
                    "code": code, "category": category, "message": sentence, "remedy": remedy,
                },
            }  # fmt: skip
            return Response(rts.json_text(document) + "\n", status, media_type="application/json")

        unread = None
        if code == "no_such_token":  # nor was it looked for where nothing was read
            with contextlib.suppress(rts.SyncError):
                unread = self.desk.unread(Query([]))

        def body(links: Links) -> list[Any]:
            del links
            return [
                tag(
                    "div",
                    with_code(remedy, "p") if remedy else None,
                    tag("p", tag("code", code), class_="soft"),
                    class_="card",
                )
            ]

        state = request.scope.get("state", {})
        frame = Frame(
            self._links, self.desk.reader.place, request.scope["path"], Query([]),
            state.get("user"), bool(state.get("by_cookie")),
        )  # fmt: skip
        answer = Answer(title=sentence, document={}, body=body, for_programs=False)
        return HTMLResponse(frame.page(answer, unread), status)


def partial_endpoint(
    function: Callable[[View, Request], Response], view: View
) -> Callable[[Request], Response]:
    """An endpoint of Starlette, which runs in a thread."""
    return partial(function, view)


def _lasting(text: str) -> timedelta:
    try:
        return rts.parse_age(text)
    except ValueError as error:
        raise refused(f"{error}.") from error


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, each once."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise HTTPException(415, "A form is wanted.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BODY:
            raise HTTPException(413, "The form is too large.")
    pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=50)
    query = Query(pairs)
    query.only({name for name, _ in pairs})
    return dict(pairs)
