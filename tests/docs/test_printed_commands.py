"""Every command that a page or the program prints is run, in the surroundings it is printed for.

The fenced blocks tagged ``bash run`` are executed by `test_guides`, those of MIGRATION.md by
`tests.migrate.test_guide`.  Here: the README's blocks, the commands that stand in sentences and
tables, and what `demo` and `init` print.  What is not run stands in `NOT_RUN` with its reason.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rubix_token_sync.cli import COMMANDS
from rubix_token_sync.testing import FleetPlan, make_fleet
from rubix_token_sync.testing.fleet import plan_tokens
from tests.cli.conftest import Run, run

from .runner import Block, blocks, run_block
from .test_guides import BLOCKS, GUIDES, ROOT, mentioned

__all__ = ["run"]

PROGRAM = Path(sys.executable).parent / "rubix-token-sync"
NOT_RUN = {
    "README.md: python3 -m venv": "makes an environment from the network; .ci/run does the same",
    "CONTAINERS.md: podman build": "needs a container engine; tests/ops/test_containers.py",
    "CONTAINERS.md: docker compose": "needs a container engine; tests/ops/test_containers.py",
    "EVIDENCE.md: rubix-token-sync evidence create evidence-2": "asks an authority on the network; "
    "tests/evidence/test_stamps.py has one",
    "SCHEDULING.md: sudo rubix-token-sync": "needs root and systemd; the units are tested by "
    "tests/ops/test_deploy.py",
    "CLUSTER.md: scp": "needs three machines; tests/cluster/test_namespaces.py has them",
    "CLUSTER.md: sudo rubix-token-sync": "needs root, systemd and three machines; tests/cluster",
    "CLUSTER.md: rubix-token-sync cluster sync": "needs three machines; tests/cluster",
    "WEB.md: (umask 077; openssl": "writes into /etc, as root",
    "WEB.md: rubix-token-sync demo rubix-demo --serve": "goes on until it is stopped: tests/web",
    "WEB.md: pip install": "installs from the network; .ci/run does the same",
    "MIGRATION.md: pg_dump": "needs PostgreSQL's client programs and the older system's server",
    "PERFORMANCE.md: pip install": "installs peers to compare with, from the network",
    "RELIABILITY.md: python -m pytest": "is this very suite",
    "RELIABILITY.md: python tests/chaos": "runs for hours; its short form is in tests/chaos",
    "CONTRIBUTING.md: .ci/run": "is what runs this",
    "CONTRIBUTING.md: uv pip compile": "resolves from the network",
}
OTHER_PROGRAMS = {
    "apt-get": "needs root and the network; .ci/run installs the same packages",
    "chmod": "of files that the reader has; the guides' blocks run it",
    "curl": "asks the page: tests/web/test_access.py does",
    "docker": "needs a container engine; tests/ops/test_containers.py",
    "git": "tags a release",
    "grep": "of the log of a run that the reader has",
    "ipfs": "needs Kubo and a node's repository",
    "kill": "of a process that the reader has",
    "mkdocs": "tests/docs/test_site.py builds the site",
    "mypy": "is a step of .ci/run",
    "openssl": "VERIFY.md's commands are run by tests/evidence",
    "pip": "installs from the network; .ci/run does the same",
    "pipx": "installs from the network; tests/ops/test_package.py installs the wheel",
    "pytest": "is this very suite",
    "python": "generates these pages, or measures for hours",
    "python3": "`sync_distributed_tokens.py`: tests/ops/test_door.py",
    "ssh-add": "needs an agent: tests/evidence starts one",
    "ssh-keygen": "VERIFY.md's commands are run by tests/evidence",
    "systemctl": "needs systemd; tests/ops/test_deploy.py",
    "systemd-analyze": "needs systemd; tests/ops/test_deploy.py",
    "twine": "uploads a release; `twine check` is in tests/ops/test_package.py",
    "uv": "installs from the network; tests/ops/test_package.py installs the wheel",
    "uvx": "installs from the network; tests/ops/test_package.py installs the wheel",
    "tail": "of the log of a run that the reader has",
}
"""Programs in sentences and tables of the guides that are not run, with the reason."""
ELSEWHERE = {"MIGRATION.md", "README.md"}
"""Pages whose blocks another test runs."""


def fleet(place: Path) -> str:
    """Nodes as the guides have them; returns the name of the first."""
    make_fleet(place, _FLEET)
    return next(path.name for path in sorted(place.iterdir()) if path.is_dir())


def test_every_block_is_run_or_has_a_reason() -> None:
    used = set()
    for page in [*GUIDES, ROOT / "CONTRIBUTING.md"]:
        for block in blocks(page):
            if block.tag == "run" or (page.name in ELSEWHERE and block.tag != "admin"):
                continue
            start = f"{page.name}: {block.commands[0]}"
            reason = [key for key in NOT_RUN if start.startswith(key)]
            assert reason, f"run it, or say why not: {start}"
            used.update(reason)
            for word in block.text.split():
                if re.fullmatch(r"(?:\./?|tests/)\S+", word):
                    assert (ROOT / word).exists(), f"{page.name}: {word}"
    assert used >= {key for key in NOT_RUN if not key.startswith("README")}, "remove it"


def test_other_programs_in_sentences_have_a_reason() -> None:
    named = set()
    for page in [*GUIDES, ROOT / "CONTRIBUTING.md"]:
        text = BLOCKS.sub("", page.read_text(encoding="utf-8"))
        for span in re.findall(r"`([a-z][a-z0-9_-]* [^`]+)`", text):
            named.add(span.split()[0])
    programs = {name for name in named - COMMANDS.keys() if shutil.which(name)}
    assert programs - {"c", "if", "import", PROGRAM.name} <= OTHER_PROGRAMS.keys()
    assert named >= OTHER_PROGRAMS.keys(), "remove it"


@pytest.mark.timeout(300)
def test_the_readme_as_a_stranger_follows_it(tmp_path: Path) -> None:
    """Its commands in their order, in a clone without an environment of its own."""
    nodes, here = tmp_path / "nodes", tmp_path / "clone"
    fleet(nodes)
    (here / ".venv" / "bin").mkdir(parents=True)
    (here / ".venv" / "bin" / "rubix-token-sync").symlink_to(PROGRAM)
    edited = "printf 'sqlite:///azure.db' > azure_sql_connection.txt"
    ran = 0
    for number, block in enumerate(blocks(ROOT / "README.md")):
        kept = []
        for command in block.commands:
            steps = [part for part in command.split(" && ") if "pip install" not in part]
            steps = [part for part in steps if "-m venv" not in part and "pytest" not in part]
            kept += [re.sub(r"^nano \S+", edited, part) for part in steps]
        if kept:
            text = "\n".join(kept)
            if number:  # the first one starts the program that was installed
                text = text.replace(".venv/bin/", "")
            run_block(Block("run", text), here, {"/mnt/drived": str(nodes)})
            ran += len(kept)
    assert ran > 10
    assert (here / "azure.db").exists(), "the database that was edited"


PLAIN = [(page, text) for page, text in mentioned() if page != "MIGRATION.md"]
_FLEET = FleetPlan(nodes=2, tokens_per_node=20)
EXAMPLES = {
    "ID": next(plan_tokens(_FLEET, 0)).token_id,
    "CODE": "login_failed",
    "COMMAND": "sync",
    "RUN": "1",
    "/state/settings.toml": "rubix-token-sync.toml",
    "MOMENT": "1",
    "/etc/systemd/system": ".",
    "/etc/rubix-token-sync/settings.toml": "rubix-token-sync.toml",
    "azure/azure_sql_connection.txt": "azure_sql_connection.txt",
    "connection.txt": "azure_sql_connection.txt",
}


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Callable[[str], None]:
    """Runs a page's command for somebody who set up one machine and has synced."""
    nodes, home = tmp_path / "nodes", tmp_path / "home"
    first = fleet(nodes)
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("RUBIX_SYNC_ALERT_URLS", "json://127.0.0.1:1/x")
    for name, text in {
        "rubix-token-sync.toml": f'roots = ["{nodes}"]\nsource_ip = "vm1"\n',
        "azure_sql_connection.txt": f"sqlite:///{home}/t.db\n",
    }.items():
        Path(name).write_text(text)
        Path(name).chmod(0o600)
    assert run("sync", "--quiet").code == 0

    def do(text: str) -> None:
        words = [EXAMPLES.get(word, word) for word in shlex.split(text.rstrip(".:,)"))]
        replaced = {"/mnt/drived": str(nodes), "/nodes": str(nodes), "node1": first, "vm2": "vm1"}
        ended = run(*(replaced.get(word, word) for word in words if word != "…"))
        usual = (0, 6) if words[0] in ("audit", "findings") else (0,)
        assert ended.code in usual, f"{text}\n{ended.out[:2000]}{ended.err}"

    return do


