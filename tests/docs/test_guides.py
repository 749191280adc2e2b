"""Every command in a guide is executed, or at least one that the program knows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest

from rubix_token_sync.cli import COMMANDS, command_line
from rubix_token_sync.testing import FleetPlan, make_fleet

from .runner import blocks, run_block

ROOT = Path(__file__).parents[2]
GUIDES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
OWN = [
    "DISTRIBUTED_TOKENS_GUIDE.md", "QUICK_REFERENCE.md", "TROUBLESHOOTING.md", "AZURE_SQL.md",
    "REPORT.md", "METRICS.md", "SCHEDULING.md", "JSON.md", "ALERTS.md",
    "AUDIT.md", "EVIDENCE.md", "EXPORT.md", "HISTORY.md",
]  # fmt: skip
_COMMAND = re.compile(r"(?:^|[ `/])rubix-token-sync ([a-z][^`|>&;\n\\]*)", re.MULTILINE)


@pytest.mark.timeout(300)  # a dozen programs one after the other, on a busy machine
@pytest.mark.parametrize("name", OWN)
def test_a_guide_does_what_it_says(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    guide = ROOT / "docs" / name
    to_run = [block for block in blocks(guide) if block.tag == "run"]
    if not to_run:
        pytest.skip("nothing in it is to be executed")
    nodes = tmp_path / "nodes"
    make_fleet(nodes, FleetPlan(nodes=3, tokens_per_node=30))
    first = next(path for path in nodes.iterdir() if path.is_dir())
    replaced = {"/mnt/drived": str(nodes), "--node node1": f"--node {first.name}"}
    if any("postgresql://" in block.text for block in to_run):
        server = request.getfixturevalue("postgres_server")
        database = urlsplit(request.getfixturevalue("postgres_url")).path.lstrip("/")
        replaced["postgresql://rubix:PASSWORD@db.example.com/rubix"] = server.tcp_url(database)
    here = tmp_path / "here"
    here.mkdir()
    if not re.search(r"rubix-token-sync sync", to_run[0].text):
        # The reader of this guide has synced before.
        subprocess.run(
            [Path(sys.executable).parent / "rubix-token-sync", "sync", str(nodes), "--quiet"],
            cwd=here, check=True,
        )  # fmt: skip
    for block in to_run:
        run_block(block, here, replaced)


def mentioned() -> list[tuple[str, str]]:
    """Every command line of the program in any guide: in blocks, tables and sentences."""
    found = []
    for guide in GUIDES:
        if guide.name == "CLI.md":  # generated from the commands themselves
            continue
        for match in _COMMAND.finditer(guide.read_text(encoding="utf-8")):
            text = match[1].split(" # ")[0].split("  #")[0].strip()
            if text.split()[0] in COMMANDS:
                found.append((guide.name, text))
    return sorted(set(found))


@pytest.mark.parametrize(("guide", "text"), mentioned())
def test_the_program_knows_it(guide: str, text: str) -> None:
    """Commands and options exist; nothing is run."""
    words = shlex.split(text.replace("…", "").replace("'", " ").rstrip(".:,)"))
    command: click.Command | None = command_line
    context = click.Context(command_line)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        command = command.get_command(context, name)
        assert command is not None, name
    assert command is not None
    known = {
        option for parameter in command.params for option in (*parameter.opts,
                                                              *parameter.secondary_opts)
    }  # fmt: skip
    for word in words:
        if word.startswith("-") and len(word) > 1:
            assert word.partition("=")[0] in known | {"-h", "--help"}, f"{guide}: {text}"


def test_other_shell_blocks_are_marked() -> None:
    """A block that is not executed says why: it needs root, or another machine."""
    for name in OWN:
        for block in blocks(ROOT / "docs" / name):
            assert block.tag in ("run", "admin"), f"{name}: {block.text}"


def test_links_between_guides_lead_somewhere() -> None:
    for guide in GUIDES:
        for target in re.findall(r"\]\(([^)#:]+)(#[^)]*)?\)", guide.read_text(encoding="utf-8")):
            assert (guide.parent / target[0]).exists(), f"{guide.name}: {target[0]}"


def test_anchors_exist() -> None:
    def anchors(path: Path) -> set[str]:
        titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}

    for guide in GUIDES:
        links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", guide.read_text(encoding="utf-8"))
        for file, anchor in links:
            place = guide.parent / file if file else guide
            assert anchor in anchors(place), f"{guide.name}: {file}#{anchor}"
