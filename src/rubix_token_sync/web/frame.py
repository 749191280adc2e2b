"""What stands around every view: head, navigation, the forms an answer has, foot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final

from rubix_token_sync import __version__
from rubix_token_sync.amounts import when
from rubix_token_sync.pages.markup import Element, address, link, style_sheet, tag, written
from rubix_token_sync.pages.parts import notice, with_code
from rubix_token_sync.web.query import Query

__all__ = ["NAVIGATION", "Answer", "Frame", "Links", "static_file"]

NAVIGATION: Final = (
    ("/", "Fleet"),
    ("/nodes", "Nodes"),
    ("/runs", "Runs"),
    ("/tokens", "Tokens"),
    ("/findings", "Findings"),
    ("/errors", "Errors"),
    ("/evidence", "Evidence"),
)
_STATIC: Final = {
    "page.css": "text/css; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_HTMX: Final = (
    '{"includeIndicatorStyles":false,"allowEval":false,"selfRequestsOnly":true,'
    '"historyCacheSize":0,"allowScriptTags":false,"timeout":20000}'
)


@cache
def static_file(name: str) -> tuple[bytes, str, str] | None:
    """A file that pages load: its bytes, its type, its version."""
    kind = _STATIC.get(name)
    if kind is None:
        return None
    if name == "page.css":
        data = style_sheet().encode()
    else:
        data = files(__package__).joinpath("static", name).read_bytes()
    return data, kind, sha256(data).hexdigest()[:12]


@dataclass(frozen=True)
class Links:
    """Addresses of this page, below the path at which a proxy serves it."""

    root: str = ""

    def __call__(self, path: str, /, **parameters: Any) -> str:
        return self.root + address(path, **parameters)

    def static(self, name: str) -> str:
        """A file, with its version: it may be kept for ever."""
        found = static_file(name)
        assert found is not None, name
        return self(f"/static/{name}", v=found[2])


@dataclass(frozen=True)
class Answer:
    """What a view found: its JSON document, its rows for CSV, and what it looks like."""

    title: str
    document: Mapping[str, Any]
    body: Callable[[Links], Sequence[Element | None]]
    rows: tuple[type[Any], Sequence[Any]] | None = None
    at: datetime | None = None
    """By the target's clock."""
    live: str | None = None
    """What of the pulse changes it: ``runs``, ``fleet``, ``findings``."""
    path: tuple[tuple[str, str], ...] = ()
    """The pages above it: titles with their paths."""
    under: object = None
    """A line below the title."""
    headed: bool = False
    """The body brings its own heading."""
    for_programs: bool = True
    """It has a JSON form."""
    forms: Callable[[Links], Sequence[Element | None]] | None = None
    """What stands above the part that renews itself, such as filters."""


