"""The documentation as a site: it builds without a warning and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    find_spec("material") is None, reason="requirements-docs.txt is not installed here"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages."""
    place = tmp_path_factory.mktemp("site") / "built"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", place],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    # Not with --quiet: it would also keep warnings from being counted.
    assert "Building documentation" in done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    return place


def test_every_markdown_file_is_a_page(site: Path) -> None:
    pages = {path.stem for path in site.glob("*.html")} - {"404"}
    files = {path.stem for path in (ROOT / "docs").glob("*.md")}
    of_root = {path.stem for path in ROOT.glob("*.md")} - {"README"} | {"index"}
    assert pages == files | of_root


def test_a_page_is_searched_and_has_its_blocks(site: Path) -> None:
    assert "held_twice" in (site / "search" / "search_index.json").read_text("utf-8")
    for page in site.glob("*.html"):
        assert "```" not in page.read_text("utf-8"), f"{page.name}: a block that was not seen"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=[\"']?(https?:)?//")
    for page in site.glob("*.html"):
        assert not loads.search(page.read_text("utf-8")), page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", style.read_text("utf-8")), style.name
