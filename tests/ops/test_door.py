"""The guide's own commands: sync_distributed_tokens.py, its log, its --test-connection."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from rubix_token_sync.cli import COMMANDS

DOOR = Path(__file__).parents[2] / "sync_distributed_tokens.py"


def start(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As the guide says: ``python3 sync_distributed_tokens.py``."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RUBIX_")}
    return subprocess.run(
        [sys.executable, str(DOOR), *arguments],
        cwd=directory,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_it_syncs_and_its_log_answers_the_guides_grep(fleet: Path, tmp_path: Path) -> None:
    done = start(tmp_path, str(fleet / "node032"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rubix-tokens.db").exists()
    grep = subprocess.run(
        'grep "Progress:" sync_distributed_tokens.log | tail -10',
        shell=True, cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    last = grep.splitlines()[-1]
    assert re.search(
        r"Progress: 100\.0% \| Records: 120 \| Rate: [\d,]+\.\d/sec \| IPFS Success: 120"
        r" \| SQL Errors: 0$",
        last,
    ), last


def test_roots_are_the_current_directory_by_default(fleet: Path) -> None:
    done = start(fleet / "node032", "--target", f"sqlite:///{fleet.parent}/t.db",
                 "--log-file", str(fleet.parent / "x.log"),
                 "--report", str(fleet.parent / "reports"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (fleet.parent / "x.log").exists()
    assert not (fleet / "node032" / "sync_distributed_tokens.log").exists()


def test_test_connection_never_tests_an_embedded_file_that_nobody_named(tmp_path: Path) -> None:
    (tmp_path / "rubix-tokens.db").touch()
    done = start(tmp_path, "--test-connection", "--json")
    assert done.returncode == 2, done.stdout + done.stderr
    assert '"no_target_named"' in done.stdout
    assert (tmp_path / "rubix-tokens.db").stat().st_size == 0


def test_test_connection(tmp_path: Path) -> None:
    (tmp_path / "azure_sql_connection.txt").write_text("sqlite:///edited.db")
    (tmp_path / "azure_sql_connection.txt").chmod(0o600)
    done = start(tmp_path, "--test-connection")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "edited.db").exists()
    assert not (tmp_path / "rubix-tokens.db").exists()
    assert "connection" in done.stdout
    assert not (tmp_path / "sync_distributed_tokens.log").exists()


def test_a_log_file_of_the_settings_is_kept(fleet: Path, tmp_path: Path) -> None:
    log = tmp_path / "other.log"
    done = start(tmp_path, str(fleet / "node032"), RUBIX_SYNC_LOG_FILE=str(log))
    assert done.returncode == 0, done.stderr
    assert log.exists()
    assert not (tmp_path / "sync_distributed_tokens.log").exists()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([], ["sync", "--log-file", "sync_distributed_tokens.log"]),
        (["--force"], ["sync", "--log-file", "sync_distributed_tokens.log", "--force"]),
        (["--log-file=x"], ["sync", "--log-file=x"]),
        (["--test-connection", "-v"], ["check", "--no-default-target", "-v"]),
        (["status", "--json"], ["status", "--json"]),
        (["--version"], ["--version"]),
        (["--help"], ["--help"]),
    ],
)
def test_arguments(given: list[str], wanted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUBIX_SYNC_LOG_FILE", raising=False)
    translate = runpy.run_path(str(DOOR))["translate"]
    assert translate(given, set(COMMANDS)) == wanted


def test_other_commands_pass(tmp_path: Path) -> None:
    done = start(tmp_path, "status", "--json")
    assert done.returncode == 3
    assert '"target_absent"' in done.stdout


def test_a_missing_package_is_said_in_words(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(DOOR)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    requirements = DOOR.parent / "requirements.txt"
    assert f"{sys.executable} -m pip install -r {requirements}" in done.stderr
    assert requirements.exists()
    assert "Traceback" not in done.stderr
