"""Every view in a real browser: phone, tablet, desktop; light and dark; with and without scripts.

One browser for all of it.  Nothing may be wider than its screen, say anything on the console,
or have a fault that axe knows of.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, sync_playwright

import rubix_token_sync as rts
from rubix_token_sync.reports.page import render_page
from tests.web.conftest import HOSTILE_IDS, HOSTILE_NODES, SCRIPT, Place
from tests.web.test_serving import served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
WIDTHS = (360, 768, 1280)
_OUTSIDE = """() => [...document.querySelectorAll("body *")]
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll, pre"))
  .map((e) => `${e.tagName}.${e.className}`).slice(0, 5)"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
            ],
        )  # fmt: skip
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(place: Place) -> Iterator[str]:
    """The page, served by a process of its own."""
    options = ("--reports", str(place.reports), "--evidence", str(place.evidence))
    with served(place, *options) as (found, _):
        yield found.rstrip("/")


@pytest.fixture(scope="module")
def views(address: str) -> dict[str, str]:
    """An address of every view, hostile ones included."""

    def told(path: str) -> Any:
        return httpx.get(address + path).raise_for_status().json()

    run = next(r for r in told("/runs.json")["sessions"] if r["total_databases_processed"])
    finding = told("/findings.json")["findings"][0]
    return {
        "fleet": "/",
        "nodes": "/nodes",
        "node": "/node?name=node033",
        "hostile node": f"/node?name={quote(HOSTILE_NODES[0])}",
        "runs": "/runs",
        "run": f"/run?id={run['session_id']}",
        "tokens": "/tokens",
        "hostile tokens": f"/tokens?node={quote(SCRIPT)}",
        "token": f"/token?id={quote(finding['token_id'])}",
        "hostile token": f"/token?id={quote(HOSTILE_IDS[0])}",
        "findings": "/findings?state=all",
        "finding": f"/finding?name={quote(finding['fingerprint'])}",
        "errors": "/errors",
        "events": "/events",
        "changes": "/changes?since=1",
        "evidence": "/evidence",
        "no such page": "/nowhere",
    }


