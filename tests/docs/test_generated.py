"""What is generated from the program is current."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rubix_token_sync.cli.contract import CONTRACT

ROOT = Path(__file__).parents[2]


def test_it_is_current() -> None:
    generated = runpy.run_path(str(ROOT / "docs"))["generated"]()
    assert len(generated) > 30
    for name, text in generated.items():
        held = (ROOT / name).read_text(encoding="utf-8")
        assert held == text, f"{name}: run: python docs"


def test_licences_are_those_of_the_installed_packages() -> None:
    """Every direct dependency has a row; of those that are installed here it is true."""
    names = runpy.run_path(str(ROOT / "docs"))
    page = (ROOT / "docs" / "LICENCES.md").read_text(encoding="utf-8")
    held = names["rows"](page)
    assert held.keys() >= names["direct"]().keys()
    assert names["installed"]().items() <= held.items(), "run: python docs"
    assert names["licences_page"]() == page or sys.version_info[:2] != (3, 11)


def test_the_architecture_says_what_lives_on_each_floor() -> None:
    """Each package of the contract stands in the table, floors in the contract's order."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text.partition("| floor | what lives there")[2].partition("\n\n")[0]
    first = [line.split("|")[1] for line in table.splitlines()[2:]]
    places = []
    for floor in runpy.run_path(str(ROOT / "docs"))["floors"]():
        for name in floor:
            package = (ROOT / "src" / "rubix_token_sync" / name).is_dir()
            found = [row for row, cell in enumerate(first) if f"`{name}/`" in cell]
            assert found or not package, f"{name} is not in the table"
            places += found[:1]
    assert places == sorted(places)


def test_nothing_is_left_over() -> None:
    """A page of a command that is gone, or a completion of another name."""
    generated = runpy.run_path(str(ROOT / "docs"))["generated"]()
    held = {str(path.relative_to(ROOT)) for path in (ROOT / "share").rglob("*") if path.is_file()}
    assert held == {name for name in generated if name.startswith("share/")}


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff here")
def test_man_pages_are_formatted_without_a_warning() -> None:
    pages = sorted((ROOT / "share" / "man" / "man1").iterdir())
    assert len(pages) > 25
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", *map(str, pages)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    plain = re.sub("\x1b\\[[0-9;]*m|.\b", "", done.stdout)
    assert plain.count("\nNAME\n") == len(pages)


def test_every_key_of_json_is_documented() -> None:
    """The other way round as well: nothing is documented that is not there."""
    text = (ROOT / "docs" / "JSON.md").read_text(encoding="utf-8")
    for row, keys in CONTRACT.items():
        section = text.partition(f"\n### {row}\n")[2].partition("\n##")[0]
        told = [
            key
            for line in section.splitlines()
            if line.startswith("| `")
            for key in re.findall(r"`([a-z_]+)`", line.split(" | ")[0])
        ]
        assert sorted(told) == sorted(keys), row


def test_every_event_of_the_log_is_documented() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    events = set(re.findall(r'log_event\(\s*_LOG,\s*logging\.\w+,\s*"(\w+)"', source))
    text = (ROOT / "docs" / "JSON.md").read_text(encoding="utf-8").partition("## The log")[2]
    assert len(events) > 10
    assert {event for event in events if f"`{event}`" not in text} == set()


def test_settings_in_the_guides_exist() -> None:
    """TOML blocks of the guides are settings files that the program takes."""
    import tomllib

    from rubix_token_sync.settings import Settings

    for guide in sorted((ROOT / "docs").glob("*.md")):
        text = guide.read_text(encoding="utf-8")
        for block in re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            Settings.model_validate(tomllib.loads(block))


def test_the_schema_is_shipped_as_json() -> None:
    path = ROOT / "src" / "rubix_token_sync" / "reports" / "report.schema.json"
    assert json.loads(path.read_text(encoding="utf-8"))["$id"] == "urn:rubix-token-sync:report:1"