@dataclass(frozen=True)
class Frame:
    """One request's surroundings."""

    links: Links
    place: str
    here: str
    """The view's path."""
    query: Query
    user: str | None = None
    can_leave: bool = False
    """There is a login to leave."""

    def page(self, answer: Answer, unread: str | None = None) -> str:
        """The whole page; ``unread``: what the answer cannot speak for."""
        note = notice("warn", with_code(unread)) if unread else None
        live = tag("div", note, *self._body(answer), id="live", **self._renewal(answer))
        forms = [] if answer.forms is None else answer.forms(self.links)
        main = tag(
            "main",
            None if answer.headed else self._title(answer),
            *forms,
            live,
            id="main",
            tabindex="-1",
        )
        return self.whole(answer.title, self._top(), main, self._foot(answer))

    def whole(self, title: str, *inside: Element | None) -> str:
        """A page of these parts."""
        head = tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("meta", name="htmx-config", content=_HTMX),
            tag("title", f"{title} · Rubix Token Sync"),
            tag("link", rel="icon", href=self.links.static("icon.svg"), type="image/svg+xml"),
            tag("link", rel="stylesheet", href=self.links.static("page.css")),
            tag("script", src=self.links.static("htmx.min.js"), defer=True),
            tag("script", src=self.links.static("live.js"), defer=True),
        )
        body = tag("body", *inside, data_stream=self.links("/live"))
        return written(head, body)

    def _body(self, answer: Answer) -> Sequence[Element | None]:
        return answer.body(self.links)

    def _renewal(self, answer: Answer) -> dict[str, str]:
        if answer.live is None:
            return {}
        return {
            "data_live": answer.live,
            "hx_get": self.links(self.here, **_parameters(self.query)),
            "hx_trigger": "fresh from:body",
            "hx_select": "#live",
            "hx_swap": "outerHTML",
        }

    def _top(self) -> Element:
        links = self.links
        entries = []
        for path, name in NAVIGATION:
            here = path == self.here or (path != "/" and f"{self.here}/".startswith(f"{path}/"))
            own = tag("a", name, href=links(path), aria_current="page" if here else None)
            entries.append(tag("li", own))
        return tag(
            "header",
            tag("a", "Skip to the content", href="#main", class_="skip"),
            tag(
                "div",
                tag("a", _mark(), tag("span", "Rubix Token Sync"), href=links("/"), class_="brand"),
                tag("nav", tag("ul", *entries), aria_label="Views"),
                tag(
                    "form",
                    tag(
                        "input", type="search", name="q", maxlength=500, autocomplete="off",
                        placeholder="Token id or DID", aria_label="Find a token id or DID",
                        spellcheck="false",
                    ),
                    tag("button", "Find", class_="plain"),
                    class_="find", role="search", action=links("/find"), method="get",
                ),
                class_="row",
            ),
            class_="top",
        )  # fmt: skip

    def _title(self, answer: Answer) -> Element:
        above = [tag("li", link(title, self.links(path))) for title, path in answer.path]
        return tag(
            "div",
            tag(
                "div",
                tag("ol", *above, class_="path") if above else None,
                tag("h1", answer.title),
                None if answer.under is None else tag("p", answer.under, class_="under"),
            ),
            self._forms(answer),
            class_="title",
        )

    def _forms(self, answer: Answer) -> Element | None:
        if not answer.for_programs:
            return None
        given = _parameters(self.query)
        here = "/fleet" if self.here == "/" else self.here
        kinds = ["json"] if answer.rows is None else ["json", "csv"]
        return tag(
            "ul",
            *(
                tag("li", link(kind.upper(), self.links(f"{here}.{kind}", **given)))
                for kind in kinds
            ),
            class_="forms",
            aria_label="This answer for programs",
        )

    def _foot(self, answer: Answer) -> Element:
        asked = "" if answer.at is None else f", as of {when(answer.at)} UTC"
        leave = tag(
            "form",
            tag("button", "Log out", class_="as-link"),
            method="post",
            action=self.links("/logout"),
        )
        who = f"{self.user}" if self.user else None
        return tag(
            "footer",
            tag(
                "div",
                tag("span", f"{self.place}{asked}"),
                tag("span", tag("button", "Pause updates", type="button", class_="as-link",
                                data_pause=True, hidden=True)) if answer.live else None,
                tag("span", who, " · " if self.can_leave else None,
                    leave if self.can_leave else None) if who else None,
                self._forms(answer) if answer.headed else None,
                tag("span", f"Version {__version__}"),
                class_="row",
            ),
        )  # fmt: skip


def _parameters(query: Query) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in query.pairs:
        found.setdefault(name, []).append(value)
    return found


def _mark() -> Element:
    """Three blocks: a token, proven, in one place."""
    return tag(
        "svg",
        tag("rect", class_="one", x=0, y=0, width=9, height=9, rx=2),
        tag("rect", class_="two", x=11, y=0, width=9, height=9, rx=2),
        tag("rect", class_="three", x=0, y=11, width=9, height=9, rx=2),
        tag("rect", class_="one", x=11, y=11, width=9, height=9, rx=2),
        viewBox="0 0 20 20", width=20, height=20, aria_hidden="true",
    )  # fmt: skip
