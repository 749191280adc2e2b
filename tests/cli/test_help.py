"""--help of everything, at once."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from rubix_token_sync import __version__
from rubix_token_sync.cli import COMMANDS, command_line
from rubix_token_sync.cli.options import PROFILES
from rubix_token_sync.runs.survey import _INLINE_BYTES
from rubix_token_sync.settings import PROFILES as REAL_PROFILES
from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.cli.conftest import Run, clean_environment

HEAVY = ("alembic", "httpx", "numpy", "psycopg", "pyarrow", "pydantic", "rich", "sqlalchemy")
_WHAT_IT_LOADS = """
import sys, json
from rubix_token_sync.cli import main
try:
    main(sys.argv[1:])
except SystemExit as left:
    print(json.dumps([left.code, sorted(sys.modules)]), file=sys.stderr)
"""
THERE = [
    name
    for name, (module, _) in COMMANDS.items()
    if importlib.util.find_spec(f"rubix_token_sync.cli.{module}")
]


def test_all_commands_of_the_contract_are_listed(run: Run) -> None:
    ended = run("--help")
    assert ended.code == 0
    names = {line.split()[0] for line in ended.out.split("Commands:")[1].splitlines() if line}
    assert names >= {
        "sync", "discover", "check", "verify", "status", "sessions", "databases", "errors",
        "retry-failed", "schema", "migrate", "init", "demo",
    }  # fmt: skip


@pytest.mark.parametrize("name", THERE)
def test_help_of_each_command_explains_every_option(run: Run, name: str) -> None:
    ended = run(name, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert f"Usage: rubix-token-sync {name}" in ended.out
    command = command_line.get_command(click.Context(command_line), name)
    assert command is not None
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.opts[0] in ended.out


@pytest.mark.parametrize("name", ["show", "upgrade"])
def test_help_of_subcommands(run: Run, name: str) -> None:
    assert run("schema", name, "-h").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        *([name, "--help"] for name in THERE),
    ],
)  # fmt: skip
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _WHAT_IT_LOADS, *arguments],
        capture_output=True, text=True, timeout=60, env=clean_environment(),
    )  # fmt: skip
    code, modules = json.loads(ended.stderr)
    assert code == 0
    assert set(modules) & set(HEAVY) == set()


def test_profiles_are_those_of_the_settings() -> None:
    assert PROFILES == REAL_PROFILES


def test_version_by_every_door(run: Run, start: Run) -> None:
    assert run("--version").out == f"rubix-token-sync, version {__version__}\n"
    assert start("--version").out == f"rubix-token-sync, version {__version__}\n"


def test_no_command_shows_the_help(run: Run) -> None:
    ended = run()
    assert ended.code == 2
    assert "Commands:" in ended.err


def test_a_night_without_changes_loads_neither_arrow_nor_numpy(run: Run, nodes: Path) -> None:
    """Nor its worker's modules: only who has records to write needs them."""
    arguments = ["sync", str(nodes), "--target", "sqlite:///t.db", "--source-ip", "vm1"]
    assert run(*arguments).code == 0
    ended = subprocess.run(
        [sys.executable, "-c", _WHAT_IT_LOADS, *arguments, "--quiet"],
        capture_output=True, text=True, timeout=60, env=clean_environment(),
    )  # fmt: skip
    code, modules = json.loads(ended.stderr.splitlines()[-1])
    assert code == 0
    assert {"numpy", "pyarrow", "rubix_token_sync.runs.worker"} & set(modules) == set()


def test_pandas_is_left_alone_where_it_is_installed(start: Run, tmp_path: Path) -> None:
    """pyarrow imports it for the first list that it is given: 0.3 s and 50 MB a process."""
    trap = tmp_path / "trap"
    trap.mkdir()
    seen = tmp_path / "seen"
    (trap / "pandas.py").write_text(f"open({str(seen)!r}, 'a').write('imported\\n')")
    fleet = make_fleet(tmp_path / "fleet", FleetPlan(nodes=2, tokens_per_node=4_000, absent=1))
    sizes = [os.path.getsize(node.db_path) for node in fleet.nodes]
    assert sum(sizes) >= _INLINE_BYTES, "worker processes do the work"
    ended = start("sync", tmp_path / "fleet", "--target", "sqlite:///t.db", PYTHONPATH=str(trap))
    assert ended.code == 0, ended.err
    assert not seen.exists()
    subprocess.run(
        [sys.executable, "-c", "import pyarrow; pyarrow.array([1])"],
        env={**clean_environment(), "PYTHONPATH": str(trap)},
        check=False,
    )
    assert seen.exists(), "this is how it would have been seen"