@pytest.mark.timeout(300)
def test_commands_in_sentences_and_tables(operator: Callable[[str], None]) -> None:
    in_blocks = {
        command.partition("  #")[0].partition("rubix-token-sync ")[2].strip()
        for page in GUIDES
        for block in blocks(page)
        if block.tag == "run"
        for command in block.commands
    }
    left = sorted({text for _, text in PLAIN} - in_blocks)
    assert left
    for text in left:
        elsewhere = ("migrate", "sync --target-file connection", "init --system")
        if any(text.startswith(start) for start in elsewhere):
            continue  # in the blocks of MIGRATION.md and of the guide; tests/cli/test_start.py
        if text.startswith("cluster "):
            continue  # needs three machines: tests/cluster
        if "--timestamp" in text or text.startswith("evidence stamp"):
            continue  # asks an authority: tests/evidence/test_stamps.py
        if "serve" in (text.split()[0], text.split()[-1].removeprefix("--")):
            continue  # goes on until it is stopped: tests/web
        operator(text)


@pytest.mark.parametrize("on_path", [True, False])
def test_what_demo_prints_can_be_run(tmp_path: Path, on_path: bool) -> None:
    environment = {
        "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}" if on_path else "/usr/bin:/bin",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [PROGRAM, "demo", "my demo", "--nodes", "1", "--tokens", "20"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    commands = done.stdout.partition("Look around:\n")[2].splitlines()
    assert len(commands) == 3
    for command in commands:
        if " serve " in command:
            with subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command.strip()} --port 0"],
                cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True,
            ) as page:  # fmt: skip
                try:
                    assert page.stdout is not None
                    assert "The page is on http://127.0.0.1:" in page.stdout.readline()
                finally:
                    page.kill()
            continue
        again = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert again.returncode == 0, f"{command}: {again.stderr}"
        assert again.stdout
