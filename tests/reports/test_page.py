"""The HTML page: the report's numbers, from one file, safe, and right in a real browser."""

from __future__ import annotations

import copy
import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync.amounts import per_cent
from rubix_token_sync.errors import SyncError
from rubix_token_sync.reports.page import render_page, write_page

from .conftest import Run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = "<script>document.title='owned'</script>&\"'\x1b[31m"


class _Parts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parts(page: str) -> _Parts:
    parser = _Parts()
    parser.feed(page)
    return parser


def many_samples(report: dict[str, Any]) -> dict[str, Any]:
    report = copy.deepcopy(report)
    report["duration_seconds"] = 100.0
    report["rate_samples"] = [
        {"seconds": n / 2, "tokens_read": n * 100, "tokens_per_second": 30_000.0 + n % 7 * 999}
        for n in range(1, 200)
    ]
    return report


def test_the_run_wrote_it_beside_the_json(synced: Run) -> None:
    page = synced.file.with_suffix(".html")
    assert page.read_text(encoding="utf-8") != ""
    assert not list(page.parent.glob("*.tmp"))


def test_it_shows_the_reports_numbers(synced: Run) -> None:
    words = " ".join(parts(render_page(synced.report)).text)
    report = synced.report
    assert f"{report['total_records_processed']:,}" in words
    held = report["total_records_with_content"] * 100 / report["total_records"]
    assert per_cent(held) in words
    for database in report["databases"]:
        assert database["node_name"] in words
    for error in report["errors"]:
        assert error["code"] in words
        assert error["message"] in words
    for code in report["content_failures"]:
        assert code in words


def test_nothing_is_loaded_and_nothing_runs(synced: Run) -> None:
    page = render_page(many_samples(synced.report))
    found = parts(page)
    assert found.tags.count("polyline") == 1
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(found.tags)
    names = {name for name, _ in found.attributes}
    assert not {n for n in names if n.startswith("on")}
    for name, value in found.attributes:
        if name in ("href", "src", "xlink:href"):
            assert (value or "").startswith("#"), value
    style = "".join(re.findall(r"<style.*?</style>", page, re.S))
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize("fastest", [4.0, 19_999.0, 20_001.0, 3_400_000.0])
def test_the_curve_fits_its_picture(synced: Run, fastest: float) -> None:
    report = many_samples(synced.report)
    for number, sample in enumerate(report["rate_samples"]):
        sample["tokens_per_second"] = fastest * (number % 2)
    page = render_page(report)
    (curve,) = re.findall(r'<polyline points="(.*?)"', page)
    points = [tuple(map(float, point.split(","))) for point in curve.split()]
    (size,) = re.findall(r'<svg class="curve" viewBox="0 0 (\d+) (\d+)"', page)
    (width, height) = map(int, size)
    assert all(0 < x <= width and 0 < y < height for x, y in points)
    heights = sorted({y for _, y in points})
    assert heights[0] < height * 0.6 < heights[1], "the curve fills it"


def test_bars_say_their_numbers(synced: Run) -> None:
    report = copy.deepcopy(synced.report)
    report["databases"] = [
        {**report["databases"][0], "node_name": "full", "records": 400, "ipfs_success": 300,
         "ipfs_failures": 100},
        {**report["databases"][0], "node_name": "empty", "db_path": "/empty", "records": 0,
         "ipfs_success": 0,
         "ipfs_failures": 0},
    ]  # fmt: skip
    page = render_page(report)
    rows = dict(re.findall(r'rowheader">(\w+)</th>(.*?)</tr>', page, re.S))
    widths = re.findall(r'<rect class="(\w+)"[^>]* width="([\d.]+)"', rows["full"])
    assert widths == [("empty", "160"), ("with", "120.0"), ("without", "40.0")]
    assert 'aria-label="300 with content, 100 without"' in rows["full"]
    assert 'aria-label="none"' in rows["empty"]


def test_names_from_disk_are_text(synced: Run) -> None:
    report = many_samples(synced.report)
    for database in report["databases"]:
        database["node_name"] = HOSTILE
    report["errors"][0] |= {"message": HOSTILE, "node_name": HOSTILE, "code": HOSTILE}
    report["skipped"][0]["path"] = HOSTILE
    report["source_ip"] = report["target"] = HOSTILE
    report["content_failures"] = {HOSTILE: 7, "no_cid": 1}
    page = render_page(report)
    assert "<script" not in page
    assert "script" not in parts(page).tags
    assert "document.title=" in " ".join(parts(page).text)


@pytest.mark.parametrize("emptied", ["databases", "errors", "skipped", "rate_samples"])
def test_what_is_empty_is_left_out(synced: Run, emptied: str) -> None:
    report = many_samples(synced.report)
    report[emptied] = []
    parts(render_page(report))
    report["content_failures"] = {}
    assert "could not get" not in render_page(report)


def _finding(severity: str, token: str) -> dict[str, Any]:
    return {
        "fingerprint": "held_twice:" + "5eed" * 8, "severity": severity, "state": "confirmed",
        "token_id": token, "says": "one token is spendable", "cure": "", "nodes": ["alice", "bob"],
    }  # fmt: skip


