"""40: what a command writes never takes the place of a database, a pipe or a device."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import rubix_token_sync as rts
from rubix_token_sync.testing import FleetPlan, make_fleet
from tests.cli.conftest import call_program

_LONGEST = 255


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nodes and a target that holds them."""
    place = tmp_path_factory.mktemp("made")
    make_fleet(place / "nodes", FleetPlan(nodes=2, tokens_per_node=10))
    rts.sync(place / "nodes", target=f"sqlite:///{place}/t.db", source_ip="me")
    return place


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The target's copy, another program's database, a pipe and a directory."""
    shutil.copy(made / "t.db", tmp_path / "t.db")
    with closing(sqlite3.connect(tmp_path / "other.db")) as db, db:
        db.execute("CREATE TABLE t (x)")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


WHOLE = (
    ("export", "records", "--format", "csv", "--to"),
    ("errors", "--export"),
    ("backup", "--force"),
)
"""Commands whose file gets its name when it is complete."""


@pytest.mark.parametrize("command", WHOLE, ids=lambda words: words[0])
@pytest.mark.parametrize("name", ["t.db", "t.db-wal", "other.db", "pipe", "directory"])
def test_a_file_takes_the_place_of_files_only(
    command: tuple[str, ...], name: str, here: Path
) -> None:
    if command[0] == "backup" and name in ("other.db", "t.db-wal"):
        pytest.skip("a backup is a database, and --force replaces one that nobody uses")
    before = {path: (path.lstat().st_ino, path.lstat().st_size) for path in here.iterdir()}
    ended = call_program(*command, name, "--target", "sqlite:///t.db", "--json")
    usual = {("backup", "t.db"): "backup_over_target"}
    ended.error(2, usual.get((command[0], name), "place_taken"))
    assert {p: (p.lstat().st_ino, p.lstat().st_size) for p in here.iterdir()} == before


@pytest.mark.parametrize("name", ["t.db", "other.db", "pipe"])
@pytest.mark.parametrize("option", ["--log-file", "--metrics-file", "--combined"])
def test_a_log_is_not_written_into_a_database(
    option: str, name: str, here: Path, made: Path
) -> None:
    command = "verify" if option == "--combined" else "sync"
    shutil.copy(made / "t.db", "own.db")
    before = (here / name).lstat()
    ended = call_program(
        command, made / "nodes", "--target", "sqlite:///own.db", "--source-ip", "me",
        option, name, "--json",
    )  # fmt: skip
    ended.error(2, "place_taken")
    assert (here / name).lstat().st_size == before.st_size


@pytest.mark.parametrize("command", WHOLE, ids=lambda words: words[0])
def test_a_name_may_be_as_long_as_it_can_be(command: tuple[str, ...], here: Path) -> None:
    for length, code in ((_LONGEST, 0), (_LONGEST + 1, 2)):
        name = "n" * (length - 4) + ".csv"
        ended = call_program(*command, name, "--target", "sqlite:///t.db")
        assert ended.code == code, ended.err
        if code:
            assert "File name too long" in ended.err
            assert "t.db" not in ended.err.partition("Error:")[2], "the target is not at fault"
    assert len(list(here.glob(".*"))) == 0, "nothing is left behind"


def test_a_node_with_a_long_name_is_not_partitioned_by(here: Path) -> None:
    with closing(sqlite3.connect("t.db")) as db, db:
        db.execute("UPDATE TokenRecords SET node_name = ?", ("ノ" * 80,))
    arguments = ("export", "records", "--to", "parts", "--partition", "node")
    ended = call_program(*arguments, "--target", "sqlite:///t.db", "--json")
    ended.error(2, "export_partition")
    assert not (here / "parts").exists()


def test_a_full_device_is_not_the_targets_fault(here: Path) -> None:
    command = [
        sys.executable, "-m", "rubix_token_sync", "export", "records", "--format", "csv",
        "--to", "-", "--target", f"sqlite:///{here}/t.db", "--quiet",
    ]  # fmt: skip
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=100
        )
    assert ended.returncode == 1
    assert "[output_unwritable]" in ended.stderr
    read, write = os.pipe()
    os.close(read)  # a reader that has gone
    ended = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=100
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, "")
