"""Every command in a guide is executed, or at least one that the program knows."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest

from rubix_token_sync.cli import COMMANDS, command_line
from rubix_token_sync.testing import FleetPlan, make_fleet

from .runner import Block, blocks, run_block

ROOT = Path(__file__).parents[2]
BLOCKS = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
GUIDES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
OWN = [
    guide.name
    for guide in GUIDES
    if guide.name != "MIGRATION.md" and any(block.tag == "run" for block in blocks(guide))
]
"""Guides that run here; `tests.migrate.test_guide` runs the other one."""
_COMMAND = re.compile(r"(?:^|[ `/])rubix-token-sync ([a-z][^`|>&;\n\\]*)", re.MULTILINE)
_SPAN = re.compile(r"`([a-z][a-z-]* [^`]*)`")
_SYNC = Block("run", "rubix-token-sync sync /mnt/drived --quiet")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nodes of every guide, which no command may change."""
    made = tmp_path_factory.mktemp("guides") / "nodes"
    make_fleet(made, FleetPlan(nodes=3, tokens_per_node=30))
    return made


@pytest.fixture(scope="module")
def synced(nodes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which they were synced."""
    here = tmp_path_factory.mktemp("synced") / "here"
    here.mkdir()
    run_block(_SYNC, here, {"/mnt/drived": str(nodes)})
    return here


@pytest.mark.timeout(300)  # two dozen commands one after the other, on a busy machine
@pytest.mark.parametrize("name", OWN)
def test_a_guide_does_what_it_says(
    name: str, nodes: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    to_run = [block for block in blocks(ROOT / "docs" / name) if block.tag == "run"]
    first = next(path for path in nodes.iterdir() if path.is_dir())
    replaced = {"/mnt/drived": str(nodes), "--node node1": f"--node {first.name}"}
    if any("postgresql://" in block.text for block in to_run):
        server = request.getfixturevalue("postgres_server")
        database = urlsplit(request.getfixturevalue("postgres_url")).path.lstrip("/")
        replaced["postgresql://rubix:PASSWORD@db.example.com/rubix"] = server.tcp_url(database)
    here = tmp_path / "here"
    if re.search("rubix-token-sync (sync|demo)", to_run[0].text):
        here.mkdir()
    else:  # the reader of this guide has synced before
        shutil.copytree(request.getfixturevalue("synced"), here)
    for block in to_run:
        run_block(block, here, replaced)


def mentioned() -> list[tuple[str, str]]:
    """Every command line with the program's name in any guide: blocks, tables, sentences."""
    found = []
    for guide in GUIDES:
        if guide.name == "CLI.md":  # generated from the commands themselves
            continue
        for match in _COMMAND.finditer(guide.read_text(encoding="utf-8")):
            text = match[1].split(" # ")[0].split("  #")[0].strip()
            if text.split()[0] in COMMANDS:
                found.append((guide.name, text))
    return sorted(set(found))


def abbreviated() -> list[tuple[str, str]]:
    """Commands that stand in sentences without the program's name: ``verify --repair``."""
    found = []
    for guide in GUIDES:
        if guide.name != "CLI.md":
            text = BLOCKS.sub("", guide.read_text(encoding="utf-8"))
            for match in _SPAN.finditer(text):
                said = " ".join(match[1].split())
                if said.split()[0] in COMMANDS:
                    found.append((guide.name, said))
    return sorted(set(found))


def test_the_program_knows_every_command() -> None:
    """Commands and options exist; nothing is run."""
    named = [*mentioned(), *abbreviated()]
    assert len(named) > 150
    for guide, text in named:
        _known(guide, text)


def _known(guide: str, text: str) -> None:
    words = shlex.split(text.replace("…", "").replace("'", " ").rstrip(".:,)"))
    command: click.Command | None = command_line
    context = click.Context(command_line)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        group, name = command, words.pop(0)
        command = group.get_command(context, name)
        if command is None and group.name == "history":  # `history TOKEN` is `history show TOKEN`
            command = group.get_command(context, "show")
        assert command is not None, name
    if isinstance(command, click.Group) and command.name == "history" and words:
        command = command.get_command(context, "show")
    assert command is not None
    known = {
        option for parameter in command.params for option in (*parameter.opts,
                                                              *parameter.secondary_opts)
    }  # fmt: skip
    for word in words:
        if word.startswith("-") and len(word) > 1:
            assert word.partition("=")[0] in known | {"-h", "--help"}, f"{guide}: {text}"


def markdown() -> list[Path]:
    """Every Markdown file of a clone."""
    places = [ROOT.glob("*.md"), *((ROOT / name).rglob("*.md") for name in
              (".github", "benchmarks", "docs", "scripts", "src", "tests"))]  # fmt: skip
    return sorted(path for found in places for path in found if not path.is_symlink())


def links(path: Path) -> list[tuple[str, str]]:
    """Relative links with their anchors; what stands in blocks of code is none."""
    text = BLOCKS.sub("", path.read_text(encoding="utf-8"))
    found = re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", text)
    return [(file, anchor) for file, anchor in found if file or anchor]


def test_links_lead_somewhere() -> None:
    assert sum(len(links(path)) for path in markdown()) > 80
    for path in markdown():
        for file, _ in links(path):
            assert (path.parent / file).exists(), f"{path.name}: {file}"


def test_anchors_exist() -> None:
    def anchors(path: Path) -> set[str]:
        text = BLOCKS.sub("", path.read_text(encoding="utf-8"))
        titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        return {re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-") for title in titles}

    for path in markdown():
        for file, anchor in links(path):
            place = path.parent / file if file else path
            assert not anchor or anchor in anchors(place), f"{path.name}: {file}#{anchor}"
