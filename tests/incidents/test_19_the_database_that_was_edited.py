"""`check` tests the database that was edited, never another one; every command says which."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).parent / "rubix-token-sync"


def start(
    place: Path, *arguments: str, path: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The program as a user starts it, with nothing in the environment but what a login has."""
    return subprocess.run(
        [PROGRAM, *arguments],
        cwd=place, capture_output=True, text=True, check=False, timeout=120,
        env={"PATH": path or f"{PROGRAM.parent}:/usr/bin:/bin", "HOME": str(place), **environment},
    )  # fmt: skip


def edit(file: Path, database: str) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text(f"# edited\nsqlite:///{database}\n")


@pytest.mark.parametrize("on_path", [True, False])
def test_init_prints_a_command_that_tests_what_was_edited(tmp_path: Path, on_path: bool) -> None:
    path = None if on_path else "/usr/bin:/bin"
    done = start(tmp_path, "init", "a place", path=path)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^Edit (.+), then run: (.+)$", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout
    refused = subprocess.run(
        ["/bin/sh", "-c", found[2]], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PATH": path or f"{PROGRAM.parent}:/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert refused.returncode == 2, "the template is not a database"
    assert "placeholder" in refused.stderr
    edit(tmp_path / found[1], "edited.db")
    checked = subprocess.run(
        ["/bin/sh", "-c", found[2]], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PATH": path or f"{PROGRAM.parent}:/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
    assert "edited.db" in checked.stdout
    assert (tmp_path / "edited.db").exists()
    assert not (tmp_path / "rubix-tokens.db").exists()
    assert shlex.split(found[2])[0] == ("rubix-token-sync" if on_path else str(PROGRAM))


def test_the_settings_of_the_current_directory_are_used_and_named(tmp_path: Path) -> None:
    assert start(tmp_path, "init").returncode == 0
    edit(tmp_path / "azure_sql_connection.txt", "edited.db")
    done = start(tmp_path, "check")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == (
        "Settings file: ./rubix-token-sync.toml (current directory). Target: as the connection "
        "file ./azure_sql_connection.txt says (current directory)."
    )
    quiet = start(tmp_path, "check", "--quiet")
    assert "Settings file" not in quiet.stdout + quiet.stderr
    as_json = start(tmp_path, "check", "--json")
    assert json.loads(as_json.stdout)["ok"]
    assert as_json.stderr.startswith("Settings file:")


def test_no_embedded_default_beside_a_settings_file(tmp_path: Path) -> None:
    (tmp_path / "rubix-token-sync.toml").write_text("batch_size = 100\n")
    (tmp_path / "rubix-token-sync.toml").chmod(0o600)
    (tmp_path / "nodes").mkdir()
    for command in ("sync", "check", "status", "verify"):
        done = start(tmp_path, command, "--json", *(["nodes"] if command != "status" else []))
        assert done.returncode == 2, done.stdout
        assert json.loads(done.stdout)["error"]["code"] == "no_target_named"
    assert not (tmp_path / "rubix-tokens.db").exists()
    assert start(tmp_path, "discover", "nodes").returncode == 0, "discover needs no target"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_settings_that_a_stranger_left_here_do_not_count(tmp_path: Path) -> None:
    nodes = tmp_path / "nodes"
    nodes.mkdir()
    planted = nodes / "rubix-token-sync.toml"
    planted.write_text('target = "sqlite:///theirs.db"\n')
    os.chown(planted, 4321, 4321)
    done = start(nodes, "sync", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "config_untrusted"
    assert not (nodes / "theirs.db").exists()
    planted.unlink()
    connection = nodes / "azure_sql_connection.txt"
    connection.write_text("sqlite:///theirs.db")
    connection.chmod(0o600)
    os.chown(connection, 4321, 4321)
    assert "config_untrusted" in start(nodes, "sync", "--json").stdout


def test_config_show_names_every_value_with_its_origin(tmp_path: Path) -> None:
    file = tmp_path / "rubix-token-sync.toml"
    file.write_text('target = "postgresql://u:hunter2-x@h/d"\nbatch_size = 7\n')
    file.chmod(0o600)
    done = start(tmp_path, "config", "show", "--json", "--source-ip", "vm1", IPFS_TIMEOUT="3")
    document = json.loads(done.stdout)
    assert document["settings_file"] == "./rubix-token-sync.toml"
    assert document["target"] == {
        "kind": "address",
        "value": "postgresql://u:***@h/d",
        "because": "file: ./rubix-token-sync.toml",
    }
    told = {name: (row["value"], row["origin"]) for name, row in document["settings"].items()}
    assert told["batch_size"] == ("7", "file: ./rubix-token-sync.toml")
    assert told["ipfs_timeout"] == ("3", "environment: IPFS_TIMEOUT")
    assert told["source_ip"] == ("vm1", "flag: --source-ip")
    assert told["retry_attempts"] == ("3", "default")
    text = start(tmp_path, "config", "show")
    assert text.returncode == 0
    assert "hunter2" not in done.stdout + done.stderr + text.stdout + text.stderr
    assert "BATCH_SIZE" in text.stdout


def test_config_check_finds_everything_at_once(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("batchsize = 5\nretry_atempts = 2\nipfs_timeout = -1\n")
    done = start(tmp_path, "config", "check", "s.toml", "--json")
    assert done.returncode == 2
    problems = json.loads(done.stdout)["problems"]
    assert [p["code"] for p in problems] == ["setting_unknown"] * 2 + ["setting_invalid"]
    assert problems[0]["remedy"] == "Did you mean 'batch_size'?"
    file.write_text(
        'target_file = "none.txt"\nroots = ["nowhere"]\nipfs_program = "/none/ipfs"\n'
        'alert_urls_file = "none"\nscratch = "nowhere"\n'
    )
    done = start(tmp_path, "config", "check", "s.toml", "--json")
    assert [p["code"] for p in json.loads(done.stdout)["problems"]] == [
        "target_file_missing", "alert_urls_unreadable", "no_such_root", "ipfs_program_missing",
        "scratch_missing",
    ]  # fmt: skip
    file.write_text('target = "sqlite:///x.db"\n')
    assert start(tmp_path, "config", "check", "s.toml").stdout == "s.toml is valid.\n"
    assert start(tmp_path, "config", "check").returncode == 2, "there is none here"