def listen(page: Page, said: list[str]) -> None:
    """Keep what a page says on the console, errors included."""
    page.on("console", lambda message: said.append(f"{page.url}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"{page.url}: {error}"))


def faults(page: Page) -> list[str]:
    """What axe finds."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
        for one in found
        for node in one["nodes"][:3]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_every_view_at_every_width(
    browser: Browser, address: str, views: dict[str, str], scheme: Any, scripts: bool
) -> None:
    said: list[str] = []
    for width in WIDTHS:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme,
            java_script_enabled=scripts, reduced_motion="reduce",
        )  # fmt: skip
        page = context.new_page()
        listen(page, said)
        for name, path in views.items():
            page.goto(address + path, wait_until="load")
            assert page.title().endswith("Rubix Token Sync"), name
            wide = page.locator("main").bounding_box()
            assert wide is not None
            assert wide["x"] + wide["width"] <= width + 1, f"{name} at {width}"
            if scripts:
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (
                    f"{name} at {width}: {page.evaluate(_OUTSIDE)}"
                )
                assert page.evaluate(_OUTSIDE) == [], f"{name} at {width}"
                if width != 768:
                    assert faults(page) == [], f"{name} at {width}, {scheme}"
        context.close()
    assert [line for line in said if "/nowhere" not in line] == []


def test_the_report_is_of_the_same_kind(browser: Browser, place: Place, tmp_path: Path) -> None:
    (newest, *_) = sorted(place.reports.glob("*.json"), reverse=True)
    file = tmp_path / "report.html"
    file.write_text(render_page(json.loads(newest.read_text())), encoding="utf-8")
    for width, scheme in ((360, "light"), (1280, "dark")):
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        page = context.new_page()
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert faults(page) == []
        context.close()


def test_it_is_walked_by_keyboard(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.locator(".skip").is_visible()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    focused = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert focused == "solid", "what has the focus is seen"
    page.close()


def test_forms_work_without_scripts(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/tokens")
    page.get_by_label("Node", exact=True).fill("node033")
    page.get_by_label("Content").select_option("no")
    page.get_by_role("button", name="Show").click()
    assert "node=node033" in page.url
    assert "content=no" in page.url
    assert page.locator("tbody tr").count() == 14
    page.goto(f"{address}/tokens?limit=7")
    first = page.locator("tbody tr").first.inner_text()
    page.get_by_role("link", name="Next page").click()
    assert page.locator("tbody tr").first.inner_text() != first
    context.close()


def test_a_decision_is_made_in_the_browser(
    browser: Browser, address: str, views: dict[str, str], place: Place
) -> None:
    """The browser's own headers are those that a write needs."""
    page = browser.new_page()
    page.goto(address + views["finding"])
    page.get_by_label("A sentence that is kept with it").first.fill("<i>looked at</i>")
    page.get_by_role("button", name="Acknowledge").click()
    assert "<i>looked at</i>" in page.locator("main").inner_text()
    page.get_by_role("button", name="Take it back").click()
    page.wait_for_load_state()
    page.close()
    rts.reopen_finding(views["finding"].partition("name=")[2].replace("%3A", ":"),
                       target=place.target)  # fmt: skip


@contextmanager
def beginning_run(place: Place) -> Iterator[Callable[[], None]]:
    """A function that lets a run of vm-live begin, of which nothing is left in the end."""
    session = str(uuid.uuid4())

    def execute(statement: str) -> None:
        with closing(sqlite3.connect(place.target.removeprefix("sqlite:///"))) as target, target:
            target.execute(statement, (session,))

    try:
        yield lambda: execute(
            "INSERT INTO SyncSessions (session_id, start_time, heartbeat_at, source_ip, status,"
            " command, progress_percent) VALUES (?, strftime('%Y-%m-%d %H:%M:%f000', 'now'),"
            " strftime('%Y-%m-%d %H:%M:%f000', 'now'), 'vm-live', 'RUNNING', 'sync', 12.5)"
        )
    finally:
        execute("DELETE FROM SyncSessions WHERE session_id = ?")


def test_a_run_shows_up_without_a_reload(browser: Browser, address: str, place: Place) -> None:
    page = browser.new_page()
    with page.expect_request("**/live"):
        page.goto(f"{address}/runs")
    page.evaluate("window.stayed = true")
    with beginning_run(place) as begin:
        begin()
        page.get_by_role("link", name="vm-live").first.wait_for(timeout=20_000)
        assert page.evaluate("window.stayed"), "the page was not loaded again"
        # Who asks for a pause gets one.
        page.get_by_role("button", name="Pause updates").click()
        assert page.get_by_role("button", name="Go on updating").is_visible()
    page.close()


def test_what_began_before_the_stream_did_shows_up(
    browser: Browser, address: str, place: Place
) -> None:
    page = browser.new_page()
    with beginning_run(place) as begin:

        def late(route: Route) -> None:
            begin()
            route.continue_()

        page.route("**/live", late, times=1)
        page.goto(f"{address}/runs")
        page.get_by_role("link", name="vm-live").first.wait_for(timeout=20_000)
    page.close()


def test_an_answer_on_its_way_takes_no_focus_away(browser: Browser, address: str) -> None:
    page = browser.new_page()
    link = page.locator("[data-live] a").first

    def late(route: Route) -> None:
        """Who walks by keyboard arrives in the part before its fresh content does."""
        if route.request.headers.get("hx-request"):
            link.focus()
        route.continue_()

    page.route(address + "/", late)
    with page.expect_request_finished(lambda request: "hx-request" in request.headers):
        page.goto(address)
    page.evaluate("new Promise(requestAnimationFrame)")
    assert page.evaluate("document.activeElement.matches('[data-live] a')")
    page.unroute(address + "/")
    stale = link.element_handle()
    stale.evaluate("(link) => link.blur()")
    stale.wait_for_element_state("hidden")
    page.close()


def test_an_open_tab_says_that_the_target_is_gone(
    browser: Browser, place: Place, tmp_path: Path
) -> None:
    file = tmp_path / "target.db"
    with closing(sqlite3.connect(place.target.removeprefix("sqlite:///"))) as held:
        held.execute(f"VACUUM INTO '{file}'")
    copied = Place(f"sqlite:///{file}", place.reports, place.evidence)
    with served(copied) as (address, process):
        page = browser.new_page()
        page.goto(address)
        file.rename(tmp_path / "moved.db")
        page.get_by_text("Not up to date").wait_for(timeout=30_000)
        (tmp_path / "moved.db").rename(file)
        page.get_by_text("Not up to date").wait_for(state="detached", timeout=30_000)
        process.kill()
        page.get_by_text("the server of this page does not answer").wait_for(timeout=30_000)
        assert page.get_by_text("Not up to date").count() == 1
        page.close()


def test_paper_has_no_navigation(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(255, 255, 255)"
    page.close()
