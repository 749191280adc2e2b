"""Pages of the door: logging in, and what is said to whoever is not let in."""

from __future__ import annotations

from starlette.responses import HTMLResponse

from rubix_token_sync.pages.markup import link, tag
from rubix_token_sync.pages.parts import notice, with_code
from rubix_token_sync.web.frame import Frame, Links
from rubix_token_sync.web.query import Query

__all__ = ["hop_page", "inside", "login_page", "refused_page"]


def inside(path: str | None) -> str:
    """``path`` if it is one of this page's own, else its first."""
    if path is None or not path.startswith("/") or path.startswith(("//", "/\\")):
        return "/"
    return path if path.isprintable() and "\\" not in path else "/"


def login_page(root: str, to: str, *, said: str | None = None, status: int = 200) -> HTMLResponse:
    """Asks for the token, and for the name that stands beside what is decided."""
    body = tag(
        "main",
        tag(
            "div",
            tag("h1", "Log in"),
            tag("p", "The token is in the file that the server was started with.", class_="soft"),
            None if said is None else notice("bad", said),
            tag(
                "form",
                tag("input", type="hidden", name="to", value=inside(to)),
                tag(
                    "label",
                    "Your name, noted with what you decide",
                    tag("input", name="name", autocomplete="username", maxlength=100),
                    class_="field",
                ),
                tag(
                    "label",
                    "Token",
                    tag("input", name="token", type="password", required=True, maxlength=512,
                        autocomplete="current-password"),
                    class_="field",
                ),
                tag("div", tag("button", "Log in")),
                method="post",
                action=f"{root}/login",
            ),
            class_="card",
        ),
        class_="gate",
        id="main",
    )  # fmt: skip
    return HTMLResponse(_frame(root).whole("Log in", body), status)


def hop_page(here: str) -> HTMLResponse:
    """Opens the same address once more, as a link of this page's own."""
    text = (
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8><title>Rubix Token Sync</title>"
        '<meta http-equiv="refresh" content="0"></head><body><p>'
    )
    return HTMLResponse(text + link("Open the page", inside(here)) + "</p></body></html>\n")


def refused_page(
    status: int, code: str, sentence: str, root: str, remedy: str = ""
) -> HTMLResponse:
    """A sentence, its code, and what to do."""
    body = tag(
        "main",
        tag(
            "div",
            tag("h1", sentence),
            with_code(remedy, "p") if remedy else None,
            tag("p", tag("code", code), class_="soft"),
            class_="card",
        ),
        class_="gate",
        id="main",
    )
    return HTMLResponse(_frame(root).whole(sentence, body), status)


def _frame(root: str) -> Frame:
    return Frame(Links(root), "", "", Query([]))
