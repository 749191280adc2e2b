"""Commands are printed as they can be run: program, extras (incident 31)."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from rubix_token_sync import installation


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ({}, ["rubix-token-sync[alerts]"]),
        ({"url": "file:///srv/a%20b", "dir_info": {}}, ["/srv/a b[alerts]"]),
        (
            {"url": "file:///srv/x", "dir_info": {"editable": True}},
            ["-e", "/srv/x[alerts]"],
        ),
        (
            {
                "url": "https://example.com/r.git",
                "vcs_info": {"vcs": "git", "commit_id": "abc"},
            },
            ["rubix-token-sync[alerts] @ git+https://example.com/r.git@abc"],
        ),
        (
            {"url": "file:///w/x-1.whl", "archive_info": {}},
            ["rubix-token-sync[alerts] @ file:///w/x-1.whl"],
        ),
    ],
)
def test_an_extra_is_added_to_what_is_installed(origin: dict[str, Any], words: list[str]) -> None:
    command = installation.extra_command("alerts", origin=origin, has_pip=True)
    assert shlex.split(command) == [sys.executable, "-m", "pip", "install", *words]


@pytest.mark.parametrize(
    ("prefix", "start"),
    [
        ("/home/u/.local/share/pipx/venvs/rubix-token-sync", "pipx install --force "),
        ("/home/u/.local/share/uv/tools/rubix-token-sync", "uv tool install --force "),
        ("/srv/venv-of-uv", f"uv pip install --python {sys.executable} "),
    ],
)
def test_by_the_installers_that_made_it(prefix: str, start: str) -> None:
    command = installation.extra_command("metrics", origin={}, prefix=prefix, has_pip=False)
    assert command == f"{start}'rubix-token-sync[metrics]'"


def test_the_program_is_named_as_path_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "rubix-token-sync"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", "/usr/bin")
    assert installation.program() == str(script)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installation.program() == "rubix-token-sync"
    other = tmp_path / "other" / "rubix-token-sync"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", f"{other.parent}:{tmp_path}")
    assert installation.program() == str(script), "another one would run"
    monkeypatch.setattr(sys, "argv", ["x.py"])
    monkeypatch.setattr(sys, "executable", "/none/python3")
    assert installation.program() == "/none/python3 -P -m rubix_token_sync"
    shown = installation.runnable("Run `rubix-token-sync sync`, edit rubix-token-sync.toml")
    assert shown == "Run `/none/python3 -P -m rubix_token_sync sync`, edit rubix-token-sync.toml"


def test_this_very_installation() -> None:
    assert json.dumps(installation.installed_from())
    assert "[all]" in installation.extra_command("all")
