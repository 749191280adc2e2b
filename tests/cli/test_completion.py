"""`completion`: in the shells themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rubix_token_sync.cli.completion import SHELLS
from tests.cli.conftest import Run, clean_environment


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_for_each_shell(run: Run, shell: str) -> None:
    ended = run("completion", shell)
    assert ended.code == 0
    assert "_RUBIX_TOKEN_SYNC_COMPLETE" in ended.out
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=ended.out, text=True, capture_output=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes_commands_and_options(run: Run) -> None:
    """Tab in a real bash: the function that the script defines is called as bash calls it."""
    program = Path(sys.executable).parent / "rubix-token-sync"
    asks = """
        eval "$SCRIPT"
        for words in "rubix-token-sync ver" "rubix-token-sync sync --max"; do
            COMP_WORDS=($words); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
            _rubix_token_sync_completion "$PROGRAM"; echo "${COMPREPLY[@]}"
        done
    """
    done = subprocess.run(
        ["bash", "-c", asks],
        env={
            **clean_environment(),
            "SCRIPT": run("completion", "bash").out,
            "PROGRAM": str(program),
        },
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["verify", "--max-missing-content"]


def test_completing_a_command_loads_none() -> None:
    look = (
        "import atexit, sys, json; atexit.register(lambda: print(json.dumps([m for m in "
        "sys.modules if m.startswith('rubix_token_sync.cli.')]), file=sys.stderr))\n"
        "from rubix_token_sync.cli import main; main([])"
    )
    done = subprocess.run(
        [sys.executable, "-c", look],
        env={
            **clean_environment(),
            "_RUBIX_TOKEN_SYNC_COMPLETE": "bash_complete",
            "COMP_WORDS": "rubix-token-sync d",
            "COMP_CWORD": "1",
        },
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["plain,discover", "plain,databases", "plain,demo"]
    assert json.loads(done.stderr) == ["rubix_token_sync.cli.suggest"]


def test_version_in_detail(run: Run) -> None:
    """What a report of a fault needs; nothing of the machine's owner."""
    ended = run("--version", "--verbose")
    assert ended.code == 0
    named = dict(line.split(": ", 1) for line in ended.out.splitlines()[1:])
    assert named["Python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert {"SQLite", "SQLAlchemy", "mssql-python", "platform"} <= named.keys()
    assert os.environ.get("HOME", "/root") not in ended.out
    assert run("-v", "--version").out == ended.out
    assert run("-v", "sync").code == 2, "elsewhere it is an option of the command"
