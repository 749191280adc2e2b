"""What nodes say is text, wherever it stands; whatever an address says is answered."""

from __future__ import annotations

import random
import string
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from rubix_token_sync.pages.markup import Element, address, link, style, tag
from rubix_token_sync.pages.parts import with_code
from rubix_token_sync.web.views import VIEWS
from tests.web.conftest import BIDI, HOSTILE_IDS, HOSTILE_NODES, SCRIPT, Site

NASTY = (
    *HOSTILE_IDS, *HOSTILE_NODES, "", " ", "0", "-1", "1e9", "9" * 30, "'", "' OR 1=1 --", "%", "_",
    "%00", "\x00", "\ud800", "é" * 400, "\u202e", "../" * 50, "*", "a*", "Qm*", "QmQmQmQmQmQm*",
    "null", "true", "i0", "i9999999999999999999", "k" + "f" * 48, "k" + "g" * 48, "yes", "no",
    "both", "none", "all", "7d", "100000w", "2026-11-24", "0001-01-01", "9999-12-31", "120,122-130",
    "999999999999999999", "RUNNING", "error", "held_twice", "held_twice:" + "0" * 32, "rbt", "ipfs",
    "٣", "1,000",
)  # fmt: skip
"""Values that have broken one page or another."""


def check(site: Site, path: str, pairs: list[tuple[str, str]]) -> None:
    """Answered, and never by a failure."""
    query = urlencode(pairs, errors="surrogatepass")
    answer = site.get(f"{path}?{query}")
    assert answer.status_code in (200, 303, 400, 403, 404), f"{path}?{query}: {answer.text[:800]}"
    assert SCRIPT not in answer.text or "json" in answer.headers["content-type"] or (
        "csv" in answer.headers["content-type"]
    ), f"{path}?{query}"  # fmt: skip
    assert "\u202e" not in answer.text


def fuzz(site: Site, rounds: int, seed: int) -> None:
    """Every parameter of every view and form, with values of its own."""
    draw = random.Random(seed)
    letters = string.printable + "é\u202e\U0001f600<>&\"'"
    for _ in range(rounds):
        for view in VIEWS:
            form = draw.choice(("", ".json")) if view.path == "/tokens" else draw.choice(
                ("", ".json", ".csv")
            )  # fmt: skip
            pairs = []
            for name in draw.sample(view.parameters, min(len(view.parameters), draw.randint(0, 4))):
                value = draw.choice(NASTY)
                if draw.random() < 0.2:
                    value = "".join(draw.choices(letters, k=draw.randint(1, 60)))
                pairs.append((name, value))
            if draw.random() < 0.1:
                pairs.append((draw.choice(("x", "id", "limit", "")), draw.choice(NASTY)))
            check(site, view.path + form, pairs)
        check(site, "/find", [("q", draw.choice(NASTY))])


def test_each_parameter_takes_anything(site: Site) -> None:
    """One nasty value at a time, by turns, so that every parameter has met several."""
    turn = 0
    for view in VIEWS:
        for name in view.parameters:
            for _ in range(4):
                check(site, view.path, [(name, NASTY[turn % len(NASTY)])])
                turn += 7
    fuzz(site, 3, seed=20_261_130)


@pytest.mark.long
def test_each_parameter_takes_anything_for_long(site: Site) -> None:
    for view in VIEWS:
        for name in view.parameters:
            for value in NASTY:
                check(site, view.path, [(name, value)])
    fuzz(site, 25, seed=7)


def test_hostile_tokens_have_pages_that_do_nothing(site: Site) -> None:
    for token in HOSTILE_IDS:
        page = site.page(f"/token?id={quote(token)}")
        assert page.tags.count("script") == 2, "our own"
        assert "img" not in page.tags
        assert "\u202e" not in page.text
        for link_ in page.links:
            assert link_.startswith(("/", "#")), link_
        told = site.json(f"/token.json?id={quote(token)}")
        assert told["token_id"] == token
        assert len(told["holders"]) >= 2
    shown = site.page(f"/token?id={quote(HOSTILE_IDS[3])}").words
    assert "\\u202e" in shown, "the mark itself is shown"


def test_large_contents_are_shown_as_text(site: Site) -> None:
    told = site.json(f"/token.json?id={quote(HOSTILE_IDS[0])}")
    assert len(told["content"]) > 50_000 or any(h["ipfs_fetched"] for h in told["holders"])
    page = site.page(f"/token?id={quote(HOSTILE_IDS[0])}")
    assert "b" not in page.tags


def test_hostile_nodes_have_pages_that_do_nothing(site: Site) -> None:
    for node in HOSTILE_NODES:
        page = site.page(f"/node?name={quote(node)}")
        assert page.tags.count("script") == 2
        assert site.json(f"/node.json?name={quote(node)}")["databases"][0]["node_name"] == node
        assert len(site.json(f"/tokens.json?node={quote(node)}&limit=500")["tokens"]) >= 3


def test_lists_with_hostile_rows_do_nothing(site: Site) -> None:
    for path in ("/", "/nodes", "/tokens?limit=500", "/findings?limit=500&state=all", "/errors"):
        page = site.page(path)
        assert page.tags.count("script") == 2, path
        assert BIDI not in page.text
        assert not [t for t, name, _ in page.attributes if name in ("onerror", "onload", "style")]


def test_json_keeps_no_character_that_acts(site: Site) -> None:
    text = site.get("/tokens.json?limit=500").text
    assert "\u202e" not in text
    assert "\\u202e" in text


# --- the writer ---------------------------------------------------------------------------------


def test_texts_and_attributes_are_escaped() -> None:
    made = tag("p", "<b>&\"'", tag("i", "x"), title="\"><script>'", hidden=True, lang=None)
    assert made == (
        '<p title="&quot;&gt;&lt;script&gt;&#39;" hidden>&lt;b&gt;&amp;&quot;&#39;<i>x</i></p>'
    )
    assert tag("p", str(tag("b", "x")) + "") == "<p>&lt;b&gt;x&lt;/b&gt;</p>", "text is text again"
    assert tag("p", f"{tag('b')}") == "<p>&lt;b&gt;&lt;/b&gt;</p>"
    assert isinstance(tag("p"), Element)
    assert with_code("run `<x>` now") == "<span>run <code>&lt;x&gt;</code> now</span>"


@pytest.mark.parametrize("url", ["javascript:alert(1)", "//evil.example", "https://evil", "x", ""])
def test_a_link_stays_here(url: str) -> None:
    with pytest.raises(ValueError, match="links to itself"):
        link("x", url)


def test_addresses_keep_what_was_given(site: Site) -> None:
    assert address("/x", a=["1", None, "", "2"], b=None, c="ä &") == "/x?a=1&a=2&c=%C3%A4+%26"
    with pytest.raises(ValueError, match="ends no element"):
        style("</style><script>")


def test_a_hostile_name_of_a_user_is_text(site: Site) -> None:
    answer: Any = site.get(f"/find?q={quote(SCRIPT)}")
    assert answer.status_code == 303
    assert SCRIPT not in answer.headers["location"]