def test_findings_and_what_nobody_looked_for(synced: Run) -> None:
    """What is open, how to see its evidence; that there was no audit is no empty list."""
    report = many_samples(synced.report)
    assert (report["audit"], report["findings"]) == (None, [])
    assert "No audit has run yet" in render_page(report)
    report["total_records"] = None
    assert "The target could not be asked what audits found" in render_page(report)
    last = {"number": 3, "time": "2026-11-30T01:02:03.004Z", "complete": True}
    report["audit"] = last | {"errors": 0, "warnings": 0, "infos": 0}
    page = render_page(report)
    assert "0 errors, 0 warnings, 0 info open by audit 3, 2026-11-30 01:02:03 UTC." in page
    assert "A rule failed" not in page
    report["audit"] |= {"errors": 2, "infos": 1, "complete": False}
    report["findings"] = [_finding("error", "QmFirst"), _finding("info", HOSTILE)]
    page = render_page(report)
    words = " ".join(parts(page).text)
    assert "2 errors, 0 warnings, 1 info open by audit 3" in words
    assert "A rule failed" in words
    assert page.index("QmFirst") < page.index("document.title=")
    assert "rubix-token-sync findings show held_twice:5eed5eed " in words.replace("\n", " ") + " "
    assert "alice, bob" in words
    assert "… and 1 more: rubix-token-sync findings ." in " ".join(words.split())
    assert "<script" not in page


def test_a_short_run_shows_no_rate_and_an_empty_one_is_not_green(synced: Run) -> None:
    report = many_samples(synced.report)
    assert "Tokens read per second" in render_page(report)
    report["duration_seconds"] = 5.0
    page = render_page(report)
    assert "Tokens read per second" not in page
    assert "/s<" not in page
    report |= {"exit_code": 0, "status": "COMPLETED", "databases": []}
    page = render_page(report)
    assert "no node was found" in page
    assert "verdict warn" in page
    assert "verdict good" not in page


def test_a_large_fleet_keeps_the_page_small(synced: Run) -> None:
    report = many_samples(synced.report)
    report["databases"] = [
        {**report["databases"][0], "db_path": f"/n{n}", "node_name": f"n{n}", "status": "failed"}
        for n in range(5000)
    ]
    report["errors"] = report["errors"] * 2000
    page = render_page(report)
    assert len(page) < 500_000
    assert "4,960 more" in page


def test_an_unwritable_place_is_told(synced: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SyncError) as caught:
        write_page(synced.report, tmp_path / "file" / "such.json")
    assert caught.value.code == "report_unwritable"


# --- in Chromium ----------------------------------------------------------------

_MEASURE = """<!DOCTYPE html><body style="margin:0"><iframe src="report.html" width="%d"
height="900" style="border:0"></iframe><script>
onload = () => {
  const page = document.querySelector("iframe").contentDocument, root = page.documentElement;
  const box = (e) => e.getBoundingClientRect();
  const small = [...page.querySelectorAll("main > *, .number, section > *")]
    .filter((e) => box(e).right > root.clientWidth + 1).map((e) => e.tagName + "." + e.className);
  const text = page.querySelector(".chart text");
  const paint = (e) => page.defaultView.getComputedStyle(e);
  document.body.innerHTML = "<pre>" + JSON.stringify({
    width: root.clientWidth, content: root.scrollWidth, outside: small,
    page: paint(page.body).backgroundColor, text: paint(page.body).color,
    axis: paint(text).fill, charts: page.querySelectorAll(".curve, .bar").length,
    drawn: [...page.querySelectorAll(".bar rect")]
      .every((e) => box(e).width > 0 && box(e).height > 8),
    columns: paint(page.querySelector(".numbers")).gridTemplateColumns.split(" ").length,
    letter: box(text).height, title: page.title,
  }) + "</pre>";
};
</script>"""


@pytest.fixture
def served(synced: Run, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A server of its own port for the page and the page that measures it."""
    report = many_samples(synced.report)
    report["databases"][0]["node_name"] = "a-name-without-any-place-to-break-" * 4
    (tmp_path / "report.html").write_text(render_page(report), encoding="utf-8")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing: stderr is the test's."""

    handler = functools.partial(Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200], ids=["phone", "desktop"])
def test_it_looks_right_in_chromium(
    served: tuple[Path, str], width: int, dark: bool, tmp_path: Path
) -> None:
    directory, address = served
    (directory / "measure.html").write_text(_MEASURE % width, encoding="utf-8")
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path}/profile", "--window-size=1400,1000",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            "--virtual-time-budget=5000", "--dump-dom", f"{address}/measure.html",
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found = re.search(r"<pre>(.*)</pre>", done.stdout, re.S)
    assert found, done.stdout + done.stderr
    seen = json.loads(found[1])
    assert seen["charts"] > 3
    assert seen["drawn"], "every bar can be seen"
    assert width - 20 <= seen["width"] <= width
    assert seen["content"] <= seen["width"], "the page itself must not scroll sideways"
    assert seen["outside"] == []
    assert (seen["columns"] == 2) if width < 700 else (seen["columns"] > 4)
    assert seen["letter"] >= 8, "letters of charts can be read"
    background = sum(map(int, re.findall(r"\d+", seen["page"])[:3]))
    foreground = sum(map(int, re.findall(r"\d+", seen["text"])[:3]))
    assert (background < 150 < 600 < foreground) if dark else (foreground < 150 < 600 < background)
    axis = sum(map(int, re.findall(r"\d+", seen["axis"])[:3]))
    assert (axis > 400) if dark else (axis < 400), "charts take the page's colours"
