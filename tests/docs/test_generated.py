"""What is generated from the program is current."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

from rubix_token_sync.cli.contract import CONTRACT

ROOT = Path(__file__).parents[2]


def test_it_is_current() -> None:
    generated = runpy.run_path(str(ROOT / "docs" / "__main__.py"))["generated"]()
    assert len(generated) > 4
    for name, text in generated.items():
        held = (ROOT / "docs" / name).read_text(encoding="utf-8")
        assert held == text, f"{name}: run: python docs"


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
